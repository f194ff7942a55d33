# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the event filter in the kernel, because no listener receives an event that it drops by mistake."""

from __future__ import annotations

import struct
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.codec import ENTRIES
from ansible_collections.netops.conntrack.plugins.module_utils.client.ctnetlink.messages import nfgenmsg, parse_entry
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import Entry
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.bpf import ProgramTooLong, compile_filter
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import EVERYTHING, parse_match
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.message import Message
from ansible_collections.netops.conntrack.tests.unit.support import classic_bpf, corpus, strategies, wire

NEW, DESTROY = 0x0100, 0x0102
CREATED = 0x600

#: Keys that a program can evaluate completely.
EXACT = (
    "family protocol zone original_zone reply_zone source destination reply_source reply_destination address "
    "reply_address master "
    "source_port destination_port reply_source_port reply_destination_port port icmp_type icmp_code icmp_id "
    "source_key destination_key mark state nat status status_not expected"
).split()
#: Keys that the kernel includes only in some events.
SOMETIMES = ("mark", "timeout", "tcp.", "sctp.", "dccp.", "helper", "labels", "master.", "sequence", "synproxy")


def possible(raw: Any) -> bool:
    try:
        parse_match(raw)
    except InvalidValue:
        return False
    return True


exact_keys = st.lists(st.sampled_from(EXACT), min_size=1, max_size=3, unique=True)


@st.composite
def exact_ones(draw: Any) -> dict[str, Any]:
    return {key: draw(strategies.MATCH_VALUES[key]) for key in draw(exact_keys)}


@st.composite
def exact_matches(draw: Any) -> Any:
    one = draw(exact_ones())
    if draw(st.booleans()):
        one["except"] = draw(strategies.some(exact_ones()))
    return draw(st.sampled_from([one, [one, draw(exact_ones())]]))


@st.composite
def events(draw: Any) -> bytes:
    """Draw the kernel's message for an event, without some of the attributes that it does not always include."""
    entry = draw(st.one_of(strategies.live_entries(), strategies.live_entries(), strategies.raw_entries()))
    omitted = draw(st.lists(st.sampled_from(SOMETIMES), unique=True))
    shown = {key: value for key, value in entry.items() if not key.startswith(tuple(omitted) or ("-",))}
    kind, flags = draw(st.sampled_from([(NEW, CREATED), (NEW, 0), (DESTROY, 0)]))
    return framed(shown, kind, flags)


def framed(entry: Entry, kind: int = NEW, flags: int = CREATED) -> bytes:
    return wire.framed(kind, flags, 0, nfgenmsg(entry["family"]) + ENTRIES.encode(entry))


def decoded(datagram: bytes) -> Entry:
    (message,) = wire.messages(datagram)
    return parse_entry(Message(message.type, message.flags, message.payload))


def compiled(raw: Any) -> bytes:
    program = compile_filter(parse_match(raw).term)
    classic_bpf.check(program)
    return program


@pytest.fixture(autouse=True)
def _now() -> Any:
    with mock.patch("time.time_ns", return_value=strategies.NOW):
        yield


class TestRandom:
    @given(events(), strategies.matches().filter(possible))
    def test_no_matching_event_is_dropped(self, event: bytes, raw: Any) -> None:
        try:
            wanted = parse_match(raw)(decoded(event))
        except InvalidValue:  # the event has no counters
            return
        assert classic_bpf.run(compiled(raw), event) or not wanted

    @given(events(), exact_matches().filter(possible))
    def test_only_matching_events_pass(self, event: bytes, raw: Any) -> None:
        assert classic_bpf.run(compiled(raw), event) == parse_match(raw)(decoded(event))

    @given(events(), exact_ones().filter(possible))
    def test_except(self, event: bytes, raw: Any) -> None:
        every = {"family": ["ipv4", "ipv6"], "except": raw}
        assert classic_bpf.run(compiled(every), event) != classic_bpf.run(compiled(raw), event)

    @given(strategies.matches().filter(possible), st.sampled_from([0x0200, 0x0202, 0x0201]), st.binary(max_size=64))
    def test_expectations_pass(self, raw: Any, kind: int, payload: bytes) -> None:
        assert classic_bpf.run(compiled(raw), wire.framed(kind, 0, 0, payload))


