# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counts are correct and complete, and memory stays limited for any number of groups."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.attributes import ENTRY
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.events.subscription import Event
from ansible_collections.netops.conntrack.plugins.plugin_utils._event_source.aggregate import Tally
from ansible_collections.netops.conntrack.plugins.plugin_utils._event_source.options import BY, Aggregate
from ansible_collections.netops.conntrack.tests.unit.support.strategies import live_entries

NONE = {"new": 0, "update": 0, "destroy": 0}


def flow(source: str = "10.0.0.1", port: int = 443, **keys: Any) -> dict[str, Any]:
    ends = {"source": source, "destination": "10.0.0.9", "source_port": 1, "destination_port": port}
    return from_document({"protocol": "tcp", "original": ends, **keys})


def test_largest_groups_are_first() -> None:
    tally = Tally(Aggregate(10, ("source", "destination_port")))
    for _number in range(3):
        tally.add(Event("new", flow("10.0.0.2", 80)), 100)
    tally.add(Event("new", flow()), 101)
    tally.add(Event("destroy", flow("10.0.0.2", 80)), 102)
    assert tally.take(109.9) == []
    assert tally.take(110) == [
        {
            "type": "aggregate",
            "window": 10,
            "counts": {**NONE, "new": 3, "destroy": 1},
            "by": {"source": "10.0.0.2", "destination_port": 80},
        },
        {
            "type": "aggregate",
            "window": 10,
            "counts": {**NONE, "new": 1},
            "by": {"source": "10.0.0.1", "destination_port": 443},
        },
    ]


def test_a_window_begins_with_the_first_event() -> None:
    """The source reports nothing about a time without events, and reports at most one window after the first event."""
    tally = Tally(Aggregate(10))
    assert tally.due == math.inf
    assert tally.take(1e9) == []
    tally.add(Event("new", flow()), 50)
    tally.add(Event("new", flow()), 59)
    assert tally.due == 60
    assert [reported["counts"]["new"] for reported in tally.take(60)] == [2]
    assert tally.take(70) == []
    tally.add(Event("update", flow()), 75)
    assert [reported["counts"] for reported in tally.take(85)] == [{**NONE, "update": 1}]


def test_other_groups_are_reported_as_a_sum() -> None:
    tally = Tally(Aggregate(1, ("source",), 2))
    for number in range(1, 6):
        for _time in range(number):
            tally.add(Event("new", flow(f"10.0.0.{number}")), 0)
    reported = tally.take(1)
    assert [each.get("by") for each in reported] == [{"source": "10.0.0.5"}, {"source": "10.0.0.4"}, None]
    assert reported[2] == {"type": "aggregate_rest", "window": 1, "counts": {**NONE, "new": 6}}


def test_frequent_address_is_found_among_many() -> None:
    """The most frequent address is found among more groups than the tally keeps, and the sum stays correct."""
    tally = Tally(Aggregate(1, ("source",), 1), capacity=50)
    for number in range(2000):
        tally.add(Event("new", flow(f"10.1.{number // 250}.{number % 250}")), 0)
        if number % 4 == 0:
            tally.add(Event("new", flow("10.9.9.9")), 0)
    most, rest = tally.take(1)
    assert most["by"] == {"source": "10.9.9.9"}
    assert most["uncertainty"] > 0
    assert 500 - most["uncertainty"] <= most["counts"]["new"] <= 500
    assert most["counts"]["new"] + rest["counts"]["new"] == 2500


@given(
    st.lists(st.tuples(st.sampled_from(sorted(NONE)), live_entries()), min_size=1, max_size=6),
    st.sets(st.sampled_from(sorted(BY))),
)
def test_counts_are_complete_for_any_keys(events: list[tuple[str, Any]], by: set[str]) -> None:
    tally = Tally(Aggregate(1, tuple(sorted(by)), 3))
    for kind, entry in events:
        tally.add(Event(kind, entry), 0)
    reported = tally.take(1)
    found: Counter[str] = Counter()
    for each in reported:
        found.update(each["counts"])
    assert found == Counter(kind for kind, _entry in events) + Counter()
    assert all(set(each.get("by", {})) <= by for each in reported)
    assert [each["type"] for each in reported].count("aggregate_rest") <= 1


def test_every_key_is_an_attribute_of_entries() -> None:
    entry_keys = {row.key for row in ENTRY} | {"family"}
    assert {key for keys in BY.values() for key in keys} <= entry_keys


def test_values_of_absent_attributes() -> None:
    tally = Tally(Aggregate(1, ("zone", "mark", "helper", "state", "protocol", "family")))
    tally.add(Event("new", flow()), 0)
    tally.add(Event("new", flow(tcp={"state": "established"}, zone=7, mark=3, helper="ftp")), 0)
    assert [reported["by"] for reported in tally.take(1)] == [
        {"zone": 0, "mark": 0, "protocol": "tcp", "family": "ipv4"},
        {"zone": 7, "mark": 3, "helper": "ftp", "state": "established", "protocol": "tcp", "family": "ipv4"},
    ]
