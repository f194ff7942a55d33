# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the modules with all options that the integration tests list in their vars.

A call takes a third of a second in a play, and a few milliseconds here. The plays run only the cases with the key
`play: too`, and the cases whose result depends on the controller.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from ansible_collections.netops.conntrack.plugins import module_utils
from tests.lab import Namespace
from tests.modules import run

Document = dict[str, Any]

# Imported before the test forks, as in tests/modules.py
for module in pkgutil.walk_packages(module_utils.__path__, f"{module_utils.__name__}."):
    importlib.import_module(module.name)

TARGETS = Path(__file__).parents[1] / "integration/targets"
#: The filters of the plays
FILTERS = runpy.run_path(str(TARGETS / "setup_netns/filter_plugins/results.py"))
numbers, steady, surprises = FILTERS["numbers"], FILTERS["steady"], FILTERS["surprises"]

JINJA = jinja2.Environment()
JINJA.filters["combine"] = lambda one, other: {**one, **other}

#: A part of the result when a module rejects its options; the entries of `conntrack_entry` vary
NOTHING: dict[str, Document] = {
    "conntrack_config": {"counts.failed": 0, "settings.outcome": "not reached", "entries.failed_entries": []},
    "conntrack_entries": {"changes": [], "counts.created": 0, "failed_entries": []},
    "conntrack_entry": {"operation": "unchanged", "changes": []},
    "conntrack_facts": {"ansible_facts": {}},
    "conntrack_flush": {
        "flushed": 0,
        "kept": 0,
        "gone": 0,
        "total": 0,
        "will_return": 0,
        "entries": [],
        "method": "delete",
    },
    "conntrack_info": {"entries": [], "matched": 0, "truncated": False},
    "conntrack_settings": {"changes": []},
    "conntrack_snapshot": {"snapshot": {}, "checksum": "", "counts.created": 0, "failed_entries": []},
    "conntrack_timeout_policy": {"operation": "unchanged", "policy": {}, "before": {}, "changes": []},
    "conntrack_update": {
        "matched": 0,
        "updated": 0,
        "unchanged": 0,
        "gone": 0,
        "failed_entries": [],
        "changes": [],
    },
    "conntrack_wait": {"remaining": 0, "reached": False, "timed_out": False, "entries": []},
}
#: Options to which a case is added, or which it overrides
BASE: dict[str, Document] = {
    "conntrack_entry": {
        "protocol": "udp",
        "original": {"source": "10.1.0.2", "destination": "192.0.2.53", "source_port": 1700, "destination_port": 53},
        "mark": 1,
    },
    "conntrack_snapshot": {"path": "{{ output_dir }}/new", "state": "saved"},
}
#: Messages of AnsibleModule, whose failures do not have the keys of the module's results
OF_ANSIBLE = re.compile("missing required arguments|one of the following|mutually exclusive|Unsupported|argument '")


def variables(target: str) -> Document:
    text = (TARGETS / target / "vars/main.yml").read_text()
    document: Document = yaml.safe_load(text)
    return document


