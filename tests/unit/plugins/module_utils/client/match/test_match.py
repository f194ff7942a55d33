# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test which entries a match selects: one too many cuts a connection, and one too few leaves a stale entry."""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document, to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.tuple import default_reply
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.keys import KEYS
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import EVERYTHING, parse_match
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.support import oracle
from ansible_collections.netops.conntrack.tests.unit.support.strategies import (
    MATCH_VALUES,
    NOW,
    live_entries,
    many_matches,
    matches,
    simple_matches,
)

TCP = from_document(
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
    document = {**to_document(entry), "timestamps": entry["timestamps.start"]}
    return oracle.matches(raw, document, NOW)


def test_every_key_has_random_values() -> None:
    assert {*MATCH_VALUES, "except"} == set(KEYS)


@pytest.mark.parametrize("key", sorted(MATCH_VALUES))
def test_each_key_agrees_with_the_oracle(key: str) -> None:
    @given(MATCH_VALUES[key], live_entries())
    @examples(12)
    def check(value: Any, entry: Any) -> None:
        assert answer({key: value}, entry) == oracle_answer({key: value}, entry)

    check()


@given(matches(), live_entries())
@examples(120)
def test_match_selects_the_same_entries_as_the_oracle(raw: Any, entry: Any) -> None:
    try:
        found = answer(raw, entry)
    except InvalidValue as fault:
        # A match is refused only if a part of it can never match anything.
        part = part_at(raw, fault.key)
        assert not oracle_answer({k: v for k, v in part.items() if k != "except"}, entry)
    else:
        assert found == oracle_answer(raw, entry)


@given(many_matches(), st.lists(live_entries(), min_size=1, max_size=4))
@examples(60)
def test_many_alternatives_select_the_same_entries_as_the_oracle(raw: Any, entries: Any) -> None:
    possible = []
    for one in raw:
        try:
            parse_match(one)
        except InvalidValue:
            continue
        possible.append(one)
    if not possible:
        return
    with mock.patch("time.time_ns", return_value=NOW):
        match, exception = parse_match(possible), parse_match({"family": ["ipv4", "ipv6"], "except": possible})
        for entry in entries:
            expected = oracle_answer(possible, entry)
            assert match(entry) is expected
            assert exception(entry) is not expected


def part_at(raw: Any, key: str) -> Any:
    """Return the match that contains the key at the end of a path such as `match[1].except.port`."""
    path = key.replace("[", ".[").split(".")[1:-1]
    for step in path:
        raw = raw[int(step[1:-1])] if step.startswith("[") else raw[step]
    return raw


@given(simple_matches(), simple_matches(), live_entries())
@examples(60)
def test_lists_combine_matches_and_except_excludes_entries(one: Any, other: Any, entry: Any) -> None:
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
        ({"source": "::ffff:10.0.0.1"}, False),  # this is IPv6 on the wire, and therefore another flow
        ({"source": "::/0"}, False),
        ({"port": "https"}, True),
        ({"port": " HTTPS ".strip().lower()}, True),
        ({"port": "440-450"}, True),
        ({"port": 4000, "protocol": "udp"}, False),
        ({"mark": 0}, False),
        ({"mark": "0x2/0xf"}, True),
        ({"mark": "18"}, True),
        ({"state": "ESTABLISHED"}, True),  # the notation of conntrack -L
        ({"family": "IPv4", "protocol": "TCP", "nat": "None"}, True),
        ({"zone": 0, "original_zone": "0", "reply_zone": [0]}, True),
        ({"expected": False}, True),
        ({"helper": "ftp"}, False),
        ({"icmp_type": 8}, False),
        ({"protocol": ["esp", "TCP"]}, True),
        ({"protocol": ["esp", "igmp", "icmp6", "ipv6-icmp"]}, False),
        ({"timeout_below": 10**9}, False),  # the entry has no timeout
    ],
)
def test_examples(raw: Any, expected: bool) -> None:
    assert parse_match(raw)(TCP) is expected


def test_a_port_matches_only_protocols_with_ports() -> None:
    gre = from_document(
        {
            "protocol": "gre",
            "original": {"source": "10.0.0.1", "destination": "10.0.0.2", "source_key": 443, "destination_key": 443},
        }
    )
    assert not parse_match({"port": 443})(gre)
    assert parse_match({"destination_key": 443})(gre)


