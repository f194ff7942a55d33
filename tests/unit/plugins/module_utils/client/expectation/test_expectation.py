# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that an expectation is read as the kernel sends it, sent as declared, and shown so that it can be redeclared."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client import uapi
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec import types
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.attributes import Attribute
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.codec import Codec
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue, NotFound, TableFull
from ansible_collections.netops.conntrack.plugins.module_utils.client.expectation import expectation
from ansible_collections.netops.conntrack.plugins.module_utils.client.expectation.expectation import (
    EXPECTATION,
    MATCH_KEYS,
    creation,
    describe,
    differences,
    from_document,
    identity,
    overlap,
    to_document,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.match import keys as vocabulary
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.message import Message
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.socket import NetlinkSocket
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from ansible_collections.netops.conntrack.tests.unit.support import fake_kernel, fake_socket, strategies, wire
from ansible_collections.netops.conntrack.tests.unit.support.fake_kernel import Ends, encoded, u32

CLIENT, SERVER = b"\n\0\0\1", b"\n\0\0\2"
PAYLOAD = bytes([2, 1, 0, 0]) + encoded(
    {
        1: fake_kernel.tuple_attributes(2, Ends(CLIENT, SERVER, 6, (40000, 21))),
        2: fake_kernel.tuple_attributes(2, Ends(SERVER, CLIENT, 6, (0, 5000))),
        3: fake_kernel.tuple_attributes(2, Ends(b"\xff" * 4, b"\xff" * 4, 6, (0, 0xFFFF))),
        4: u32(300),
        5: u32(0xC0FFEE),
        6: b"ftp\0",
        7: b"\0\5",
        8: u32(1),
        9: u32(2),
        10: {1: u32(1)},
        11: b"nat-follow-master\0",
        99: b"new!",
    }
)


def test_every_attribute_is_decoded() -> None:
    found = expectation.parse_expectation(Message(0x0200, 0, PAYLOAD))
    kept = {key: value for key, value in found.items() if not key.startswith(("master", "tuple", "mask", "nat"))}
    assert kept == {
        "family": 2,
        "timeout": 300,
        "id": 0xC0FFEE,
        "helper": "ftp",
        "zone": 5,
        "flags": 1,
        "class": 2,
        "function": "nat-follow-master",
        "extra": {"99": b"new!"},
    }
    assert found["nat.direction"] == 1
    assert found["master.source"] == CLIENT
    assert found["master.destination_port"] == 21
    assert (found["tuple.source"], found["tuple.destination_port"]) == (SERVER, 5000)
    assert (found["mask.source"], found["mask.source_port"]) == (b"\xff" * 4, 0)


def test_all_expectations_are_read_with_one_dump() -> None:
    def respond(request: wire.Framed) -> list[fake_socket.Reply]:
        return [wire.framed(0x0200, fake_socket.MULTI, request.sequence, PAYLOAD), fake_socket.done(request)]

    datagrams = fake_socket.FakeDatagrams(respond)
    with Table(lambda: NetlinkSocket(datagrams)) as table:
        assert [found["helper"] for found in expectation.read_all(table)] == ["ftp"]
    (request,) = datagrams.requests
    assert (request.type, request.flags & fake_socket.DUMP) == (0x0201, fake_socket.DUMP)


# Each row, repeated from the kernel's headers

ROWS: dict[str, Any] = {
    "zone": ((7,), 5, "0005"),
    "class": ((9,), 2, "00000002"),
    "flags": ((8,), 3, "00000003"),
    "function": ((11,), "nat-follow-master", "6e61742d666f6c6c6f772d6d617374657200"),
    "nat.direction": ((10, 1), 1, "00000001"),
    "timeout": ((4,), 300, "0000012c"),
    "helper": ((6,), "ftp", "66747000"),
    "id": ((5,), 0xC0FFEE, "00c0ffee"),
}
TUPLES = {"master": (1,), "tuple": (2,), "mask": (3,), "nat.tuple": (10, 2)}
IN_TUPLES: list[Any] = [
    ("source", (1, 1), CLIENT, "0a000001", 2, None),
    ("destination", (1, 2), SERVER, "0a000002", 2, None),
    ("source", (1, 3), bytes(15) + b"\1", "00" * 15 + "01", 10, None),
    ("destination", (1, 4), bytes(15) + b"\2", "00" * 15 + "02", 10, None),
    ("protocol", (2, 1), 6, "06", None, None),
    ("source_port", (2, 2), 4096, "1000", None, None),
    ("destination_port", (2, 3), 53, "0035", None, None),
    ("source_key", (2, 2), 4660, "1234", None, 47),
    ("destination_key", (2, 3), 1, "0001", None, 47),
    ("icmp_id", (2, 4), 4242, "1092", None, 1),
    ("icmp_type", (2, 5), 8, "08", None, 1),
    ("icmp_code", (2, 6), 1, "01", None, 1),
    ("icmp_id", (2, 7), 4242, "1092", None, 58),
    ("icmp_type", (2, 8), 128, "80", None, 58),
    ("icmp_code", (2, 9), 1, "01", None, 58),
]
EXPECTED_ROWS = {(key, path): (value, data, None, None) for key, (path, value, data) in ROWS.items()}
EXPECTED_ROWS.update(
    ((f"{prefix}.{key}", (*start, *path)), (value, data, family, protocol))
    for prefix, start in TUPLES.items()
    for key, path, value, data, family, protocol in IN_TUPLES
)
each_row = pytest.mark.parametrize("row", EXPECTATION, ids=lambda row: f"{row.key}-{'.'.join(map(str, row.path))}")
ALL = Codec(EXPECTATION)


def test_every_row_is_repeated_in_this_test() -> None:
    assert {(row.key, row.path) for row in EXPECTATION} == set(EXPECTED_ROWS)


@each_row
def test_each_row_has_its_path_and_bytes(row: Attribute) -> None:
    value, data, family, protocol = EXPECTED_ROWS[row.key, row.path]
    thing = {"family": family or 2, row.key: value}
    if protocol is not None:
        thing[row.key.rpartition(".")[0] + ".protocol"] = protocol
    encoded_row = wire.flat(wire.tree(ALL.encode(thing)))
    assert encoded_row[row.path].hex() == data
    decoded = ALL.decode(ALL.encode(thing))
    assert {**decoded, "family": thing["family"]} == thing


@each_row
def test_each_row_is_encoded_and_decoded_without_loss(row: Attribute) -> None:
    @given(strategies.of_kind(row.kind))
    def round_trip(value: Any) -> None:
        thing = {"family": row.family or 2, row.key: value}
        if row.protocol is not None:
            thing[row.key.rpartition(".")[0] + ".protocol"] = row.protocol
        assert {**ALL.decode(ALL.encode(thing)), "family": thing["family"]} == thing

    round_trip()


# Declarations

M4 = {"source": "10.1.0.2", "destination": "192.0.2.21", "source_port": 1400, "destination_port": 21}
T4 = {"protocol": "tcp", "source": "192.0.2.21", "destination": "10.1.0.2", "destination_port": 4000}
V4: dict[str, Any] = {"tuple": T4, "master": M4}
MASK = {"source": "255.255.255.255", "destination": "255.255.255.255", "source_port": 0, "destination_port": 65535}


def whole(**more: Any) -> dict[str, Any]:
    return creation(from_document({**V4, **more}))


def without(document: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in keys}


@st.composite
def declarations(draw: Any) -> dict[str, Any]:
    """Draw a valid declaration with any optional keys."""
    family = draw(st.sampled_from([types.AF_INET, types.AF_INET6]))
    kinds = {"tcp": 6, "udp": 17, "sctp": 132, "gre": 47, 50: 50, **({"icmp": 1} if family == 2 else {"icmpv6": 58})}
    name = draw(st.sampled_from(list(kinds)))
    of_tuple = draw(strategies.tuples(family, kinds[name]))
    for key in ("source", "source_port", "source_key", "icmp_id"):
        if draw(st.booleans()):
            of_tuple.pop(key, None)
    document: dict[str, Any] = {"tuple": {"protocol": name, **of_tuple}}
    if draw(st.booleans()):
        document["master"] = {"protocol": "tcp", **draw(strategies.tuples(family, 6))}
        ports = st.integers(1, 0xFFFF)
        directions = st.sampled_from(["original", "reply"])
        nat = st.fixed_dictionaries({"direction": directions, "tuple": st.fixed_dictionaries({"source_port": ports})})
        document.update(draw(strategies.optional(nat=nat)))
    if "source_port" in of_tuple:
        masks = st.fixed_dictionaries({"source_port": st.integers(0, 0xFFFF)})
        document.update(draw(strategies.optional(mask=masks)))
    document.update(
        draw(
            strategies.optional(
                zone=st.integers(1, 0xFFFF),
                timeout=strategies.u32,
                flags=strategies.names(expectation.FLAGS),
                function=st.sampled_from(["nat-follow-master", "sip"]),
                helper=st.just("ftp"),
                id=strategies.u32,
                extra=st.just({"99": "c0ffee"}),
                **{"class": strategies.u32},
            )
        )
    )
    return document


@given(declarations())
def test_a_declaration_is_shown_as_it_was_written(document: dict[str, Any]) -> None:
    shown = to_document(from_document(document))
    assert from_document(shown) == from_document(document)
    for key in set(document) - {"tuple", "master", "mask", "nat"}:
        wanted = document[key]
        assert sorted(shown[key]) == sorted(wanted) if key == "flags" else shown[key] == wanted


@given(declarations().filter(lambda document: "master" in document))
def test_created_expectation_is_as_declared_and_can_be_redeclared(document: dict[str, Any]) -> None:
    declared = from_document(document)
    (message,) = wire.messages(wire.framed(0x0200, 0x600, 1, expectation.create_message(creation(declared)).payload))
    sent = expectation.parse_expectation(Message(0x0200, 0, message.payload))
    assert differences(declared, sent) == []
    assert identity(sent) == identity(declared)
    assert not {"timeout", "id"} & set(sent)
    for key, value in sent.items():  # as the kernel shows a mask
        if key in ("mask.icmp_type", "mask.icmp_code"):
            sent[key] = 0xFF if value is not None else None
    again = from_document(to_document(sent))
    assert differences(again, sent) == []
    assert overlap(creation(again), sent)
    assert "\n" not in describe(sent)


def test_omitted_source_keys_match_any_value() -> None:
    mask = {key: value for key, value in to_document(whole())["mask"].items() if key != "protocol"}
    assert mask == MASK
    open_ = creation(from_document({"tuple": without(T4, "source"), "master": M4}))
    assert (open_["tuple.source"], open_["mask.source"]) == (bytes(4), bytes(4))
    exact = whole(tuple={**T4, "source_port": 20})
    assert exact["mask.source_port"] == 0xFFFF
    assert whole(mask={"source_port": 0xFF00})["mask.source_port"] == 0xFF00


def test_mask_contains_the_values_that_the_kernel_checks_in_any_tuple() -> None:
    icmp = {"protocol": "icmp", "destination": "10.1.0.2", "icmp_type": 8, "icmp_code": 0}
    sent = whole(tuple=icmp, master={"protocol": "tcp", **M4}, mask={"icmp_type": 255, "icmp_code": 255})
    assert (sent["mask.icmp_type"], sent["mask.icmp_id"], sent["mask.protocol"]) == (8, 0, 1)


def test_nat_is_completed_with_values_that_the_kernel_requires() -> None:
    nat = {"direction": "reply", "tuple": {"source_port": 7}}
    sent = whole(nat=nat)
    assert sent["nat.tuple.destination"] == bytes(4)
    assert (sent["nat.tuple.protocol"], sent["nat.tuple.destination_port"]) == (6, 0)
    shown = to_document(sent)["nat"]
    assert shown == {"direction": "reply", "tuple": {"protocol": "tcp", "source": "0.0.0.0", "source_port": 7}}
    assert differences(from_document({**V4, "nat": shown}), sent) == []


@pytest.mark.parametrize(
    ("document", "key", "advice"),
    [
        ({}, "tuple.protocol", "is missing"),
        ({**V4, "colour": 1}, "colour", "no such key"),
        ({"tuple": 5}, "tuple", "is not a dictionary"),
        ({"tuple": {}}, "tuple.protocol", "write a name such as tcp"),
        ({"tuple": {"protocol": "tcp"}}, "tuple.destination", "where the connection is expected to go"),
        ({"tuple": without(T4, "destination_port")}, "tuple.destination_port", "protocol tcp needs it"),
        ({"tuple": {**T4, "icmp_id": 1}}, "tuple.icmp_id", "protocol tcp has no icmp_id"),
        ({"tuple": {**T4, "zone": 1}}, "tuple.zone", "no such key"),
        ({"tuple": {**T4, "source": "2001:db8::1"}}, "tuple.source", "write all addresses in one family"),
        ({**V4, "family": "ipv6"}, "tuple.source", "is not of IPv6 as family is"),
        ({"tuple": {**T4, "protocol": "icmpv6"}}, "tuple.destination_port", "has no destination_port"),
        ({"tuple": T4, "master": {"source": "10.0.0.1"}}, "master.destination", "is missing"),
        ({**V4, "master": {**M4, "destination": "::1"}}, "master.destination", "in one family"),
        ({**V4, "mask": {"icmp_id": 1}}, "mask.icmp_id", "the tuple has no icmp_id; leave it out"),
        ({**V4, "mask": {"protocol": "udp"}}, "mask.protocol", "it is tcp in the tuple"),
        ({**V4, "mask": {"destination": "255.255.255.0"}}, "mask.destination", "only the source can have a mask"),
        ({**V4, "mask": {"destination_port": 0}}, "mask.destination_port", "compares it in full"),
        ({**V4, "mask": {"source": "24"}}, "mask.source", "is not an address"),
        ({**V4, "nat": {}}, "nat.direction", "write original or reply"),
        ({**V4, "nat": {"direction": "up", "tuple": {"source_port": 1}}}, "nat.direction", "is not a known direction"),
        ({**V4, "nat": {"direction": 2, "tuple": {"source_port": 1}}}, "nat.direction", "write original or reply"),
        ({**V4, "nat": {"direction": "reply"}}, "nat.tuple", "specifies nothing; write source, source_port"),
        ({**V4, "nat": {"direction": "reply", "tuple": {"source_port": 0}}}, "nat.tuple", "specifies nothing"),
        (
            {**V4, "nat": {"direction": "reply", "tuple": {"source_port": 1, "destination_port": 2}}},
            "nat.tuple.destination_port",
            "the kernel keeps none",
        ),
        (
            {**V4, "nat": {"direction": "reply", "tuple": {"protocol": "udp", "source_port": 1}}},
            "nat.tuple.protocol",
            "it is the protocol of the master, tcp",
        ),
        ({**V4, "nat": {"direction": "reply", "tuple": {"icmp_id": 1}}}, "nat.tuple.icmp_id", "the kernel keeps none"),
        ({**V4, "flags": ["sticky"]}, "flags", "write a list of permanent, inactive, userspace"),
        ({**V4, "zone": 65536}, "zone", "from 0 to 65535"),
        ({**V4, "class": -1}, "class", "from 0 to 4294967295"),
        ({**V4, "function": "x" * 64}, "function", "write at most 63 bytes"),
        ({**V4, "extra": {"1": "x"}}, "extra.1", "is not hexadecimal"),
    ],
)
def test_invalid_declaration_is_reported_with_its_key_and_advice(document: Any, key: str, advice: str) -> None:
    with pytest.raises(InvalidValue) as fault:
        from_document(document)
    assert fault.value.key == key
    assert advice in str(fault.value)


def test_creation_without_a_master_is_refused() -> None:
    with pytest.raises(InvalidValue, match="master: is missing"):
        creation(from_document({"tuple": T4}))


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["tcp", "10.0.0.1"])
NAMES = st.sampled_from(["protocol", "source", "destination", "source_port", "direction", "tuple"]) | st.text()


