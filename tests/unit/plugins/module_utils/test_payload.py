# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test which files Ansible ships and a target compiles for each task, because each file adds to the time of a task.

Ansible ships every file that a module may import. A target compiles the imported files in each task. Up to
Python 3.13 it compiles them twice, unless the import follows `_fast_import.compile_once`.

These tests read no clock. Before you add a file to a list, check whether you can import it at the place of use:
each file in a list slows down every such task.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, Iterator

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._operations.flush import METHOD, PLANS
from ansible_collections.netops.conntrack.plugins.module_utils._operations.info import TABLES
from ansible_collections.netops.conntrack.plugins.modules import conntrack_flush, conntrack_info

PLUGINS = Path(__file__).parents[4] / "plugins"
UTILS = PLUGINS / "module_utils"
ABSOLUTE = "ansible_collections.netops.conntrack.plugins.module_utils."

#: Files of the client that a `TableReader` needs.
READER = """
    client/netlink/error client/netlink/message client/codec/attributes client/codec/codec client/entry/entry
    client/entry/labels client/codec/layout client/ctnetlink/messages client/host/namespace
    client/netlink/socket client/table_reader client/uapi client/codec/types client/entry/tuple client/entry/zone
"""
#: Files that a `Table` needs.
TABLE = f"{READER} client/table client/entry/creation"
#: Files to read many entries and to send requests, including those of the options label_map and netns.
MANY = """
    client/table client/entry/creation client/entry/label_file client/input_file
    client/match/alternatives client/bulk/documents client/bulk/columns client/entry/nested client/netlink/pipeline
    client/match/kernel_filter client/dump/deletions client/dump/scan client/entry/document
    client/ctnetlink/requests client/statistics client/entry/nat client/match/expression client/match/message_filter
"""
#: Files that every module needs.
MODULE = "client/errors _fast_import _module"
#: Files for the options `match` and `except`; KEYS are the files that parse the keys of a match.
MATCH = "client/match/match client/match/expression _argspec/match"
KEYS = "client/host/sysctl client/match/attribute_keys client/match/keys client/match/tuple_keys"
#: Files that parse and show a document.
SHAPE = "client/entry/nested client/entry/document client/entry/nat"
#: Files that reconcile one entry.
RECONCILE = "_reconcile/reconciler _reconcile/entry _reconcile/plan client/entry/diff"
EXPECTATION = """
    client/entry/nested client/expectation/attributes client/expectation/document client/expectation/expectation
"""
#: Files that find stale flows.
STALE = """
    client/reevaluate/environment client/reevaluate/evaluator client/reevaluate/expressions client/reevaluate/flow
    client/reevaluate/judgement client/reevaluate/network
    client/reevaluate/numbers client/reevaluate/packets client/reevaluate/replay client/reevaluate/ruleset
    client/reevaluate/preview client/reevaluate/scratch client/reevaluate/trace client/netlink/transaction
    client/host/ssh_session _operations/flush _operations/resource _operations/stale
"""
GROUPS = "client/dump/groups client/dump/group_keys _operations/groups"
#: Files of tasks in several namespaces.
NAMESPACES = "client/host/namespaces _operations/namespaces _operations/resource"
#: Files that end sockets, and files that find the owners of flows.
SOCKETS = "client/host/sockets _operations/end_sockets"
OWNERS = "client/host/sockets client/host/owners client/host/ssh_session _operations/owner"