class TestRealMessages:
    @given(exact_matches().filter(possible))
    def test_of_a_kernel(self, raw: Any) -> None:
        for sample in corpus.ANSWERS:
            event = wire.framed(NEW, 0, 0, sample.data)
            assert classic_bpf.run(compiled(raw), event) == parse_match(raw)(decoded(event)), sample.name

    @pytest.mark.parametrize("sample", corpus.ANSWERS, ids=[sample.name for sample in corpus.ANSWERS])
    def test_by_all_of_its_tuples(self, sample: corpus.Sample) -> None:
        document = sample.document
        original, reply = document["original"], document["reply"]
        raw = {
            "family": document["family"],
            "protocol": document["protocol"],
            **{key: original[key] for key in original if key != "zone"},
            **{f"reply_{key}": reply[key] for key in ("source", "destination", "source_port") if key in reply},
        }
        event = wire.framed(NEW, 0, 0, sample.data)
        assert classic_bpf.run(compiled(raw), event)
        assert not classic_bpf.run(compiled({**raw, "except": {"source": original["source"]}}), event)


def udp(port: int = 53, **more: Any) -> dict[str, Any]:
    ends = {"source": "10.0.0.1", "destination": "10.0.0.2", "source_port": 4000, "destination_port": port}
    return {"protocol": "udp", "original": ends, **more}


GRE = {
    "protocol": "gre",
    "original": {"source": "10.0.0.1", "destination": "10.0.0.2", "source_key": 53, "destination_key": 53},
}
ECHO = {
    "protocol": "icmp",
    "original": {"source": "10.0.0.1", "destination": "10.0.0.2", "icmp_type": 8, "icmp_code": 0, "icmp_id": 53},
}
IPV6 = {
    "protocol": "udp",
    "original": {
        "source": "2001:db8::ffff:ffff",
        "destination": "2001:db8:0:1::",
        "source_port": 1,
        "destination_port": 53,
    },
}


@pytest.mark.parametrize(
    ("raw", "document", "passes"),
    [
        ({"port": 53}, udp(), True),
        ({"port": "50-53"}, udp(), True),
        ({"port": "54-60"}, udp(), False),
        ({"port": "0-65535"}, GRE, False),
        ({"destination_key": 53}, GRE, True),
        ({"source_key": "0-65535"}, udp(), False),
        ({"port": "0-65535"}, ECHO, False),
        ({"icmp_id": 53}, ECHO, True),
        ({"icmp_type": 8}, udp(), False),
        ({"mark": 0}, udp(), True),
        ({"mark": "0/0xff"}, udp(mark=0x100), True),
        ({"mark": "0x80000000/0x80000000"}, udp(mark=0xFFFFFFFF), True),
        ({"mark": [1, 0xFFFFFFFF]}, udp(mark=0xFFFFFFFF), True),
        ({"mark": 1}, udp(), False),
        ({"zone": 0}, udp(), True),
        ({"zone": 0}, udp(zone=1), False),
        ({"zone": 65535}, udp(zone=65535), True),
        ({"original_zone": 0}, {**udp(), "original": {**udp()["original"], "zone": 3}}, False),
        ({"original_zone": 3}, {**udp(), "original": {**udp()["original"], "zone": 3}}, True),
        ({"reply_zone": 0}, {**udp(), "original": {**udp()["original"], "zone": 3}}, True),
        ({"zone": 3}, {**udp(), "original": {**udp()["original"], "zone": 3}}, False),
        ({"source": "0.0.0.0/0"}, udp(), True),
        ({"source": "0.0.0.0/0"}, IPV6, False),
        ({"source": "::/0"}, IPV6, True),
        ({"source": "2001:db8::/64"}, IPV6, True),
        ({"source": "2001:db8::-2001:db8::ffff:fffe"}, IPV6, False),
        ({"source": "2001:db8::1-2001:db8::1:0:0"}, IPV6, True),
        ({"destination": "2001:db8:0:0:ffff::-2001:db8:0:1::"}, IPV6, True),
        ({"destination": "2001:db8:0:0:ffff::-2001:db8:0:0:ffff:ffff::"}, IPV6, False),
        ({"state": "none"}, udp(), False),
        ({"labels": [1]}, udp(), True),  # the program cannot evaluate labels
        ({"labels": "0x1/0xff"}, udp(), True),
        ({"except": {"labels": [1]}, "port": 53}, udp(), True),  # the same applies to an exception
        ({"except": {"labels": [1], "port": 54}, "port": 53}, udp(), True),
        ({"except": [{"port": 53}, {"labels": [1]}], "protocol": "udp"}, udp(), False),
    ],
)
def test_an_event(raw: Any, document: Any, passes: bool) -> None:
    entry = from_document(document)
    event = framed({**entry, **{k.replace("original", "reply"): v for k, v in entry.items() if "original" in k}})
    if "zone" in document["original"]:
        event = framed(entry)
    assert classic_bpf.run(compiled(raw), event) is passes