@given(
    st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner)),
    st.sampled_from(["family", "zone", "tuple", "mask", "master", "class", "flags", "function", "nat", "extra", "id"]),
)
def test_random_value_is_refused_with_its_key(value: Any, key: str) -> None:
    fault = None
    try:
        from_document({**V4, key: value})
    except InvalidValue as refused:
        fault = refused
    assert fault is None or fault.key.startswith(key)


def test_only_declared_keys_are_compared() -> None:
    actual = {**whole(flags=["permanent"], function="nat-follow-master"), "timeout": 3, "id": 1, "helper": "ftp"}
    assert differences(from_document({"tuple": T4}), actual) == []
    assert differences(from_document({**V4, "timeout": 300, "id": 2, "helper": "sip"}), actual) == []
    changed = {"flags": ["inactive"], "function": "", "class": 1, "mask": {"source_port": 1}, "zone": 0}
    found = {
        change.key: (change.before, change.after) for change in differences(from_document({**V4, **changed}), actual)
    }
    assert found == {
        "flags": (["permanent"], ["inactive"]),
        "function": ("nat-follow-master", ""),
        "class": (None, 1),
        "mask.source_port": (0, 1),
    }
    nat = {"direction": "reply", "tuple": {"source_port": 7}}
    found = {
        change.key: (change.before, change.after) for change in differences(from_document({**V4, "nat": nat}), actual)
    }
    assert found == {"nat.direction": (None, "reply"), "nat.tuple.source_port": (None, 7)}