@pytest.mark.parametrize(("name", "number"), [("esp", 50), ("igmp", 2), ("icmp6", 58), ("ipv6-icmp", 58), ("ospf", 89)])
def test_protocols_have_other_names(name: str, number: int) -> None:
    assert parse_match({"protocol": name})({**TCP, "original.protocol": number})
    assert not parse_match({"protocol": name})(TCP)


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


#: A data connection of FTP behind source NAT, and the control connection that announced it.
FTP_DATA = from_document(
    {
        "protocol": "tcp",
        "original": {
            "source": "192.0.2.21",
            "destination": "198.51.100.1",
            "source_port": 20,
            "destination_port": 40001,
        },
        "reply": {"source": "10.1.0.2", "destination": "192.0.2.21", "source_port": 40001, "destination_port": 20},
        "master": {"source": "10.1.0.2", "destination": "192.0.2.21", "source_port": 5000, "destination_port": 21},
    }
)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"master": {"source": "10.1.0.2"}}, True),
        ({"master": {"source": "10.1.0.0/16", "destination_port": "ftp", "protocol": "tcp"}}, True),
        ({"master": {"source": ["10.1.0.9", "10.1.0.2"], "source_port": "4000-5000"}}, True),
        ({"master": {"address": "192.0.2.21", "port": 5000}}, True),
        ({"master": {"address": "198.51.100.1"}}, False),  # the address of the connection itself
        ({"master": {"port": 20}}, False),
        ({"master": {"source": "10.1.0.2", "destination_port": 22}}, False),
        ({"master": [{"destination_port": 22}, {"destination_port": 21}]}, True),
        ({"master": {"icmp_type": 8}}, False),
        ({"master": {"destination_port": 21}, "destination_port": 40001}, True),
        ({"master": {"destination_port": 21}, "except": {"master": {"source": "10.1.0.2"}}}, False),
        ({"protocol": "tcp", "except": {"master": {"source": "10.1.0.9"}}}, True),
    ],
)
def test_connection_is_selected_by_its_master(raw: Any, expected: bool) -> None:
    assert parse_match(raw)(FTP_DATA) is expected
    if "except" not in raw:
        assert not parse_match(raw)(TCP)


def test_master_of_a_document_is_a_valid_match() -> None:
    assert parse_match({"master": to_document(FTP_DATA)["master"]})(FTP_DATA)


@pytest.mark.parametrize("address", ["10.1.0.2", "192.0.2.21", "10.1.0.0/24", ["10.9.9.9", "10.1.0.2"]])
def test_either_address_of_the_reply_direction(address: Any) -> None:
    assert parse_match({"reply_address": address})(FTP_DATA)
    assert not parse_match({"reply_address": "198.51.100.1"})(FTP_DATA)
    assert parse_match({"address": "198.51.100.1"})(FTP_DATA)


MAC = 0x0242AC110002


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"labels": "0x0242ac1100020000/0xffffffffffff0000"}, True),
        ({"labels": "0x0242ac1100030000/0xffffffffffff0000"}, False),
        ({"labels": "0x0242ac1100020000/0xffffffffffffffff"}, False),
        ({"labels": f"{1 << 127 | MAC << 16 | 8:#x}/{(1 << 128) - 1:#x}"}, True),
        ({"labels": f"{1 << 127 | MAC << 16 | 8}/{(1 << 128) - 1}"}, True),
        ({"labels": ["0x0242ac1100020000/0xffffffffffff0000", "voice", 127]}, True),
        ({"labels": ["0x0242ac1100020000/0xffffffffffff0000", 4]}, False),
        ({"labels": ["0x8/0xf", "0x0/0x7"]}, True),
        ({"labels": "0/7"}, True),
        ({"labels_not": "0x8/0xf"}, False),
        ({"labels_not": ["0x7/0xf", "0x1/0x1"]}, True),
        ({"labels_not": ["0x7/0xf", 3]}, False),
        ({"labels_not": ["0x7/0xf", 4]}, True),
        ({"labels": "a/b"}, True),
    ],
)
def test_labels_under_a_mask(raw: Any, expected: bool) -> None:
    """OVN stores a MAC address in the labels."""
    entry = {**TCP, "labels": 1 << 127 | MAC << 16 | 1 << 3}
    assert parse_match(raw, LabelMap({"voice": 3, "a/b": 127}))(entry) is expected


