# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The package contains exactly the files that users need, and its tools have the same versions everywhere."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from ansible_collections.netops.conntrack.tests import locks
from ansible_collections.netops.conntrack.tests.collection_tree import CHECKOUT

IGNORED = yaml.safe_load((CHECKOUT / "galaxy.yml").read_text(encoding="utf-8"))["build_ignore"]


def kept_by_git() -> set[str]:
    """Return the paths of files and folders that git tracks."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, check=True, capture_output=True, text=True)
    files = [Path(name) for name in listing.stdout.split("\0") if name]
    return {str(path) for file in files for path in (file, *file.parents)}


def test_build_ignore_names_only_what_exists() -> None:
    left_by_tools = {line.strip("/") for line in (CHECKOUT / ".gitignore").read_text(encoding="utf-8").splitlines()}
    assert set(IGNORED) - kept_by_git() - left_by_tools == set()


def test_no_hidden_file_is_packaged() -> None:
    hidden = {name for name in kept_by_git() if name.startswith(".") and name != "." and "/" not in name}
    assert hidden - set(IGNORED) == set()


def test_pre_commit_uses_the_versions_of_the_sessions() -> None:
    hooks = yaml.safe_load((CHECKOUT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    requirements = {
        line
        for file in (CHECKOUT / "tests/requirements").glob("*.txt")
        for line in file.read_text(encoding="utf-8").splitlines()
    }
    shared = {line for hook in hooks for line in hook["additional_dependencies"] if line in requirements}
    assert {line.split()[0] for line in shared} == {"ruff", "antsibull-changelog"}


#: A package in a lock file: its exact version, a condition, and hashes.
LOCKED = re.compile(
    r"^[\w.-]+(?:\[[\w,-]+\])?==[^\s;]+(?: ; [^\n]+)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n", re.MULTILINE
)


def test_each_requirement_file_has_a_lock_file() -> None:
    assert {path.stem for path in locks.LOCKS.iterdir()} == set(locks.names())


@pytest.mark.parametrize("name", locks.names())
def test_a_lock_file_is_current_and_every_package_has_a_hash(name: str) -> None:
    text = (locks.LOCKS / f"{name}.txt").read_text(encoding="utf-8")
    header, packages = text[: len(locks.header(name))], text[len(locks.header(name)) :]
    assert header == locks.header(name), "run 'make lock'"
    assert LOCKED.sub("", packages) == "\n"
    locked = {locked.lower().replace("_", "-") for locked in re.findall(r"^([\w.-]+).*==", packages, re.MULTILINE)}
    required = locks.lines(locks.REQUIREMENTS / f"{name}.txt")
    assert {re.split(r"[ <>=~]", line)[0].lower() for line in required} <= locked


def test_sessions_install_only_what_is_locked() -> None:
    """In the noxfile and the Makefile, every installation requires hashes."""
    session = (CHECKOUT / "noxfile.py").read_text(encoding="utf-8")
    assert re.findall(r"session\.install\((.*)\)", session) == ['"--require-hashes", "-r", str(lock)']
    names = re.findall(r'install\(session, f?"([^"{]+)', session)
    assert names
    assert {name for name in names if name != "core-"} <= set(locks.names())
    cores = re.findall(r'^    "(2\.\d+)": \[', session, re.MULTILINE)
    assert cores
    assert {f"core-{core}" for core in cores} == {name for name in locks.names() if name.startswith("core-")}
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    assert re.findall(r"pip (.+)", makefile) == ["$(INSTALL) -r $<"] * 2
    assert re.findall(r"^INSTALL := .*--require-hashes$", makefile, re.MULTILINE)


def test_documentation_is_in_the_documented_folder() -> None:
    place = "dist/docs/build/html"
    session = (CHECKOUT / "noxfile.py").read_text(encoding="utf-8")
    assert 'target = ROOT / "dist/docs"' in session
    assert "{target / 'build/html/index.html'}" in session
    for name in ("CONTRIBUTING.md", "Makefile"):
        assert place in (CHECKOUT / name).read_text(encoding="utf-8"), name