@pytest.mark.parametrize(
    ("other", "overlaps"),
    [
        ({}, True),
        ({"tuple": {**T4, "source_port": 20}}, True),
        ({"tuple": without(T4, "source")}, True),
        ({"tuple": {**T4, "source": "192.0.2.22"}}, False),
        ({"tuple": {**T4, "source": "192.0.2.22"}, "mask": {"source": "255.255.255.0"}}, True),
        ({"tuple": {**T4, "destination_port": 4001}}, False),
        ({"tuple": {**T4, "protocol": "udp"}}, False),
        ({"zone": 1}, False),
    ],
)
def test_expectations_overlap_if_a_connection_can_match_both(other: Any, overlaps: bool) -> None:
    assert overlap(whole(), whole(**other)) is overlaps
    assert overlap(whole(**other), whole()) is overlaps


def test_expectation_is_described_by_its_tuple() -> None:
    assert describe(whole()) == "expectation of tcp 192.0.2.21 -> 10.1.0.2:4000"
    assert (
        describe(from_document({"tuple": without(T4, "source"), "zone": 5}))
        == "expectation of tcp ? -> 10.1.0.2:4000 (zone 5)"
    )
    assert describe(from_document({"tuple": {**T4, "source_port": 20}})).endswith("192.0.2.21:20 -> 10.1.0.2:4000")


