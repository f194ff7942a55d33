# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images that ansible-builder makes for the collection contain its requirements."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.fleet.pages import FOLDER, Page
from tests.kernels import trees
from tests.plays import CHECKOUT

BUILDER = Path(sys.executable).with_name("ansible-builder")

#: ansible-core itself, and packages that it installs.
WITH_ANSIBLE = {"ansible", "ansible_collections", "yaml"}

REQUIREMENT = re.compile(r"^([A-Za-z][\w.-]*)\s*([~<>=!].*)?$", re.MULTILINE)


def requirements(path: Path) -> dict[str, str]:
    """Return the packages of a requirement file with their version specifiers."""
    return {name: versions.replace(" ", "") for name, versions in REQUIREMENT.findall(path.read_text())}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the collection as users get it: built, and installed from the built package."""
    folder = tmp_path_factory.mktemp("collections")
    galaxy = [sys.executable, "-m", "ansible", "galaxy", "collection"]
    subprocess.run([*galaxy, "build", str(CHECKOUT), "--output-path", str(folder)], check=True, capture_output=True)
    (package,) = folder.glob("netops-conntrack-*.tar.gz")
    # With --force, because the checkout may be in a folder where Ansible finds it as installed
    install = [*galaxy, "install", str(package), "--offline", "--force", "-p", str(folder)]
    subprocess.run(install, check=True, capture_output=True)
    return folder


@pytest.mark.skipif(not BUILDER.exists(), reason="ansible-builder is absent (pip install ansible-builder)")
def test_image_gets_the_requirements_of_the_collection(installed: Path) -> None:
    """The requirements come from the files in the package, not in the checkout."""
    done = subprocess.run([BUILDER, "introspect", str(installed)], check=True, capture_output=True, text=True)
    found = yaml.safe_load(done.stdout)
    needed = requirements(CHECKOUT / "requirements.txt")
    python = dict(REQUIREMENT.findall("\n".join(line.partition("#")[0].strip() for line in found["python"])))
    assert {name: versions.replace(" ", "") for name, versions in python.items()} == needed
    assert sorted(line.partition("#")[0].strip() for line in found["system"]) == [
        "util-linux [platform:dpkg]",
        "util-linux [platform:rpm]",
    ]


def test_page_on_images_requires_the_tested_ansible_core() -> None:
    definition = yaml.safe_load(Page(FOLDER / "howto_awx.rst").files["execution-environment.yml"])
    ((name, versions),) = REQUIREMENT.findall(definition["dependencies"]["ansible_core"]["package_pip"])
    assert requirements(CHECKOUT / "tests/requirements/demo.txt")[name] == versions.replace(" ", "")


def test_imports_of_plugins_are_required() -> None:
    """This concerns plugins on the controller; modules and module_utils on hosts require only the standard library."""
    assert imported() - WITH_ANSIBLE == requirements(CHECKOUT / "requirements.txt").keys()


def imported() -> set[str]:
    """Return the packages that plugins import anywhere, except Python's own."""
    folders = (path for path in (CHECKOUT / "plugins").iterdir() if path.name not in ("modules", "module_utils"))
    files = (file for folder in folders for file in folder.rglob("*.py"))
    return {name for file in files for name in _imports(file)} - sys.stdlib_module_names


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]
        elif isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)


def test_all_lists_require_the_same_versions() -> None:
    """No other list of requirements requires other versions of the same package."""
    required = requirements(CHECKOUT / "requirements.txt")
    others = {path.name: requirements(path) for path in (CHECKOUT / "tests/requirements").glob("*.txt")}
    others["kernels"] = dict(REQUIREMENT.findall("\n".join(trees.REQUIREMENTS).replace(" ", "")))
    for place, packages in others.items():
        assert {
            name: versions for name, versions in packages.items() if versions != required.get(name, versions)
        } == {}, place
