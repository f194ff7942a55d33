# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task costs before it begins: Ansible ships every file that a module may import, and a target
compiles those that it does import anew in each task, from Python 3.10 on twice.

No clock is read here. A file that is added to a list makes every such task of every user slower: see whether
an import where it is needed will do.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Iterator

import pytest

PLUGINS = Path(__file__).parents[4] / "plugins"
UTILS = PLUGINS / "module_utils"
ABSOLUTE = "ansible_collections.netops.conntrack.plugins.module_utils."

#: What comes with a `Table`, in the client.
TABLE = """
    client/ahead client/attributes client/codec client/columns client/entry client/errors client/layout client/messages
    client/namespace client/narrowing client/netlink client/removal client/scan client/statistics client/table
    client/template client/term client/uapi client/values client/wire
"""
#: What every module has besides.
MODULE = "failure module"
#: What takes `match` and `except`, and what reads the keys of a match if there is one.
MATCH = "client/labels client/match options/labels options/match"
KEYS = "client/settings client/vocabulary"
#: What reads and shows a document.
SHAPE = "client/document client/labels client/shape"
EXPECTATION = "client/difference client/document client/expectation client/shape"

#: By module, what is compiled in each task, and what is shipped besides for those tasks that need it.
FILES = {
    "conntrack_counters": ((TABLE, MODULE, MATCH, SHAPE, "client/settings counters"), (KEYS,)),
    "conntrack_entry": (
        (TABLE, MODULE, SHAPE, "client/difference options/entry options/labels options/tuples reconcile"),
        (),
    ),
    "conntrack_expectation": (
        (TABLE, MODULE, SHAPE, EXPECTATION, "expectation options/expectation options/tuples reconcile"),
        ("client/match client/vocabulary",),
    ),
    "conntrack_facts": (
        (TABLE, MODULE, MATCH, "client/document client/frequent client/settings client/summary client/top facts"),
        (KEYS, EXPECTATION, "client/capabilities client/timeout_policy"),
    ),
    "conntrack_flush": (
        (TABLE, MODULE, MATCH, "client/document client/session flush kinds"),
        (KEYS, EXPECTATION),
    ),
    "conntrack_info": ((TABLE, MODULE, MATCH, "info kinds"), (KEYS, EXPECTATION)),
    "conntrack_settings": (
        (MODULE, "client/errors client/namespace client/settings client/uapi client/values options/settings settings"),
        (TABLE, "client/document persistence"),
    ),
    "conntrack_timeout_policy": (
        (TABLE, MODULE, "client/timeout_policy options/timeout_policy timeout_policy"),
        ("client/document",),
    ),
}


def imports(file: Path, everywhere: bool) -> Iterator[Path]:
    """The files of ours that one imports: in a function too and for types alone, or only at once."""
    todo: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.ImportFrom):
            yield from named(file, node)
        elif everywhere or isinstance(node, (ast.Module, ast.Try, ast.With)):
            todo.extend(ast.iter_child_nodes(node))


def named(file: Path, node: ast.ImportFrom) -> Iterator[Path]:
    """The files that one statement names, as modules or by what is in them."""
    module = node.module or ""
    if node.level:
        folder = file.parents[node.level - 1].joinpath(*module.split(".")) if module else file.parents[node.level - 1]
    elif module.startswith(ABSOLUTE):
        folder = UTILS.joinpath(*module[len(ABSOLUTE) :].split("."))
    else:
        return
    for path in (folder, *(folder / alias.name for alias in node.names)):
        if path.with_suffix(".py").is_file():
            yield path.with_suffix(".py")


def reached(file: Path, everywhere: bool) -> set[str]:
    """What `file` imports, and what these do, and so on: `{"module", "client/table", …}`."""
    found: set[Path] = set()
    todo = [file]
    while todo:
        new = set(imports(todo.pop(), everywhere)) - found
        found |= new
        todo.extend(new)
    return {str(path.relative_to(UTILS).with_suffix("")) for path in found}


def listed(*lists: str) -> set[str]:
    return {name for names in lists for name in names.split()}


def test_every_module_is_here() -> None:
    assert sorted(FILES) == sorted(path.stem for path in (PLUGINS / "modules").glob("*.py"))


@pytest.mark.parametrize("name", sorted(FILES))
def test_what_is_compiled_in_every_task(name: str) -> None:
    at_once, _besides = FILES[name]
    assert sorted(reached(PLUGINS / "modules" / f"{name}.py", everywhere=False)) == sorted(listed(*at_once))


@pytest.mark.parametrize("name", sorted(FILES))
def test_what_is_shipped(name: str) -> None:
    at_once, besides = FILES[name]
    shipped = reached(PLUGINS / "modules" / f"{name}.py", everywhere=True)
    assert sorted(shipped) == sorted(listed(*at_once, *besides))


@pytest.mark.parametrize("name", ["conntrack_flush", "conntrack_info"])
def test_who_asks_for_entries_does_not_compile_expectations(name: str) -> None:
    module = PLUGINS / "modules" / f"{name}.py"
    assert "client/expectation" in reached(module, everywhere=True) - reached(module, everywhere=False)
