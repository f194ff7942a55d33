# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task costs before it begins: Ansible ships every file that a module may import, and a target
compiles those that it does import anew in each task: up to Python 3.13 twice, unless it is after
`importing.compile_once`.

No clock is read here. A file that is added to a list makes every such task of every user slower: see whether
an import where it is needed will do.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, Iterator

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.flush import METHOD, TARGETS
from ansible_collections.netops.conntrack.plugins.module_utils.info import TABLES
from ansible_collections.netops.conntrack.plugins.modules import conntrack_flush, conntrack_info

PLUGINS = Path(__file__).parents[4] / "plugins"
UTILS = PLUGINS / "module_utils"
ABSOLUTE = "ansible_collections.netops.conntrack.plugins.module_utils."

#: What comes with a `Table`, in the client.
TABLE = """
    client/ahead client/attributes client/codec client/entry client/labels client/layout client/messages
    client/namespace client/netlink client/statistics client/table client/uapi client/values
"""
#: What it takes to read many entries, and to send requests.
MANY = """
    client/bulk client/columns client/document client/narrowing client/removal client/scan client/shape
    client/template client/term client/wire
"""
#: What every module has besides.
MODULE = "client/errors failure importing module"
#: What takes `match` and `except`, and what reads the keys of a match if there is one.
MATCH = "client/match client/term options/labels options/match"
KEYS = "client/settings client/vocabulary"
#: What reads and shows a document.
SHAPE = "client/document client/shape"
#: What makes one thing as it is declared.
RECONCILE = "apply client/difference plan"
EXPECTATION = "client/difference client/document client/expectation client/shape"

#: By module, what is compiled in each task, and what is shipped besides for those tasks that need it.
FILES = {
    "conntrack_config": (
        (
            TABLE,
            MODULE,
            MATCH,
            SHAPE,
            RECONCILE,
            "client/scan client/session client/settings config declaration entries faults flush foresight kinds",
            "options/config options/entry options/expectation options/scope options/settings",
            "options/timeout_policy options/tuples purge reconcile",
        ),
        (
            MANY,
            KEYS,
            EXPECTATION,
            "client/timeout_policy expectation persistence settings source source_yaml timeout_policy",
        ),
    ),
    "conntrack_counters": ((TABLE, MODULE, MATCH, "client/settings counters"), (MANY, KEYS)),
    "conntrack_entries": (
        (
            TABLE,
            MODULE,
            MATCH,
            SHAPE,
            RECONCILE,
            "client/scan client/session entries flush kinds options/scope purge reconcile source",
        ),
        (MANY, KEYS, EXPECTATION, "source_yaml"),
    ),
    "conntrack_entry": (
        (TABLE, MODULE, SHAPE, RECONCILE, "options/entry options/labels options/tuples reconcile"),
        (MANY,),
    ),
    "conntrack_expectation": (
        (TABLE, MODULE, EXPECTATION, RECONCILE, "expectation options/expectation options/tuples"),
        (MANY, "client/match client/vocabulary"),
    ),
    "conntrack_facts": (
        (TABLE, MODULE, MATCH, "facts"),
        (
            MANY,
            KEYS,
            EXPECTATION,
            "client/capabilities client/frequent client/summary client/timeout_policy client/top",
        ),
    ),
    "conntrack_flush": (
        (TABLE, MODULE, MATCH, "client/scan client/session flush kinds"),
        (MANY, KEYS, EXPECTATION),
    ),
    "conntrack_info": ((TABLE, MODULE, MATCH, "info kinds"), (MANY, KEYS, EXPECTATION)),
    "conntrack_settings": (
        (MODULE, "client/settings client/uapi client/values options/settings settings"),
        (TABLE, MANY, "persistence"),
    ),
    "conntrack_snapshot": (
        (
            TABLE,
            MODULE,
            MATCH,
            EXPECTATION,
            RECONCILE,
            "client/bulk client/columns client/record client/scan client/session entries fingerprints flush kinds",
            "coming options/scope purge reconcile restore restored signals snapshot snapshot_file",
        ),
        (MANY, KEYS, "expectation"),
    ),
    "conntrack_timeout_policy": (
        (TABLE, MODULE, "client/timeout_policy options/timeout_policy timeout_policy"),
        (MANY,),
    ),
    "conntrack_update": (
        (TABLE, MODULE, MATCH, SHAPE, "client/difference options/tuples options/update update"),
        (MANY, KEYS),
    ),
    "conntrack_wait": (
        (
            TABLE,
            MODULE,
            MATCH,
            "client/bpf client/census client/events client/scan client/settings",
            "options/wait wait",
        ),
        (MANY, KEYS, EXPECTATION),
    ),
}