# Matches


@pytest.mark.parametrize(
    ("match", "holds"),
    [
        ({"helper": "ftp"}, True),
        ({"helper": ["sip", "irc"]}, False),
        ({"family": "ipv4", "protocol": "tcp"}, True),
        ({"source": "192.0.2.0/24", "destination": "10.1.0.2"}, True),
        ({"source": "10.1.0.2"}, False),
        ({"address": "10.1.0.0/16"}, True),
        ({"destination_port": "4000-4001"}, True),
        ({"port": 21}, False),
        ({"zone": 5}, True),
        ({"zone": 0}, False),
        ({"timeout_below": 301, "timeout_above": 299}, True),
        ({"helper": "ftp", "except": {"destination_port": 4000}}, False),
        ([{"helper": "sip"}, {"protocol": "tcp"}], True),
        ({"master": {"destination_port": 21}}, True),
        ({"master": {"destination_port": 22}}, False),
        ({"protocol": "tcp", "except": {"master": {"destination_port": 21}}}, False),
    ],
)
def test_match_applies_to_the_expected_tuple(match: Any, holds: bool) -> None:
    found = {**whole(zone=5), "helper": "ftp", "timeout": 300}
    assert expectation.parse_match(match, LabelMap())(expectation.as_entry(found)) is holds