@pytest.mark.parametrize("name", ["web/prod", "far/1x", "1/x"])
def test_an_unknown_label_with_a_slash_is_no_number(name: str) -> None:
    with pytest.raises(InvalidValue, match="is not a label"):
        parse_match({"labels": [name]}, LabelMap({"voice": 3}))


def test_an_entry_without_labels_has_none_of_them_set() -> None:
    assert parse_match({"labels": "0/7"})(TCP)
    assert not parse_match({"labels": "1/7"})(TCP)
    assert parse_match({"labels_not": "1/7"})(TCP)


@pytest.mark.parametrize(
    ("key", "need"),
    [("bytes_above", "accounting"), ("packets_below", "accounting"), ("age_above", "timestamps")],
)
def test_match_on_unrecorded_data_is_an_error(key: str, need: str) -> None:
    match = parse_match({"except": {key: 1}, "protocol": "tcp"})
    assert match.needs == {need}
    with pytest.raises(InvalidValue, match="cannot be evaluated.*; set net.netfilter") as caught:
        match(TCP)
    assert caught.value.key == f"match.except.{key}"


def test_unrecorded_data_is_not_needed_if_another_key_excludes_the_entry() -> None:
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
    ({"destination": "0.0.0.0"}, "match.destination"),
    ({"destination": ["10.0.0.1", "::"]}, "match.destination"),
    ({"reply_source": "0.0.0.0"}, "match.reply_source"),
    ({"address": "0:0::0"}, "match.address"),
    ({"protocol": "tcp", "except": {"destination": " 0.0.0.0 "}}, "match.except.destination"),
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
    ({"master": {}}, "match.master"),
    ({"master": "10.0.0.1"}, "match.master"),
    ({"master": [{"port": 21}, {}]}, "match.master[1]"),
    ({"master": {"mark": 5}}, "match.master.mark"),
    ({"master": {"reply_source": "10.0.0.1"}}, "match.master.reply_source"),
    ({"master": {"master": {"port": 21}}}, "match.master.master"),
    ({"master": {"port": 70000}}, "match.master.port"),
    ({"master": [{"port": []}]}, "match.master[0].port"),
    ({"master": {"source": None}}, "match.master.source"),
    ({"master": {"destination": "0.0.0.0"}}, "match.master.destination"),
    ({"master": {"protocol": "icmp", "port": 21}}, "match.master.port"),
    ({"master": {"source": "10.0.0.1", "destination": "::1"}}, "match.master.destination"),
    ({"source": "10.0.0.1", "master": {"destination": "::1"}}, "match.master"),
    ({"reply_address": "0.0.0.0"}, "match.reply_address"),
    ({"source": "10.0.0.1", "reply_address": "::1"}, "match.reply_address"),
    ({"labels": "0x10/0x0f"}, "match.labels"),
    ({"labels": "0/0"}, "match.labels"),
    ({"labels_not": ["voice/0x1"]}, "match.labels_not"),
    ({"labels": f"1/{1 << 128:#x}"}, "match.labels"),
    ({"labels": "1/2/3"}, "match.labels"),
    ({"labels": ["0x1/0x3", "0x2/0x2"]}, "match.labels"),
    ({"labels": [0, "0x0/0x1"]}, "match.labels"),
    ({"helper": "sixteen-letters!"}, "match.helper"),
    ({"timeout_below": "soon"}, "match.timeout_below"),
    ({"bytes_above": [1]}, "match.bytes_above"),
    ({"expected": "yes"}, "match.expected"),
    ({"expected": 1}, "match.expected"),
]


