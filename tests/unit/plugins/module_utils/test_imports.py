# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test what each file imports, so that it runs on every supported Python, without Ansible and without packages."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import sysconfig
from pathlib import Path
from typing import Iterator

import pytest

PLUGINS = Path(__file__).resolve().parents[4] / "plugins"
UTILS = PLUGINS / "module_utils"
COLLECTION = "ansible_collections.netops.conntrack."
FILES = sorted(str(path.relative_to(UTILS)) for path in UTILS.rglob("*.py"))
CLIENT = [name for name in FILES if name.startswith("client/")]
#: Packages that a file may import inside a function, where an option's documentation names them.
OPTIONAL = {"yaml"}
STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib")).resolve()


def imported(path: Path) -> Iterator[str]:
    """Yield the full names of the modules that a file imports anywhere, also inside functions."""
    package = COLLECTION + ".".join(path.relative_to(PLUGINS.parent).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            yield ".".join([*base, *filter(None, [node.module])])


def outside(path: Path, *allowed: str) -> set[str]:
    """Return what a file imports besides the standard library and the allowed packages."""
    names = {name for name in imported(path) if not any(f"{name}.".startswith(f"{each}.") for each in allowed)}
    return {name for name in names if not _is_standard(name.split(".")[0])}


def _is_standard(name: str) -> bool:
    if name in sys.builtin_module_names:
        return True
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return False
    origin = Path(spec.origin).resolve()
    return spec.origin == "frozen" or (STANDARD_LIBRARY in origin.parents and "site-packages" not in origin.parts)


@pytest.mark.portability
@pytest.mark.parametrize("name", FILES)
def test_every_file_can_be_imported(name: str) -> None:
    source = (UTILS / name).read_text(encoding="utf-8")
    compile(source, name, "exec")
    needed = [each for each in imported(UTILS / name) if each.split(".")[0] in {"ansible", *OPTIONAL}]
    if not any(_is_missing(each) for each in needed):
        module = name[: -len(".py")].replace("/", ".")
        importlib.import_module(f"{COLLECTION}plugins.module_utils.{module}")


def _is_missing(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return True
    return False


@pytest.mark.parametrize("name", CLIENT)
def test_the_client_imports_only_itself_and_the_standard_library(name: str) -> None:
    assert outside(UTILS / name, f"{COLLECTION}plugins.module_utils.client") == set()


@pytest.mark.parametrize("name", sorted(set(FILES) - set(CLIENT)))
def test_module_utils_import_only_module_utils(name: str) -> None:
    allowed = ("ansible.module_utils", f"{COLLECTION}plugins.module_utils", *OPTIONAL)
    assert outside(UTILS / name, *allowed) == set()


#: Folders and files of module_utils from the bottom to the top. A file imports only from its own layer and from those
#: below, also inside functions.
LAYERS = """
    client/uapi client/errors client/input_file client/netlink client/codec client/entry client/match client/host
    client/bulk client/ctnetlink client/dump client/statistics client/table_reader client/table client/expectation
    client/timeout_policy client/probe client/reevaluate client/events client/text client/conntrack
    _fast_import _atomic_file _signals _source _operations _reconcile _snapshot _module _argspec
""".split()
#: Files that may import Ansible.
ABOVE_ANSIBLE = ("_module", "_argspec")


def layer_of(name: str) -> str:
    """Return the layer of a file of module_utils: a folder, or a file outside such folders, without its suffix."""
    parts = Path(name).with_suffix("").parts
    return "/".join(parts[: 2 if parts[0] == "client" else 1])


def layers_below(name: str) -> set[str]:
    """Return the layers from which a file of module_utils imports."""
    found = set()
    package = UTILS / name
    for node in ast.walk(ast.parse(package.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = package.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for alias in node.names:
                file = folder / f"{alias.name}.py" if folder.is_dir() else folder.with_suffix(".py")
                found.add(layer_of(str(file.relative_to(UTILS))))
    return found - {layer_of(name)}


def test_every_file_belongs_to_a_layer() -> None:
    assert {layer_of(name) for name in FILES} == set(LAYERS)


@pytest.mark.parametrize("name", FILES)
def test_files_import_only_from_lower_layers(name: str) -> None:
    own = LAYERS.index(layer_of(name))
    assert [layer for layer in layers_below(name) if LAYERS.index(layer) > own] == []


@pytest.mark.parametrize("name", [name for name in FILES if layer_of(name) not in ABOVE_ANSIBLE])
def test_only_the_top_layers_import_ansible(name: str) -> None:
    assert [each for each in imported(UTILS / name) if each.split(".")[0] == "ansible"] == []


def test_netlink_uses_no_constants_of_conntrack() -> None:
    for name in FILES:
        if layer_of(name) == "client/netlink":
            text = (UTILS / name).read_text(encoding="utf-8")
            assert not re.search(r"\b(?:CTA|IPCTNL|IPS|CT)_", text), name


#: Nearly every file imports these, so the diagram omits them.
NOT_DRAWN = {"client/uapi", "client/errors", "client/input_file"}


def test_diagram_shows_the_imports() -> None:
    """CONTRIBUTING.md shows the layers, with an arrow for each import that does not follow from other arrows."""
    text = (PLUGINS.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    diagram = text.partition("```mermaid")[2].partition("```")[0]
    drawn = {tuple(line.split()[::2]) for line in diagram.splitlines() if "-->" in line}
    arrows = {
        (layer_of(name), below)
        for name in FILES
        for below in layers_below(name)
        if not {layer_of(name), below} & NOT_DRAWN
    }
    assert drawn == {tuple(end.replace("client/", "") for end in arrow) for arrow in _reduced(arrows)}


def _reduced(arrows: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Remove arrows that follow from others."""

    def reaches(start: str, goal: str, without: tuple[str, str]) -> bool:
        return any(end == goal or reaches(end, goal, without) for begin, end in arrows - {without} if begin == start)

    return {arrow for arrow in arrows if not reaches(*arrow, arrow)}


@pytest.mark.parametrize("name", sorted(path.name for path in (PLUGINS / "modules").glob("*.py")))
def test_modules_import_only_files_that_ansible_ships(name: str) -> None:
    allowed = ("ansible.module_utils", f"{COLLECTION}plugins.module_utils")
    assert outside(PLUGINS / "modules" / name, *allowed) == set()


def test_no_class_names_an_attribute_after_its_value() -> None:
    """With `client = client` in the body of a class, pylint does not terminate."""
    found = [
        f"{name}:{statement.lineno}"
        for name in FILES
        for one in ast.walk(ast.parse((UTILS / name).read_text(encoding="utf-8")))
        if isinstance(one, ast.ClassDef)
        for statement in one.body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.value, ast.Name)
        and statement.value.id in {target.id for target in statement.targets if isinstance(target, ast.Name)}
    ]
    assert not found
