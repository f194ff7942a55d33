# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Netlink datagrams: entries, expectations, statistics, errors and ends of dumps."""

from __future__ import annotations

import errno
import json
import struct
import zlib
from typing import Any, Callable, Iterable

from ansible_collections.netops.conntrack.plugins.module_utils.client import statistics, timeout_policy, uapi
from ansible_collections.netops.conntrack.plugins.module_utils.client.bulk.columns import batches
from ansible_collections.netops.conntrack.plugins.module_utils.client.bulk.records import records
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.codec import ENTRIES
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.layout import LayoutCache
from ansible_collections.netops.conntrack.plugins.module_utils.client.ctnetlink import messages
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.sample import EntrySample
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.scan import (
    DumpDecoder,
    Entries,
    VisitorGroup,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.summary import Summary
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.top import Top
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.creation import creation
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document, to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import describe, identity
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import (
    ConntrackError,
    InvalidValue,
    MalformedMessage,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.events.subscription import parse_event
from ansible_collections.netops.conntrack.plugins.module_utils.client.expectation import expectation
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import parse_match
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink import message as netlink
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.message import Message, frame
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.socket import NetlinkSocket
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from ansible_collections.netops.conntrack.tests.fuzz.guard import Violation, check_equal, named
from ansible_collections.netops.conntrack.tests.unit.support import corpus, fake_socket, wire

Result = Any
#: More entries than any input contains.
MANY = 1 << 16

FLOW = {"source": "10.0.0.1", "destination": "10.0.0.2", "source_port": 1, "destination_port": 2}
ENTRY = creation(from_document({"protocol": "udp", "original": FLOW}))
WHERE = parse_match({"protocol": "udp", "source": "10.0.0.0/8", "port": 1}).where
MATCHES = [
    parse_match(match)
    for match in ({"address": "10.0.0.0/8"}, {"port": 1}, {"nat": "any"}, {"state": "established"}, {"labels": [1]})
]

#: Requests of a client. `run` passes the datagram to one of them as the answer.
WORKS: tuple[Callable[[Table], Any], ...] = (
    lambda table: table.create(ENTRY),
    lambda table: table.get(ENTRY),
    lambda table: table.delete(ENTRY),
    lambda table: list(table.create_all([ENTRY] * 3)),
    lambda table: list(table.find_by_tuples([ENTRY] * 3)),
    lambda table: list(table.dump()),
    lambda table: list(table.dump(where=WHERE)),
    lambda table: list(table.rows()),
    lambda table: table.scan(VisitorGroup([Summary(), Top()])),
    lambda table: table.statistics(),
    lambda table: table.statistics_per_cpu(),
    lambda table: table.expectation_statistics_per_cpu(),
    lambda table: list(expectation.located(table, expectation.read_all(table))),
    lambda table: list(timeout_policy.read_all(table)),
    lambda table: timeout_policy.defaults(table, uapi.IPPROTO_UDP),
)
_PARSERS: tuple[Callable[[Message], Any], ...] = (
    messages.parse_entry,
    statistics.parse_global,
    statistics.parse_per_cpu,
    statistics.parse_expectations_per_cpu,
    expectation.parse_expectation,
    timeout_policy.parse_policy,
    parse_event,
)
_DUMP = 0x300


def run(data: bytes) -> None:
    """Run every operation of the client that reads a datagram, and check the results."""
    found = []
    with named(MalformedMessage):
        for _sequence, message in netlink.parse(data):
            found.append(message)
    for message in found:
        for read in _PARSERS:
            with named(MalformedMessage):
                read(message)
    entries = [message for message in found if message.type == 0x0100]
    check_layouts([frame(message, 0) for message in entries])
    for message in entries:
        with named(MalformedMessage):
            check_shown(messages.parse_entry(message))
    for message in found:
        if message.type == 0x0200:
            with named(MalformedMessage):
                check_expectation(expectation.parse_expectation(message))
    check_answer(data, WORKS[zlib.crc32(data) % len(WORKS)])


def result_of(read: Callable[[], Result]) -> Result:
    """Return the result of a decoder, or `"malformed"`."""
    try:
        return read()
    except MalformedMessage:
        return "malformed"


def generally(framed: bytes) -> Result:
    """Decode a message, with its netlink header, by the general decoder."""
    return result_of(lambda: {**ENTRIES.decode(framed, uapi.NFNL_HDRLEN), "family": framed[uapi.NLMSG_HDRLEN]})


def by_layout(layouts: LayoutCache, framed: bytes) -> Result:
    """Decode the same message by layouts."""

    def read() -> Result:
        layout = layouts.of(framed)
        return layouts.decode(framed) if layout is None else layout.entry(framed)

    return result_of(read)


def _layouts_of_samples() -> LayoutCache:
    """Return the layouts of the samples. No layout is added, so that results do not depend on earlier inputs."""
    layouts = LayoutCache(ENTRIES)
    for sample in corpus.ANSWERS:
        layouts.of(wire.framed(0x0100, 2, 0, sample.data))
    layouts.most = 0
    return layouts


_LAYOUTS = _layouts_of_samples()


def check_layouts(framed: list[bytes]) -> None:
    """Check that three decoders agree: the layouts of the samples, those of these messages, and the general decoder."""
    framed = [data for data in framed if len(data) >= uapi.NFNL_HDRLEN]
    own = LayoutCache(ENTRIES)
    for data in framed:
        expected = generally(data)
        for layouts in (own, _LAYOUTS):
            check_equal(by_layout(layouts, data), expected, "a layout and the general decoder differ")
    scanned, general = _visitors(), _visitors()
    sound = [data for data in framed if generally(data) != "malformed"]
    DumpDecoder(VisitorGroup(scanned), layouts=LayoutCache(ENTRIES)).feed(b"".join(sound))
    for data in sound:
        for visitor in general:
            visitor.add(generally(data))
    check_equal(_counted(scanned), _counted(general), "a scan and the general decoder differ")


def _visitors() -> list[Any]:
    return [Summary(), Top(), EntrySample(MANY, MANY), Entries()]


def _counted(visitors: list[Any]) -> list[Any]:
    summary, top, census, entries = visitors
    collected = map(wire.unordered, (census.first, census.longest, entries.found))
    return [summary.as_document(9), top.as_document(9), census.count, *collected]


def check_shown(entry: Any) -> None:
    """Check that an entry of any kernel can be named, shown, matched and recorded."""
    hash(identity(entry))
    describe(entry)
    json.dumps(to_document(entry)).encode()
    for match in MATCHES:
        with named(InvalidValue):
            match(entry)
    with named(ConntrackError):
        for batch in batches([(tuple(entry), tuple(entry.values()))] * 5):
            list(records(batch))


def check_expectation(found: Any) -> None:
    """Check that an expectation of any kernel can be named and shown."""
    hash(expectation.identity(found))
    expectation.describe(found)
    json.dumps(expectation.to_document(found)).encode()


def check_answer(data: bytes, work: Callable[[Table], Any]) -> None:
    """Check that a client that receives the datagram as its answer returns a result or raises a named error."""

    def respond(request: wire.Framed) -> Iterable[fake_socket.Reply]:
        yield answering(data, request.sequence)
        yield fake_socket.done(request) if request.flags & _DUMP == _DUMP else fake_socket.refusal(request, 0)

    with named(ConntrackError), Table(lambda: NetlinkSocket(fake_socket.FakeDatagrams(respond))) as table:
        work(table)


def answering(data: bytes, sequence: int) -> bytes:
    """Return the same datagram with this sequence number in each message that its lengths lead to."""
    answer, start = bytearray(data), 0
    while start + netlink.HEADER.size <= len(answer):
        struct.pack_into("=I", answer, start + 8, sequence)
        length = struct.unpack_from("=I", answer, start)[0]
        if length < netlink.HEADER.size:
            break
        start += length + 3 & ~3
    return bytes(answer)


def samples() -> dict[str, bytes]:
    """Return datagrams as kernels send them."""
    request = wire.Framed(0x0101, _DUMP, 7, b"")
    found = {sample.name: wire.framed(0x0100, 2, 7, sample.data) for sample in corpus.ANSWERS}
    several = [data for data in found.values() if len(data) < 300]
    found["dump"] = b"".join(several[:2] + several[:1]) + fake_socket.done(request)
    expected = expectation.from_document(
        {
            "tuple": {"source": "10.0.0.1", "destination": "10.0.0.2", "protocol": "tcp", "destination_port": 2000},
            "master": {**FLOW, "protocol": "tcp"},
            "helper": "ftp",
        }
    )
    payload = struct.pack(">BBH", 2, 0, 0) + expectation.create_message(expected).payload[4:]
    found["expectation"] = wire.framed(0x0200, 2, 7, payload)
    counts = b"".join(wire.attribute((number,), struct.pack(">I", number)) for number in range(1, 12))
    found["statistics"] = wire.framed(0x0105, 0, 7, b"\0\0\0\0" + counts[:16])
    found["per_cpu"] = wire.framed(0x0104, 2, 7, b"\0\0\0\1" + counts) + wire.framed(0x0202, 2, 7, b"\0\0\0\1" + counts)
    found["policy"] = wire.framed(
        0x0800,
        2,
        7,
        b"\0\0\0\0"
        + wire.attribute((1,), b"long\0")
        + wire.attribute((2,), b"\x08\x00")
        + wire.attribute((3,), b"\x11")
        + wire.attribute((4, 1), struct.pack(">I", 30))
        + wire.attribute((5,), struct.pack(">I", 1)),
    )
    found["error"] = fake_socket.refusal(request, errno.EINVAL)
    found["capped"], found["uncapped"] = corpus.CAPPED, corpus.UNCAPPED
    found["done"] = fake_socket.done(request) + fake_socket.done(request, errno.EPERM)
    if not all(list(netlink.parse(data)) for data in found.values()):
        raise Violation("a sample is not a datagram")
    return found
