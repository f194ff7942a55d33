# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a bulk of declarations gives the same results and errors as each declaration alone."""

from __future__ import annotations

import copy
from typing import Any, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client.bulk import columns
from ansible_collections.netops.conntrack.plugins.module_utils.client.bulk import documents as bulk
from ansible_collections.netops.conntrack.plugins.module_utils.client.bulk.columns import ColumnTransform
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec import types
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document, to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.tests.profiles import examples, spread
from ansible_collections.netops.conntrack.tests.samples import SAMPLES
from ansible_collections.netops.conntrack.tests.unit.plugins.module_utils.client.entry.test_document import MALFORMED
from ansible_collections.netops.conntrack.tests.unit.support.strategies import documents, live_entries

LABELS = LabelMap({"v": 1, "vv": 2, "12": 4, "video": 3})
DECLARED = bulk.completion_transform(LABELS)
PARSED = bulk.parse_transform(LABELS)

ENDS = {"source": "10.0.0.1", "destination": "10.0.0.2"}
TCP = {"protocol": "tcp", "original": {**ENDS, "source_port": 5, "destination_port": 80}}
PLAIN = {"reply": {"source": "10.0.0.2", "destination": "10.0.0.1", "source_port": 80, "destination_port": 5}}
TRANSLATED = {
    **TCP,
    "nat": {"source": {"address": "203.0.113.7", "port": 1}},
    "reply": {"source": "10.0.0.2", "destination": "203.0.113.7", "source_port": 80, "destination_port": 1},
}

ADDRESSES = [
    "10.0.0.1",
    "10.9.9.9",
    " 10.0.0.1",
    "10.0.0.1-10.0.0.9",
    "203.0.113.7",
    "010.0.0.1",
    "2001:db8::1",
    "::ffff:10.0.0.1",
]
NUMBERS = [0, 1, 3, 8, 10, 13, 128, 255, 256, 0xFFFF, 0x10000, 0xFFFFFFFF, 1 << 32, 1 << 64, -1]
TEXTS = [
    "",
    "1",
    "12",
    "0x10",
    "1/0xf",
    "80-90",
    "tcp",
    "TCP",
    "udp",
    "icmp",
    "ipv4",
    "ipv6",
    "close",
    "ftp",
    "v",
    "vv",
]
LISTS: list[Any] = [
    [], [1], [True], [1.0], ["1"], ["assured"], ["assured", "confirmed"], ["src_nat"], ["dst_nat"], [[]],
    ["be_liberal"], ["v"], ["vv"], [5, "video"], [128],
]  # fmt: skip
OTHERS: list[Any] = [None, True, False, 1.0, {}, {"port": 1}, ("assured",), b"1"]
DIRECTIONS = ("original", "reply")
VALUES = (*ADDRESSES, *NUMBERS, *TEXTS, *LISTS, *OTHERS)


def leaves(document: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in document.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))


@st.composite
def similar(draw: Any) -> list[Any]:
    """Draw declarations of one shape, some with other values, and enough of them to form a group."""
    document = draw(
        documents() | live_entries().map(to_document) | st.sampled_from([TRANSLATED, {**TRANSLATED, **PLAIN}])
    )
    alike = [copy.deepcopy(document) for _unused in range(draw(st.integers(columns._FEW, 8)))]
    paths = st.sampled_from(list(leaves(document)))
    for path in draw(st.lists(paths, max_size=2)):
        for one in draw(st.lists(st.sampled_from(alike), max_size=3)) or alike:
            where: Any = one
            for step in path[:-1]:
                where = where.get(step) if isinstance(where, dict) else None
            if isinstance(where, dict):
                where[path[-1]] = copy.deepcopy(draw(st.sampled_from(VALUES)))  # a later path can lead into this value
    return alike


def result(work: Any, thing: Any) -> Any:
    """Return the result, or the error message."""
    try:
        return work(thing)
    except InvalidValue as fault:
        return str(fault)


def one_by_one(work: ColumnTransform, things: list[Any]) -> tuple[list[Any], str]:
    """Return the expected output of `each`: the results before the first error, and the error message."""
    done = []
    for thing in things:
        outcome = result(work.scalar, thing)
        if isinstance(outcome, str):
            return done, outcome
        done.append(outcome)
    return done, ""


def all_at_once(work: ColumnTransform, things: list[Any]) -> tuple[list[Any], str]:
    done = []
    try:
        done.extend(work.each(things))  # keeps the results before an exception
    except InvalidValue as fault:
        return done, str(fault)
    return done, ""


def check(work: ColumnTransform, things: list[Any]) -> int:
    """Check each group against the results of single declarations, and return the number of grouped declarations."""
    together = 0
    for places, of in work.groups(things):
        for place, row in zip(places, zip(*of.values())):
            entry = dict(zip(of, row))
            expected = result(work.scalar, things[place])
            assert entry == expected
            assert {key: type(value) for key, value in entry.items()} == {k: type(v) for k, v in expected.items()}
            together += 1
    assert all_at_once(work, things) == one_by_one(work, things)
    return together


@given(similar())
@examples(150)
def test_grouped_declarations_have_the_results_of_single_ones(things: Any) -> None:
    before = copy.deepcopy(things)
    check(PARSED, things)
    check(DECLARED, things)
    assert things == before, "a declaration is read, not changed"