#: By module: the files that each task compiles, and the other files that Ansible ships for some tasks.
FILES = {
    "conntrack_config": (
        (
            TABLE,
            MODULE,
            MATCH,
            SHAPE,
            RECONCILE,
            "client/dump/scan client/host/ssh_session client/host/sysctl _reconcile/config",
            "_reconcile/desired_config _reconcile/entries _source/faults _operations/flush",
            "_operations/resource",
            "_argspec/config _argspec/entry _argspec/expectation _argspec/purge _argspec/settings",
            "_argspec/timeout_policy _argspec/tuple _reconcile/purge",
        ),
        (
            MANY,
            KEYS,
            EXPECTATION,
            "_atomic_file _signals client/timeout_policy _reconcile/expectation _reconcile/sysctl_files",
            "_reconcile/settings _source/file _source/yaml _reconcile/timeout_policy",
        ),
    ),
    "conntrack_counters": ((TABLE, MODULE, MATCH, "client/host/sysctl _operations/counters"), (MANY, KEYS)),
    "conntrack_entries": (
        (
            TABLE,
            MODULE,
            MATCH,
            SHAPE,
            RECONCILE,
            "client/dump/scan client/host/ssh_session _reconcile/entries _operations/flush _operations/resource",
            "_argspec/purge _reconcile/purge _source/file client/input_file",
        ),
        (MANY, KEYS, EXPECTATION, "_source/yaml _signals"),
    ),
    "conntrack_entry": (
        (TABLE, MODULE, SHAPE, RECONCILE, "_argspec/entry _argspec/tuple"),
        (MANY, "_signals"),
    ),
    "conntrack_expectation": (
        (
            TABLE,
            MODULE,
            SHAPE,
            EXPECTATION,
            "client/entry/diff _reconcile/plan",
            "_reconcile/reconciler _reconcile/expectation _argspec/expectation _argspec/tuple",
        ),
        (MANY, "client/match/match client/match/attribute_keys client/match/keys client/match/tuple_keys _signals"),
    ),
    "conntrack_facts": (
        (READER, MODULE, MATCH, "_operations/facts"),
        (
            MANY,
            KEYS,
            EXPECTATION,
            STALE,
            NAMESPACES,
            "client/dump/heavy_hitters client/dump/summary client/dump/top client/host/sockets client/probe",
            "client/timeout_policy",
            GROUPS,
            "client/reevaluate/snat_ranges _operations/snat_ports",
        ),
    ),
    "conntrack_flush": (
        (READER, MODULE, MATCH, "client/dump/scan client/host/ssh_session _operations/flush _operations/resource"),
        (MANY, KEYS, EXPECTATION, STALE, NAMESPACES, SOCKETS),
    ),
    "conntrack_info": (
        (READER, MODULE, MATCH, "_operations/info _operations/resource"),
        (
            MANY,
            KEYS,
            EXPECTATION,
            STALE,
            NAMESPACES,
            OWNERS,
            GROUPS,
            "client/dump/heavy_hitters client/dump/rates _operations/traffic",
        ),
    ),
    "conntrack_settings": (
        (MODULE, "client/host/sysctl client/uapi client/codec/types _argspec/settings _reconcile/settings"),
        (TABLE, MANY, "_atomic_file _reconcile/sysctl_files"),
    ),
    "conntrack_snapshot": (
        (
            TABLE,
            MODULE,
            MATCH,
            SHAPE,
            EXPECTATION,
            RECONCILE,
            "client/bulk/documents client/bulk/columns client/bulk/records client/dump/scan",
            "client/host/ssh_session _reconcile/entries _snapshot/hash_set _operations/flush _operations/resource",
            "_atomic_file _argspec/purge _reconcile/purge _snapshot/restore client/input_file",
            "_signals _snapshot/report _snapshot/save _snapshot/file",
        ),
        (MANY, KEYS, "_reconcile/expectation"),
    ),
    "conntrack_timeout_policy": (
        (
            TABLE,
            MODULE,
            "client/timeout_policy _argspec/timeout_policy _reconcile/reconciler _reconcile/timeout_policy",
        ),
        (MANY, "_signals"),
    ),
    "conntrack_update": (
        (TABLE, MODULE, MATCH, SHAPE, "client/entry/diff _argspec/tuple _argspec/update _operations/update"),
        (MANY, KEYS),
    ),
    "conntrack_wait": (
        (
            TABLE,
            MODULE,
            MATCH,
            "client/match/bpf client/dump/sample client/events/subscription client/dump/scan client/host/sysctl",
            "_argspec/wait _operations/wait",
        ),
        (MANY, KEYS, EXPECTATION),
    ),
}