@pytest.mark.parametrize(("raw", "key"), MALFORMED, ids=[repr(raw) for raw, _unused in MALFORMED])
def test_malformed_value_is_reported_with_advice(raw: Any, key: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_match(raw)
    assert caught.value.key == key
    assert str(caught.value).startswith(f"{key}: ")
    assert any(advice in caught.value.problem for advice in ("write", "leave", "did you mean"))


@pytest.mark.parametrize(
    "value",
    [None, [], (), [None], {}, [[]], [{}], "\0", "\ud800", 1.5, float("nan"), -1, 1 << 128, True, [True]],
    ids=repr,
)
def test_values_that_no_key_accepts_are_refused(value: Any) -> None:
    for key in KEYS:
        if key == "except" or (key == "expected" and value is True):
            continue
        with pytest.raises(InvalidValue, match="write|leave|did you mean") as caught:
            parse_match({key: value})
        inside = "[0]" if key == "master" and isinstance(value, list) and value else ""
        assert caught.value.key == f"match.{key}{inside}"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"src": "10.0.0.1"}, "match.src: no such key; write source"),
        ({"--orig-src": "10.0.0.1"}, "match.--orig-src: no such key; write source"),
        ({"daddr": "10.0.0.1"}, "match.daddr: no such key; write destination"),
        ({"sport": 1}, "match.sport: no such key; write source_port"),
        ({"dport": 1}, "match.dport: no such key; write destination_port"),
        ({"reply-src": 1}, "match.reply-src: no such key; write reply_source"),
        ({"l4proto": "tcp"}, "match.l4proto: no such key; write protocol"),
        ({"ctstate": "new"}, "match.ctstate: no such key; write state"),
        ({"timeout": 1}, "match.timeout: no such key; write timeout_below or timeout_above"),
        ({"snat": True}, "match.snat: no such key; write nat: source"),
        ({"destination-port": 1}, "match.destination-port: no such key; write destination_port"),
        ({"sorce": "10.0.0.1"}, "match.sorce: no such key (did you mean source?)"),
        ({"mark": 1, "except": {"prot": "tcp"}}, "match.except.prot: no such key; write protocol"),
        ({"qqqq": 1}, "match.qqqq: no such key; write one of address, "),
        ({"\x1b[2J\ud800": 1}, "match.'\\x1b[2J\\ud800': no such key; write one of address, "),
        ({"state": "NEW"}, "match.state: 'NEW' is a state of rules (ct state), not of entries; write status_not: seen"),
        ({"state": "establised"}, "match.state: 'establised' is not a state (did you mean established?)"),
    ],
)
def test_keys_of_other_programs_are_refused_with_the_right_key(raw: Any, message: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_match(raw)
    assert str(caught.value).startswith(message)


DHCP = from_document(
    {
        "protocol": "udp",
        "original": {"source": "0.0.0.0", "destination": "255.255.255.255", "source_port": 68, "destination_port": 67},
    }
)


@pytest.mark.parametrize(
    ("address", "any_of_family", "alone"), [("0.0.0.0", "0.0.0.0/0", "0.0.0.0/32"), ("::", "::/0", "::/128")]
)
def test_unspecified_address_is_refused_as_a_destination(address: str, any_of_family: str, alone: str) -> None:
    """`docker ps` prints 0.0.0.0:8080 for a port that is published on all addresses."""
    with pytest.raises(InvalidValue) as caught:
        parse_match({"protocol": "tcp", "destination": address})
    assert str(caught.value) == (
        f"match.destination: {address} is not an address of a connection; leave destination out for any address, or "
        f"write {any_of_family} for any address of this family, {alone} for this address alone"
    )
    assert parse_match({"destination": any_of_family})(TCP) is ("." in address)
    assert not parse_match({"destination": alone})(TCP)
    assert parse_match({"destination": f"{address}-{address}"})(TCP) is False


def test_unspecified_address_matches_a_dhcp_client() -> None:
    for key in ("source", "reply_destination"):
        for value in ("0.0.0.0", "0.0.0.0/32", ["10.9.9.9", "0.0.0.0"]):
            assert parse_match({key: value})({**default_reply(DHCP), **DHCP})
            assert not parse_match({key: value})({**default_reply(TCP), **TCP})
    assert parse_match({"address": "0.0.0.0/32"})(DHCP)
    assert parse_match({"source": "0.0.0.0", "destination": "255.255.255.255"})(DHCP)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"mark": 1, "except": {"port": []}}, "match.except.port: an empty list; write a value, or leave out except"),
        ({"mark": 1, "except": {"port": None}}, "match.except.port: is null; write a value, or leave out except"),
        (
            {"mark": 1, "except": {}},
            (
                "match.except: specifies nothing, so it would match everything; write at least one key, "
                "or leave out except"
            ),
        ),
        (
            {"mark": 1, "except": [{"port": []}]},
            "match.except[0].port: an empty list; write a value",
        ),
        ([{"port": []}, {"mark": 1}], "match[0].port: an empty list; write a value"),
        ({"port": []}, "match.port: an empty list; write a value"),
        ({"port": [], "except": {"mark": 1}}, "match.port: an empty list; write a value"),
        ({"port": [], "mark": 1}, "match.port: an empty list; leave the key out or give it a value"),
        ({"mark": 1, "except": []}, "match.except: an empty list; leave the key out or give it a value"),
        ({"except": []}, "match: specifies nothing, so it would match everything; write at least one key"),
    ],
)
def test_advice_never_leads_to_a_refused_match(raw: Any, message: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_match(raw)
    assert str(caught.value) == message


def test_empty_value_of_the_option_except_has_its_own_advice() -> None:
    with pytest.raises(InvalidValue, match=r"^except.reply_source: an empty list; write a value, or leave out except$"):
        parse_match({"reply_source": []}, key="except")


def test_state_can_have_hyphens() -> None:
    assert parse_match({"state": "time-wait"})({**TCP, "tcp.state": 7})


@given(matches())
@examples(40)
def test_json_text_is_accepted_wherever_a_match_is(raw: Any) -> None:
    """Ad-hoc commands pass `match={"protocol":"tcp"}` as text."""
    texts = [json.dumps(raw)]
    if isinstance(raw, list):
        texts.append([json.dumps(one) for one in raw])  # type: ignore[arg-type]
    elif "except" in raw:
        texts.append({**raw, "except": json.dumps(raw["except"])})  # type: ignore[arg-type]
    try:
        expected = refused_key(raw)
        for text in texts:
            assert refused_key(text) == expected
        assert answer(raw, TCP) in (True, False)
    except InvalidValue:
        return
    for text in texts:
        assert answer(text, TCP) == answer(raw, TCP)


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("protocol=tcp", "match", "'protocol=tcp' is not a match; write a dictionary such as {\"protocol\": "),
        ("{'protocol': 'tcp'}", "match", "is not a match; write a dictionary such as"),
        ("tcp", "match", "is not a match"),
        ("5", "match", "is not a match"),
        ("null", "match", "is not a match"),
        ('"{}"', "match", "is not a match"),
        ("{" * 9999, "match", r"^match: '\{{80}'\.\.\. is not a match"),
        ("[" * 99999, "match", "is not a match"),
        ("[]", "match", "an empty list matches nothing"),
        ("{}", "match", "specifies nothing"),
        ('{"mark": ' + "9" * 999 + "}", "match", "is out of range"),
        ('{"protocol": "tcp", "protocol": "udp"}', "match.protocol", "is written twice"),
        ('[{"protocol": "tcp"}, {"mark": 1, "except": {"mark": 2, "mark": 3}}]', "match.mark", "is written twice"),
        ('{"protocol": "tcp", "port": 70000}', "match.port", "70000 is out of range"),
        (["[]"], "match[0]", "is not a match"),
        (['[{"protocol": "tcp"}]'], "match[0]", "is not a match"),
        ({"protocol": "tcp", "except": "udp"}, "match.except", "'udp' is not a match"),
    ],
)
def test_other_text_is_refused_with_advice(text: Any, key: str, message: str) -> None:
    with pytest.raises(InvalidValue, match=message) as caught:
        parse_match(text)
    assert caught.value.key.startswith(key)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


def nesting(inner: Any) -> Any:
    return st.lists(inner) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner)


@given(st.recursive(LEAVES, nesting))
@example([{"labels": 1 << 64}])
@examples(60)
def test_random_values_are_accepted_or_refused(raw: Any) -> None:
    assert refused_key(raw).startswith("match")


def refused_key(raw: Any) -> str:
    """Return the key that the error of a match names, or `match` if the match is valid."""
    try:
        parse_match(raw)(TCP)
    except InvalidValue as fault:
        return fault.key
    return "match"


@pytest.mark.parametrize("name", ["LISTEN", "listen", "syn_sent2"])
def test_older_name_of_a_state_is_accepted(name: str) -> None:
    """Older versions of conntrack(8) print LISTEN."""
    assert parse_match({"state": name})({**TCP, "tcp.state": 9})
    assert not parse_match({"state": name})(TCP)