@pytest.mark.parametrize("key", sorted(set(vocabulary.KEYS) - set(MATCH_KEYS)))
def test_match_on_keys_that_expectations_lack_is_refused(key: str) -> None:
    value = {
        "state": "established",
        "nat": "any",
        "status": ["assured"],
        "status_not": ["assured"],
        "expected": True,
        "reply_source": "10.0.0.1",
        "reply_destination": "10.0.0.1",
        "reply_address": "10.0.0.1",
        "labels": [1],
        "labels_not": [1],
    }.get(key, 1)
    for match in (
        {key: value},
        [{"helper": "ftp"}, {key: value}],
        {"helper": "ftp", "except": {key: value}},
        json.dumps([{"helper": "ftp", "except": json.dumps({key: value})}]),
    ):
        with pytest.raises(InvalidValue, match=rf"{key}: an expectation has none; write one of family, protocol, zone"):
            expectation.parse_match(match, LabelMap())


# Requests


def answering(*answers: Any) -> Any:
    """Return a table with an answer for each request: an errno, 0 for an acknowledgement, or a payload."""
    waiting = list(answers)

    def respond(request: wire.Framed) -> list[fake_socket.Reply]:
        answer = waiting.pop(0)
        if isinstance(answer, bytes):
            return [wire.framed(0x0200, fake_socket.MULTI, request.sequence, answer), fake_socket.refusal(request, 0)]
        return [fake_socket.refusal(request, answer)]

    datagrams = fake_socket.FakeDatagrams(respond)
    return datagrams, Table(lambda: NetlinkSocket(datagrams))