class TestLength:
    def test_common_matches_have_short_programs(self) -> None:
        """A filter for a port or a network must be short, because the kernel runs it for every event of the host."""
        assert len(compiled({"protocol": "tcp", "destination_port": 443})) // 8 <= 45
        assert len(compiled({"source": "10.0.0.0/8"})) // 8 <= 20
        assert len(compiled({"source": "2001:db8::/32"})) // 8 <= 20

    @pytest.mark.parametrize("count", [90, 256, 300, 1000])
    def test_jumps_farther_than_eight_bits(self, count: int) -> None:
        ports = [2 * port for port in range(count)]
        program = compiled({"destination_port": ports, "except": {"source_port": ports[::2], "protocol": "tcp"}})
        for port, passes in ((0, True), (2 * count - 2, True), (1, False), (2 * count, False)):
            assert classic_bpf.run(program, framed(from_document(udp(port)))) is passes

    def test_blocks(self) -> None:
        blocks = [f"10.{number}.0.0/16" for number in range(0, 256, 2)] + [f"2001:db8:{n}::/48" for n in range(200)]
        program = compiled({"source": blocks})
        for source, passes in (("10.254.1.1", True), ("10.255.1.1", False), ("10.0.255.255", True)):
            event = framed(
                from_document({**udp(), "original": {**udp()["original"], "source": source, "destination": "9.9.9.9"}})
            )
            assert classic_bpf.run(program, event) is passes

    def test_longest(self) -> None:
        ports = list(range(0, 8200, 2))
        compiled({"destination_port": ports[:4030]})
        with pytest.raises(ProgramTooLong, match="the kernel accepts 4096"):
            compiled({"destination_port": ports[:4090]})

    def test_too_long(self) -> None:
        with pytest.raises(ProgramTooLong, match="the kernel accepts 4096"):
            compile_filter(parse_match({"port": list(range(5000))}).term)

    def test_everything(self) -> None:
        program = compile_filter(EVERYTHING.term)
        classic_bpf.check(program)
        assert classic_bpf.run(program, framed(from_document(udp())))


class TestInterpreter:
    """Test the interpreter itself: it must treat truncated messages as the kernel does."""

    FIND = struct.pack("=HBBI", 0x00, 0, 0, 20) + struct.pack("=HBBI", 0x01, 0, 0, 3)
    LOAD = struct.pack("=HBBI", 0x20, 0, 0, classic_bpf.NLATTR)
    FOUND = struct.pack("=HBBIHBBIHBBI", 0x15, 0, 1, 0, 0x06, 0, 0, 0, 0x06, 0, 0, 1)

    @pytest.mark.parametrize(
        ("attributes", "found"),
        [
            (b"", False),
            (struct.pack("=HHI", 8, 3, 0), True),
            (struct.pack("=HHI", 8, 0x8003, 0), True),
            (struct.pack("=HHI", 12, 3, 0), False),
            (struct.pack("=HHIHHI", 8, 1, 0, 8, 3, 0), True),
            (struct.pack("=HHIHHI", 3, 1, 0, 8, 3, 0), False),
        ],
    )
    def test_find(self, attributes: bytes, found: bool) -> None:
        message = wire.framed(NEW, 0, 0, bytes(4) + attributes)
        assert classic_bpf.run(self.FIND + self.LOAD + self.FOUND, message) is found
