# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A match that takes one entry too many cuts a connection; one too few leaves a stale one."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.match import EVERYTHING, parse_match
from ansible_collections.netops.conntrack.plugins.module_utils.client.shape import parse, present
from ansible_collections.netops.conntrack.plugins.module_utils.client.vocabulary import KEYS
from ansible_collections.netops.conntrack.tests.unit.plugins.module_utils.client import oracle
from ansible_collections.netops.conntrack.tests.unit.plugins.module_utils.client.strategies import (
    MATCH_VALUES,
    NOW,
    live_entries,
    matches,
    simple_matches,
)

TCP = parse(
    {
        "protocol": "tcp",
        "original": {"source": "10.0.0.1", "destination": "192.0.2.1", "source_port": 4000, "destination_port": 443},
        "tcp": {"state": "established"},
        "mark": 0x12,
    }
)


def answer(raw: Any, entry: Any) -> bool:
    with mock.patch("time.time_ns", return_value=NOW):
        return parse_match(raw)(entry)


def oracle_answer(raw: Any, entry: Any) -> bool:
    document = {**present(entry), "timestamps": entry["timestamps.start"]}
    return oracle.matches(raw, document, NOW)


def test_every_key_has_random_values() -> None:
    assert {*MATCH_VALUES, "except"} == set(KEYS)


@pytest.mark.parametrize("key", sorted(MATCH_VALUES))
def test_each_key_means_what_it_says(key: str) -> None:
    @given(MATCH_VALUES[key], live_entries())
    @settings(max_examples=12)
    def check(value: Any, entry: Any) -> None:
        assert answer({key: value}, entry) == oracle_answer({key: value}, entry)

    check()


@given(matches(), live_entries())
@settings(max_examples=120)
def test_a_match_takes_what_it_says_and_nothing_else(raw: Any, entry: Any) -> None:
    try:
        found = answer(raw, entry)
    except InvalidValue as fault:
        # Refused are only matches of which a part can never match anything.
        part = part_at(raw, fault.key)
        assert not oracle_answer({k: v for k, v in part.items() if k != "except"}, entry)
    else:
        assert found == oracle_answer(raw, entry)


def part_at(raw: Any, key: str) -> Any:
    """The match that holds the key at the end of a path such as `match[1].except.port`."""
    path = key.replace("[", ".[").split(".")[1:-1]
    for step in path:
        raw = raw[int(step[1:-1])] if step.startswith("[") else raw[step]
    return raw


@given(simple_matches(), simple_matches(), live_entries())
@settings(max_examples=60)
def test_lists_join_and_except_takes_away(one: Any, other: Any, entry: Any) -> None:
    try:
        first, second = answer(one, entry), answer(other, entry)
    except InvalidValue:
        return
    assert answer([one, other], entry) == (first or second)
    assert answer({**one, "except": other}, entry) == (first and not second)
    assert answer({**one, "except": [one, other]}, entry) is False
    assert answer([one, {**other, "except": one}], entry) == (first or second)
    with mock.patch("time.time_ns", return_value=NOW):
        assert parse_match(one).but_not(parse_match(other))(entry) == (first and not second)
    assert EVERYTHING(entry)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"source": "10.0.0.0/31"}, True),
        ({"source": "10.0.0.2-10.0.0.9"}, False),
        ({"source": ["10.0.0.9", "10.0.0.1"]}, True),
        ({"source": ("10.0.0.9", "10.0.0.1")}, True),
        ({"source": "::ffff:10.0.0.1"}, False),  # IPv6 on the wire, another flow
        ({"source": "::/0"}, False),
        ({"port": "https"}, True),
        ({"port": " HTTPS ".strip().lower()}, True),
        ({"port": "440-450"}, True),
        ({"port": 4000, "protocol": "udp"}, False),
        ({"mark": 0}, False),
        ({"mark": "0x2/0xf"}, True),
        ({"mark": "18"}, True),
        ({"state": "ESTABLISHED"}, True),  # as conntrack -L writes it
        ({"family": "IPv4", "protocol": "TCP", "nat": "None"}, True),
        ({"zone": 0, "original_zone": "0", "reply_zone": [0]}, True),
        ({"expected": False}, True),
        ({"helper": "ftp"}, False),
        ({"icmp_type": 8}, False),
        ({"timeout_below": 10**9}, False),  # no countdown to compare
    ],
)
def test_examples(raw: Any, expected: bool) -> None:
    assert parse_match(raw)(TCP) is expected