#: The functions that import and that a task calls always, besides its own.
CALLED = ("run", "labels_of", "match_of", "goal_of", "config_of", "read_declaration")

#: What of a file is looked at.
AT_ONCE, ALWAYS, EVERYWHERE = range(3)


def imports(file: Path, where: int) -> Iterator[Path]:
    """The files of ours that one imports: at once; or also in what a task always calls; or also for types alone."""
    todo: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.ImportFrom):
            yield from named(file, node)
        elif where == EVERYWHERE or isinstance(node, (ast.Module, ast.Try, ast.With)) or _is_called(file, node, where):
            todo.extend(ast.iter_child_nodes(node))


def _is_called(file: Path, node: ast.AST, where: int) -> bool:
    own = file.parent.name == "modules"
    return where == ALWAYS and isinstance(node, ast.FunctionDef) and (own or node.name in CALLED)


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


def reached(file: Path, where: int) -> set[str]:
    """What `file` imports, and what these do, and so on: `{"module", "client/table", …}`."""
    found: set[Path] = set()
    todo = [file]
    while todo:
        new = set(imports(todo.pop(), where)) - found
        found |= new
        todo.extend(new)
    return {str(path.relative_to(UTILS).with_suffix("")) for path in found}


def listed(*lists: str) -> set[str]:
    return {name for names in lists for name in names.split()}


def test_every_module_is_here() -> None:
    """But for those that are only documented, since their action does everything on the controller."""
    sent = [path.stem for path in (PLUGINS / "modules").glob("*.py") if "def main(" in path.read_text()]
    assert sorted(FILES) == sorted(sent)


@pytest.mark.parametrize("name", sorted(FILES))
def test_what_is_compiled_in_every_task(name: str) -> None:
    at_once, _besides = FILES[name]
    assert sorted(reached(PLUGINS / "modules" / f"{name}.py", ALWAYS)) == sorted(listed(*at_once))


@pytest.mark.parametrize("name", sorted(FILES))
def test_what_is_compiled_twice(name: str) -> None:
    """What the options need, and no more of the collection."""
    at_once, _besides = FILES[name]
    options = {file for file in listed(*at_once) if file.startswith("options/")}
    assert reached(PLUGINS / "modules" / f"{name}.py", AT_ONCE) == {"importing", "module", *options}


@pytest.mark.parametrize("name", sorted(FILES))
def test_what_is_shipped(name: str) -> None:
    at_once, besides = FILES[name]
    shipped = reached(PLUGINS / "modules" / f"{name}.py", EVERYWHERE)
    assert sorted(shipped) == sorted(listed(*at_once, *besides))


@pytest.mark.parametrize("name", ["conntrack_flush", "conntrack_info"])
def test_who_asks_for_entries_does_not_compile_expectations(name: str) -> None:
    module = PLUGINS / "modules" / f"{name}.py"
    assert "client/expectation" in reached(module, EVERYWHERE) - reached(module, ALWAYS)


# what the modules say themselves, so as not to compile it twice


def test_the_tables_to_choose_from_are_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, tables in ((conntrack_flush, TARGETS), (conntrack_info, TABLES)):
        specs: list[Any] = []
        monkeypatch.setattr(
            module, "AnsibleModule", lambda argument_spec, specs=specs, **_more: specs.append(argument_spec)
        )
        monkeypatch.setattr(module, "run", lambda *_arguments: None)
        module.main()
        assert specs[0]["table"]["choices"] == list(tables)


def test_the_method_of_a_flush_that_failed_is_the_one_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[Any] = []
    monkeypatch.setattr(conntrack_flush, "AnsibleModule", lambda **_options: None)
    monkeypatch.setattr(conntrack_flush, "run", lambda _module, _task, nothing_done: ended.append(nothing_done))
    conntrack_flush.main()
    assert ended[0]["method"] == METHOD