#: Functions that contain imports and that a task always calls, in addition to its own functions.
CALLED = ("run", "match_of", "goal_of", "config_of", "read_declaration")
#: The end of the names of functions that only a task in several namespaces calls.
IN_EACH = "_each"

#: The imports to collect from a file: at module level; in functions that always run; everywhere.
AT_ONCE, ALWAYS, EVERYWHERE = range(3)


def imports(file: Path, where: int) -> Iterator[Path]:
    """Yield the collection's files that `file` imports at module level, in functions that always run, or everywhere."""
    todo: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.ImportFrom):
            yield from named(file, node)
        elif where == EVERYWHERE or isinstance(node, (ast.Module, ast.Try, ast.With)) or _is_called(file, node, where):
            todo.extend(ast.iter_child_nodes(node))


def _is_called(file: Path, node: ast.AST, where: int) -> bool:
    own = file.parent.name == "modules"
    if where != ALWAYS or not isinstance(node, ast.FunctionDef) or node.name.endswith(IN_EACH):
        return False
    return own or node.name in CALLED


def named(file: Path, node: ast.ImportFrom) -> Iterator[Path]:
    """Yield the files of one import statement, which names modules or their content."""
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
    """Return the files that `file` imports directly and indirectly: `{"module", "client/table", …}`."""
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
    """Except the modules that are only documented, because their action plugin does the work on the controller."""
    sent = [path.stem for path in (PLUGINS / "modules").glob("*.py") if "def main(" in path.read_text()]
    assert sorted(FILES) == sorted(sent)


@pytest.mark.parametrize("name", sorted(FILES))
def test_files_compiled_in_every_task(name: str) -> None:
    at_once, _besides = FILES[name]
    assert sorted(reached(PLUGINS / "modules" / f"{name}.py", ALWAYS)) == sorted(listed(*at_once))


@pytest.mark.parametrize("name", sorted(FILES))
def test_files_compiled_twice(name: str) -> None:
    """Only the files of the options, and no other file of the collection."""
    at_once, _besides = FILES[name]
    options = {file for file in listed(*at_once) if file.startswith("_argspec/")}
    assert reached(PLUGINS / "modules" / f"{name}.py", AT_ONCE) == {"_fast_import", "_module", *options}


@pytest.mark.parametrize("name", sorted(FILES))
def test_files_shipped_by_ansible(name: str) -> None:
    at_once, besides = FILES[name]
    shipped = reached(PLUGINS / "modules" / f"{name}.py", EVERYWHERE)
    assert sorted(shipped) == sorted(listed(*at_once, *besides))


@pytest.mark.parametrize("name", ["conntrack_flush", "conntrack_info"])
def test_tasks_for_entries_do_not_compile_expectations(name: str) -> None:
    module = PLUGINS / "modules" / f"{name}.py"
    assert "client/expectation/expectation" in reached(module, EVERYWHERE) - reached(module, ALWAYS)


# constants that the modules repeat to avoid the compilation of another file


def test_choices_of_table_are_the_existing_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, tables in ((conntrack_flush, PLANS), (conntrack_info, TABLES)):
        specs: list[Any] = []
        monkeypatch.setattr(
            module, "AnsibleModule", lambda argument_spec, specs=specs, **_more: specs.append(argument_spec)
        )
        monkeypatch.setattr(module, "run", lambda *_arguments, **_options: None)
        module.main()
        assert specs[0]["table"]["choices"] == list(tables)


def test_failed_flush_has_the_method_of_the_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[Any] = []
    monkeypatch.setattr(conntrack_flush, "AnsibleModule", lambda **_options: None)
    monkeypatch.setattr(
        conntrack_flush, "run", lambda _module, _task, nothing_done, **_options: ended.append(nothing_done)
    )
    conntrack_flush.main()
    assert ended[0]["method"] == METHOD