def rendered(value: Any, names: Document) -> Any:
    """Render the templates in a value as Ansible does: a template that is one expression can return any type."""
    if isinstance(value, dict):
        return {key: rendered(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [rendered(inner, names) for inner in value]
    if isinstance(value, str) and (expression := re.fullmatch(r"\{\{ ([^{}]+) \}\}", value)):
        return rendered(JINJA.compile_expression(expression[1], undefined_to_none=False)(**names), names)
    return JINJA.from_string(value).render(**names) if isinstance(value, str) else value


def combined(one: Document, other: Document) -> Document:
    """Combine dictionaries recursively."""
    inner = {
        key: combined(one[key], value) if isinstance(value, dict) and isinstance(one.get(key), dict) else value
        for key, value in other.items()
    }
    return {**one, **inner}


def cases(target: str, name: str) -> list[Any]:
    """Return a list in the vars of a target, without the cases that only a play can test."""
    listed = variables(target)[name]
    return [
        pytest.param(target, case, id=f"{target.removeprefix('conntrack_')}-{number}")
        for number, case in enumerate(listed)
        if case.get("play") != "only"
    ]


def at(result: Document, path: str) -> Any:
    found: Any = result
    for key in path.split("."):
        found = found[key]
    return found


def identities(namespace: Namespace) -> list[tuple[int, int]]:
    """Return the ID and the mark of each entry."""
    return [(flow["id"], flow["mark"]) for flow in namespace.table()]


@pytest.fixture(scope="module")
def occupied(root: None) -> Iterator[Namespace]:
    """Return a namespace with one entry, which a module that rejects its options must not change."""
    with Namespace() as namespace:
        namespace.conntrack(*"-I -p udp -s 10.1.0.2 -d 192.0.2.53 --sport 1700 --dport 53 -t 600".split())
        before = identities(namespace)
        yield namespace
        assert identities(namespace) == before


@pytest.fixture(scope="module")
def filled(root: None, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """Return a namespace with the table of the target that the parameter names."""
    with Namespace() as namespace:
        namespace.firewall.use_labels()
        made = run(namespace, "conntrack_entries", entries=variables(request.param)["table"])
        assert made["counts"]["created"] == len(variables(request.param)["table"])
        yield namespace


@pytest.mark.parametrize(("module", "case"), [case for module in NOTHING for case in cases(module, "cannot_be")])
def test_invalid_options_are_refused(occupied: Namespace, tmp_path: Path, module: str, case: Document) -> None:
    (tmp_path / "other").write_text("flows\n")
    names = {**variables(module), "output_dir": str(tmp_path)}
    options = (
        combined(BASE.get(module, {}), case["but"]) if "but" in case else {**BASE.get(module, {}), **case["options"]}
    )
    arguments = rendered(options, names)
    of_the_host = "persist" in arguments and "persist_in" not in arguments  # in check mode, to keep /etc as it is
    result = run(occupied, module, of_the_host, **arguments)
    assert result["failed"]
    assert re.match(f"(?:{case['says']})", result["msg"]), result["msg"]
    assert not re.search(r"\n(?!- |Nothing was changed[.]$)", result["msg"])
    assert not result.get("changed")
    assert "exception" not in result
    if not OF_ANSIBLE.search(result["msg"]):
        assert {path: at(result, path) for path in NOTHING[module]} == NOTHING[module]
    assert [file.name for file in tmp_path.iterdir()] == ["other"]


@pytest.mark.parametrize("filled", ["conntrack_flush"], indirect=True)
@pytest.mark.parametrize(("module", "case"), cases("conntrack_flush", "finds"))
def test_flush_finds_matching_entries(filled: Namespace, module: str, case: Document) -> None:
    if "https" in str(case["match"]) and not Path("/etc/services").exists():
        pytest.skip("/etc/services is absent (apt-get install netbase)")
    result = run(filled, module, check_mode=True, match=case["match"])
    assert sorted(numbers(result["entries"])) == case["finds"]
    assert result["flushed"] == len(case["finds"])
    assert result["changed"] == bool(case["finds"])
    assert (result["method"], result["gone"], result["kept"]) == ("delete", 0, 0)
    assert filled.count() == len(variables(module)["table"])


@pytest.mark.parametrize("filled", ["conntrack_info"], indirect=True)
@pytest.mark.parametrize(("module", "case"), cases("conntrack_info", "orders"))
def test_info_returns_the_requested_order(filled: Namespace, module: str, case: Document) -> None:
    result = run(filled, module, **case["options"])
    assert numbers(result["entries"]) == case["order"]
    assert result["matched"] == case.get("matched", len(case["order"]))
    assert result["truncated"] == (result["matched"] > len(case["order"]))


@pytest.mark.parametrize("filled", ["conntrack_facts"], indirect=True)
@pytest.mark.parametrize(("module", "case"), cases("conntrack_facts", "parts"))
def test_facts_contain_the_requested_parts(filled: Namespace, module: str, case: Document) -> None:
    result = run(filled, module, **case["options"])
    assert sorted(result["ansible_facts"]["conntrack"]) == case["gives"]


@pytest.mark.parametrize("number", range(len(variables("conntrack_entry")["declared"])))
def test_entry_is_created_as_predicted_and_again_from_its_result(namespace: Namespace, number: int) -> None:
    namespace.firewall.use_labels()
    declared = variables("conntrack_entry")["declared"][number]
    predicted = run(namespace, "conntrack_entry", check_mode=True, **declared)
    assert namespace.count() == 0
    done = run(namespace, "conntrack_entry", **declared)
    again = run(namespace, "conntrack_entry", **declared)
    assert [result["operation"] for result in (predicted, done, again)] == ["created", "created", "unchanged"]
    assert [result["changed"] for result in (predicted, done, again)] == [True, True, False]
    assert done["before"] == {}
    assert [result["changes"] for result in (predicted, done, again)] == [[], [], []]
    assert steady([again["before"]]) == steady([again["entry"]]) == steady([done["entry"]])
    assert surprises(done, predicted) == []

    namespace.conntrack("-F")
    restored = run(namespace, "conntrack_entry", **done["entry"])
    assert (restored["operation"], steady([restored["entry"]])) == ("created", steady([done["entry"]]))
    assert run(namespace, "conntrack_entry", **done["entry"])["operation"] == "unchanged"