def test_a_port_matches_only_protocols_with_ports() -> None:
    gre = parse(
        {
            "protocol": "gre",
            "original": {"source": "10.0.0.1", "destination": "10.0.0.2", "source_key": 443, "destination_key": 443},
        }
    )
    assert not parse_match({"port": 443})(gre)
    assert parse_match({"destination_key": 443})(gre)


@pytest.mark.parametrize(
    ("entry", "zone", "original", "reply"),
    [({}, 0, 0, 0), ({"zone": 5}, 5, 5, 5), ({"original.zone": 5}, None, 5, 0), ({"reply.zone": 5}, None, 0, 5)],
)
def test_zones_of_both_kinds(entry: Any, zone: int | None, original: int, reply: int) -> None:
    for number in (0, 5):
        for key, expected in (("zone", zone), ("original_zone", original), ("reply_zone", reply)):
            assert parse_match({key: number})({**TCP, **entry}) is (number == expected)


def test_labels_by_name() -> None:
    labels = LabelMap({"voice": 3, "5": 7})
    entry = {**TCP, "labels": 1 << 3}
    assert parse_match({"labels": "voice"}, labels)(entry)
    assert parse_match({"labels": ["voice", 3]}, labels)(entry)
    assert not parse_match({"labels": ["voice", "5"]}, labels)(entry)
    assert parse_match({"labels_not": [5]}, labels)(entry)


@pytest.mark.parametrize(
    ("key", "need"),
    [("bytes_above", "accounting"), ("packets_below", "accounting"), ("age_above", "timestamps")],
)
def test_what_was_not_recorded_is_an_error_not_an_empty_answer(key: str, need: str) -> None:
    match = parse_match({"except": {key: 1}, "protocol": "tcp"})
    assert match.needs == {need}
    with pytest.raises(InvalidValue, match="cannot be told.*; set net.netfilter") as caught:
        match(TCP)
    assert caught.value.key == f"match.except.{key}"


def test_nothing_is_asked_of_an_entry_that_is_out_anyway() -> None:
    assert not parse_match({"bytes_above": 1, "protocol": "udp"})(TCP)