READ = {"family": 2, "tuple.source": SERVER, "tuple.destination": CLIENT, "tuple.protocol": 6, "tuple.source_port": 0}
READ.update({"tuple.destination_port": 5000, "id": 0xC0FFEE})


def paths(request: wire.Framed) -> Any:
    return {path[0] for path in wire.flat(wire.tree(request.payload[4:]))}


def test_deletion_contains_tuple_zone_and_id() -> None:
    datagrams, table = answering(0)
    expectation.delete(table, {**READ, "zone": 5, "helper": "ftp", "timeout": 3})
    (request,) = datagrams.requests
    assert request.type == 0x0202
    assert paths(request) == {2, 5, 7}


def test_deletion_succeeds_if_the_kernel_compares_another_id() -> None:
    """Linux before 6.11 cannot find an expectation by the id that it shows."""
    datagrams, table = answering(errno.ENOENT, PAYLOAD, 0)
    expectation.delete(table, READ)
    assert [request.type & 0xFF for request in datagrams.requests] == [2, 1, 2]
    assert [5 in paths(request) for request in datagrams.requests] == [True, False, False]


@pytest.mark.parametrize("there", [errno.ENOENT, PAYLOAD.replace(u32(0xC0FFEE), u32(0xBAD))])
def test_deletion_does_not_remove_another_expectation(there: Any) -> None:
    datagrams, table = answering(errno.ENOENT, there)
    with pytest.raises(NotFound):
        expectation.delete(table, READ)
    assert len(datagrams.requests) == 2


