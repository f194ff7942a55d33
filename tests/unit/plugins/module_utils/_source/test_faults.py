# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a file with several errors reports each one, without the errors that only follow from another."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._source.faults import ValidationErrors, is_within
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import LONGEST_MESSAGE, InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import parse_match

FLOW = {"source": "10.0.0.1", "destination": "10.0.0.2", "source_port": 1000, "destination_port": 80}


@pytest.mark.parametrize(
    ("document", "paths"),
    [
        ({"protocol": "tcp", "original": FLOW}, []),
        (
            {
                "protocol": "tcp",
                "original": {**FLOW, "source_port": -1},
                "mark": "x",
                "tcp": {"state": "shut", "flags": 1},
            },
            ["tcp.flags", "tcp.state", "original.source_port", "mark"],
        ),
        ({"protocol": "tpc", "original": FLOW, "mark": "x"}, ["mark", "protocol"]),
        ({"original": {"source": "10.0.0"}, "zone": 1 << 20}, ["zone", "original.source", "protocol"]),
        ({"protocol": "tcp", "original": FLOW, "nat": {"source": {"port": 1 << 20}}}, ["nat.source.port"]),
        ({"protocol": "tcp", "original": FLOW, "a": 1, "b": 2}, ["a", "b"]),
        (5, [""]),
    ],
)
def test_all_faults_of_an_entry(document: Any, paths: list[str]) -> None:
    faults = ValidationErrors()
    entry = faults.parse_collecting(from_document, document)
    assert (entry is None) == bool(paths)
    assert sorted(fault.key for fault in faults.found) == sorted(paths)


def test_all_errors_of_a_match_are_reported_and_the_document_is_unchanged() -> None:
    faults = ValidationErrors()
    matches = [{"zone": 1}, {"source": "x", "port": "70000", "zone": 1, "except": {"mark": "y", "zone": 2}}]
    document = {"match": matches}
    assert faults.parse_collecting(lambda whole: parse_match(whole["match"]), document, "scope") is None
    assert [fault.key for fault in faults.found] == [
        "scope.match[1].source",
        "scope.match[1].port",
        "scope.match[1].except.mark",
    ]
    assert "port" in document["match"][1]


def test_all_errors_are_reported_in_one_message() -> None:
    faults = ValidationErrors()
    assert not faults
    faults.add("a.b", "is wrong")
    assert str(faults) == "a.b: is wrong"
    with faults.collect("c"):
        raise InvalidValue("d", "is missing")
    faults.add("a.b", "is wrong in another way")
    assert str(faults) == "2 errors:\n- a.b: is wrong\n- c.d: is missing"
    for number in range(60):
        faults.add(f"e[{number}]", "is wrong")
    assert str(faults).startswith("62 errors:\n- a.b: is wrong\n")
    assert "\n- e[47]: is wrong\n- and 12 more: e[48], e[49], " in str(faults)
    for number in range(60):
        faults.add(f"f[{number}]", "x" * 500)
    assert len(str(faults)) <= LONGEST_MESSAGE
    assert all(fault.key in str(faults) for fault in faults.found)
    for number in range(2000):
        faults.add(f"g[{number}].\n", "is wrong")
    lines = str(faults).split("\n")
    assert len(str(faults)) <= LONGEST_MESSAGE - 200
    assert lines[0] == "2122 errors:"
    assert lines[-1].startswith("- and 2122 more: a.b, c.d, e[0], ")


@pytest.mark.parametrize(
    ("path", "other", "within"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a", True),
        ("a[0].b", "a", True),
        ("a[0].b", "a[0]", True),
        ("a", "", True),
        ("a", "a.b", False),
        ("ab", "a", False),
        ("a[1]", "a[0]", False),
    ],
)
def test_path_is_within_another_path(path: str, other: str, within: bool) -> None:
    assert is_within(path, other) is within