MALFORMED: list[tuple[Any, str]] = [
    (None, "match"),
    ("tcp", "match"),
    (17, "match"),
    (True, "match"),
    ([], "match"),
    ({}, "match"),
    ([{}], "match[0]"),
    ([{"protocol": "tcp"}, None], "match[1]"),
    ([[{"protocol": "tcp"}]], "match[0]"),
    ({"except": {"protocol": "tcp"}}, "match"),
    ({"protocol": "tcp", "except": []}, "match.except"),
    ({"protocol": "tcp", "except": None}, "match.except"),
    ({"protocol": "tcp", "except": {}}, "match.except"),
    ({"protocol": "tcp", "except": [{"port": 70000}]}, "match.except[0].port"),
    ({"sorce": "10.0.0.1"}, "match.sorce"),
    ({1: 2}, "match.1"),
    ({"family": "inet"}, "match.family"),
    ({"family": 2}, "match.family"),
    ({"protocol": 256}, "match.protocol"),
    ({"protocol": "tpc"}, "match.protocol"),
    ({"protocol": "tcp,udp"}, "match.protocol"),
    ({"zone": 65536}, "match.zone"),
    ({"zone": "1-2"}, "match.zone"),
    ({"source": "10.0.0.1/8"}, "match.source"),
    ({"source": "10.0.0.0/33"}, "match.source"),
    ({"source": "10.0.0.0/-1"}, "match.source"),
    ({"source": "10.0.0.0/"}, "match.source"),
    ({"source": "/8"}, "match.source"),
    ({"source": "10.0.0.0/255.0.0.0"}, "match.source"),
    ({"source": "10.0.0.0/8-10.1.0.0"}, "match.source"),
    ({"source": "2001:db8::1/64"}, "match.source"),
    ({"source": "fe80::1%eth0"}, "match.source"),
    ({"source": "10.0.0.9-10.0.0.1"}, "match.source"),
    ({"source": "10.0.0.1-::1"}, "match.source"),
    ({"source": "10.1"}, "match.source"),
    ({"source": "010.0.0.1"}, "match.source"),
    ({"source": "localhost"}, "match.source"),
    ({"source": ""}, "match.source"),
    ({"helper": ""}, "match.helper"),
    ({"mark": "0/0"}, "match.mark"),
    ({"source": "\u0661.0.0.1"}, "match.source"),
    ({"source": 167772161}, "match.source"),
    ({"source": "10.0.0.1", "destination": "::1"}, "match.destination"),
    ({"family": "ipv6", "source": ["10.0.0.1", "10.0.0.2"]}, "match.source"),
    ({"port": 65536}, "match.port"),
    ({"port": "80-79"}, "match.port"),
    ({"port": "80-65536"}, "match.port"),
    ({"port": "-80"}, "match.port"),
    ({"port": "80-"}, "match.port"),
    ({"port": "80:90"}, "match.port"),
    ({"port": "\u0668\u0660"}, "match.port"),
    ({"port": "no-such-service"}, "match.port"),
    ({"port": "1_000"}, "match.port"),
    ({"port": 80, "protocol": "icmp"}, "match.port"),
    ({"port": 80, "protocol": ["gre", 50]}, "match.port"),
    ({"port": 80, "icmp_type": 8}, "match.icmp_type"),
    ({"source_key": 1, "protocol": "tcp"}, "match.source_key"),
    ({"state": "established", "protocol": "udp"}, "match.state"),
    ({"icmp_type": 256}, "match.icmp_type"),
    ({"mark": 1 << 32}, "match.mark"),
    ({"mark": "0x100000000"}, "match.mark"),
    ({"mark": "0x10/0x0f"}, "match.mark"),
    ({"mark": "1/2/3"}, "match.mark"),
    ({"mark": "/1"}, "match.mark"),
    ({"mark": "1/"}, "match.mark"),
    ({"state": "open up"}, "match.state"),
    ({"nat": "both"}, "match.nat"),
    ({"status": "offline"}, "match.status"),
    ({"status": 32}, "match.status"),
    ({"labels": "no-such-label"}, "match.labels"),
    ({"labels": 128}, "match.labels"),
    ({"helper": "sixteen-letters!"}, "match.helper"),
    ({"timeout_below": "soon"}, "match.timeout_below"),
    ({"bytes_above": [1]}, "match.bytes_above"),
    ({"expected": "yes"}, "match.expected"),
    ({"expected": 1}, "match.expected"),
]


@pytest.mark.parametrize(("raw", "key"), MALFORMED, ids=[repr(raw) for raw, _unused in MALFORMED])
def test_a_malformed_value_is_named_with_a_cure(raw: Any, key: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_match(raw)
    assert caught.value.key == key
    assert str(caught.value).startswith(f"{key}: ")
    assert any(cure in caught.value.problem for cure in ("write", "leave"))


@pytest.mark.parametrize(
    "value",
    [None, [], (), [None], {}, [[]], [{}], "\0", "\ud800", 1.5, float("nan"), -1, 1 << 128, True, [True]],
    ids=repr,
)
def test_what_no_key_takes(value: Any) -> None:
    for key in KEYS:
        if key == "except" or (key == "expected" and value is True):
            continue
        with pytest.raises(InvalidValue, match="write|leave") as caught:
            parse_match({key: value})
        assert caught.value.key == f"match.{key}"


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


def nesting(inner: Any) -> Any:
    return st.lists(inner) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner)


@given(st.recursive(LEAVES, nesting))
@example([{"labels": 1 << 64}])
@settings(max_examples=60)
def test_nonsense_is_refused_never_a_crash(raw: Any) -> None:
    assert refused_key(raw).startswith("match")


def refused_key(raw: Any) -> str:
    """The key that a match is refused for, or `match` if it is none."""
    try:
        parse_match(raw)(TCP)
    except InvalidValue as fault:
        return fault.key
    return "match"