def test_a_deletion_without_a_tuple_is_not_sent() -> None:
    datagrams, table = answering()
    for keyless in ({"family": 2, "id": 1}, {"family": 2, "helper": "ftp"}):
        with pytest.raises(InvalidValue, match="would be about every expectation"):
            expectation.delete(table, keyless)
    assert datagrams.requests == []


def test_flush_is_one_request_without_a_tuple() -> None:
    datagrams, table = answering(0)
    expectation.flush(table)
    (request,) = datagrams.requests
    assert (request.type, paths(request)) == (0x0202, set())


def test_update_contains_all_tuples_and_the_timeout() -> None:
    datagrams, table = answering(0)
    expectation.update(table, {**whole(flags=["permanent"], function="sip"), "timeout": 60, "id": 1})
    (request,) = datagrams.requests
    assert (request.type, request.flags & 0x700) == (0x0200, 0)
    assert paths(request) == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("code", "more", "expected_message"),
    [
        (errno.ENOENT, {}, "no connection with the tuple of its master"),
        (errno.EOPNOTSUPP, {}, "Its master has no helper"),
        (errno.EINVAL, {"class": 3}, r"\(EINVAL\). Perhaps the helper of its master has no class 3$"),
        (errno.EINVAL, {"function": "f"}, "Perhaps the kernel has no function 'f'"),
        (errno.EMFILE, {}, "nf_conntrack_expect_max"),
        (errno.EBUSY, {}, "Another expectation applies to some of the same"),
        (errno.EALREADY, {}, "Another expectation applies to some of the same"),
        (errno.ESHUTDOWN, {}, "Its master is about to end"),
        (errno.EPERM, {}, "CAP_NET_ADMIN"),
    ],
)
def test_refusal_has_an_explanation(code: int, more: dict[str, Any], expected_message: str) -> None:
    datagrams, table = answering(code)
    if code == errno.EINVAL:  # the client then checks whether the subsystem answers at all
        stats = wire.framed(0x0105, 0, 2, b"\0\0\0\0")
        datagrams.respond = lambda request: [fake_socket.refusal(request, code if request.type == 0x0200 else 0), stats]
    with pytest.raises(expectation.KernelError, match=expected_message) as refused:
        expectation.create(table, from_document({**V4, **more}))
    assert refused.value.errno == code
    assert isinstance(refused.value, TableFull) == (code == errno.EMFILE)
    assert "expectation of tcp 192.0.2.21 -> 10.1.0.2:4000" in str(refused.value)


def test_update_without_a_timeout_is_refused() -> None:
    datagrams, table = answering(0)
    with pytest.raises(expectation.InvalidValue, match="^timeout: is missing"):
        expectation.update(table, from_document(V4))
    assert datagrams.requests == []


def test_expectation_that_is_found_in_no_zone_is_omitted() -> None:
    """The expectation existed when the table was read, and has ended since then."""

    def respond(request: wire.Framed) -> list[fake_socket.Reply]:
        if request.flags & fake_socket.DUMP == fake_socket.DUMP:
            return [fake_socket.done(request)]
        return [fake_socket.refusal(request, errno.ENOENT)]

    with Table(lambda: NetlinkSocket(fake_socket.FakeDatagrams(respond))) as table:
        assert list(expectation.located(table, [READ, READ])) == []
        assert list(expectation.located(table, [{**READ, "zone": 3}])) == [{**READ, "zone": 3}]


def test_flags_have_the_kernels_numbers() -> None:
    assert expectation.FLAGS == {"permanent": 1, "inactive": 2, "userspace": 4}
    assert expectation.SETTABLE_FLAGS == uapi.NF_CT_EXPECT_PERMANENT | uapi.NF_CT_EXPECT_INACTIVE