ECHO = {"icmp_type": 8, "icmp_code": 0, "icmp_id": 1}
BASES: dict[str, dict[str, Any]] = {
    "translated": TRANSLATED,
    "icmp": {"protocol": "icmp", "original": {**ENDS, **ECHO}, "family": "ipv4", "timeout": 1},
    "zones": {**TCP, "zone": 0, "original": {**TCP["original"], "zone": 1}},
    "expected": {**TCP, "master": {"protocol": "tcp", **TCP["original"]}, "helper": "ftp", "status": ["expected"]},
    "tcp": {
        **TCP,
        **PLAIN,
        "mark": 1,
        "labels": [1],
        "status": ["assured"],
        "tcp": {"state": "none", "original": {"window_scale": 1, "flags": ["be_liberal"]}},
        "sequence_adjustment": {"reply": {"position": 1, "before": 2, "after": -3}},
        "counters": {"original": {"packets": 1, "bytes": 60}},
        "timestamps": {"start": "2030-01-31T12:00:00.000000000Z"},
        "id": 1,
    },
}


def having(document: Any, path: tuple[str, ...], value: Any) -> Any:
    """Return the document with another value at the path."""
    name, *below = path
    return {**document, name: having(document[name], tuple(below), value) if below else value}


@pytest.mark.parametrize("name", BASES)
def test_deviating_value_is_never_overlooked(name: str) -> None:
    """Try each value at each place, after other values of the same type that are valid."""
    for number, path in enumerate(leaves(BASES[name])):
        for usual in spread(VALUES, number):
            alike = [having(BASES[name], path, usual)] * columns._FEW
            if isinstance(result(PARSED.scalar, alike[0]), str):
                continue
            for value in VALUES:
                if type(value) is type(usual):
                    one = having(BASES[name], path, value)
                    for work in (PARSED, DECLARED):
                        for places, of in work.groups([*alike, one]):
                            if columns._FEW in places:
                                last = {key: column[-1] for key, column in of.items()}
                                assert last == result(work.scalar, one), f"{one} behind {usual!r}"


@given(st.lists(documents() | st.sampled_from([document for document, _key in MALFORMED]), min_size=4, max_size=6))
@examples(40)
def test_declarations_of_mixed_shapes_have_the_results_of_single_ones(some: Any) -> None:
    check(DECLARED, [document for _unused in range(columns._FEW) for document in some])


@given(st.lists(live_entries(), min_size=1, max_size=4), st.data())
@examples(60)
def test_completed_entries_have_the_results_of_single_ones(entries: Any, draws: Any) -> None:
    things = []
    for entry in entries:
        for _unused in range(columns._FEW):
            keys = draws.draw(
                st.sampled_from(
                    [{}, {"timeout": 0}, {"status": 0xFFFF}, {"helper": ""}, {"helper": "ftp"}, {"tcp.state": 99}]
                )
            )
            things.append({**entry, **keys})
    check(bulk.CREATION, things)


@given(
    st.lists(st.sampled_from([None, *types.TCP_STATES]), min_size=columns._FEW, max_size=8),
    st.fixed_dictionaries(
        {}, optional={end: st.sampled_from([{"flags": []}, {"flags": ["challenge_ack"]}]) for end in DIRECTIONS}
    ),
    st.booleans(),
)
@examples(60)
def test_undeclared_flags_are_the_same_in_groups_and_alone(states: Any, ends: Any, mixed: bool) -> None:
    if not mixed:
        states = [state or "none" for state in states]
    things = [{**TCP, "tcp": {**ends, **({} if state is None else {"state": state})}} for state in states]
    together = check(DECLARED, things)
    assert mixed or together == len(things)
    check(bulk.CREATION, list(map(from_document, things)))
    for thing, entry in zip(things, DECLARED.each(things)):
        for end in DIRECTIONS:
            if "flags" not in ends.get(end, {}):
                assert entry[f"tcp.{end}.flags"] & 0x0A == 0x0A, thing


@pytest.mark.parametrize(("document", "key"), MALFORMED, ids=[f"{key}-{i}" for i, (_d, key) in enumerate(MALFORMED)])
def test_malformed_declaration_has_the_same_error_in_a_group(document: Any, key: str) -> None:
    assert check(PARSED, [document] * columns._FEW) == 0
    valid = TCP
    done, fault = all_at_once(PARSED, [valid, valid, document, valid])
    assert len(done) == 2, "the results before the error are returned"
    assert fault.startswith(key)


@pytest.mark.parametrize(("name", "sample"), SAMPLES, ids=[name for name, _sample in SAMPLES])
def test_entries_of_every_kind_are_grouped(name: str, sample: Any) -> None:
    """Without groups, the results are correct but slow, so the test counts the grouped declarations."""
    gathered = {**sample.gathered(), "id": 5, "use": 1, "counters": {"original": {"packets": 1, "bytes": 60}}}
    for document in (sample.declared, gathered, {"zone": None, "helper": None, **sample.declared}):
        assert check(DECLARED, [document] * columns._FEW) == columns._FEW


def test_declarations_of_mixed_shapes_are_grouped() -> None:
    samples = [{**sample.declared, "family": None} for _name, sample in SAMPLES] * columns._FEW
    assert check(DECLARED, samples) == len(samples)
    assert check(bulk.CREATION, [from_document(document) for document in samples]) == len(samples)


def test_declarations_are_processed_in_batches_on_demand() -> None:
    consumed = []

    def endless() -> Iterator[Any]:
        while True:
            consumed.append(1)
            yield TCP

    entries = bulk.parse_all(endless())
    for _unused in range(columns.BATCH + 1):
        next(entries)
    assert len(consumed) == 2 * columns.BATCH
    assert next(entries) == from_document(TCP)
    assert next(bulk.CREATION.each([from_document(TCP)]))["timeout"] == 120
