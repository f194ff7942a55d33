# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a scan finds every matching entry of a dump in any datagram, with as few requests as possible."""

from __future__ import annotations

import errno
import struct
from typing import Any, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils._operations.flush import DeletionPlan, flush
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.codec import ENTRIES
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.layout import LayoutCache, MessageLayout
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.deletions import DeleteRequests
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.sample import EntrySample
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.scan import (
    DumpDecoder,
    Entries,
    MessageSplitter,
    Rows,
    VisitorGroup,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.summary import Summary
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.top import Top
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import MalformedMessage
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.expression import ALWAYS, Term
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import parse_match
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.message import split
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.socket import (
    BATCH_SIZE,
    MAX_BATCH_SIZE,
    NetlinkSocket,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.reevaluate.flow import FlowKeys, Flows
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from ansible_collections.netops.conntrack.plugins.module_utils.client.table_reader import FEW
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.support import fake_socket, wire
from ansible_collections.netops.conntrack.tests.unit.support.strategies import (
    live_entries,
    matches,
    odd_messages,
    raw_entries,
)

tables = st.lists(st.one_of(live_entries(), raw_entries()), max_size=8)


def framed(entry: Any, flags: int = 2) -> bytes:
    return wire.framed(0x0100, flags, 1, struct.pack(">BBH", entry["family"], 0, 0) + ENTRIES.encode(entry))


def decoded(entry: Any) -> Any:
    """Decode the message of an entry."""
    return LayoutCache(ENTRIES).decode(framed(entry))


def scanned(datagrams: Iterable[bytes], where: Term = ALWAYS, layouts: LayoutCache | None = None) -> list[Any]:
    entries = Entries()
    scan = DumpDecoder(entries, where, layouts or LayoutCache(ENTRIES))
    for datagram in datagrams:
        assert scan.feed(datagram) == []
    return entries.found


@examples(60)
@given(tables, matches(), st.sampled_from([0, 1, 512]))
def test_matching_entries_are_found(table: list[Any], raw: Any, most: int) -> None:
    """The number of cached layouts does not matter; with none, the general decoder reads every message."""
    try:
        match = parse_match(raw)
        wanted = [entry for entry in map(decoded, table) if match(entry)]
    except ValueError:
        return
    layouts = LayoutCache(ENTRIES)
    layouts.most = most
    found = scanned([b"".join(map(framed, table)), *map(framed, table)], match.term, layouts)
    assert wire.unordered(found) == wire.unordered(wanted * 2)
    assert found[len(wanted) :] == wanted, "the order of datagrams is kept"


@examples(30)
@given(tables)
def test_rows_and_figures_equal_those_of_the_entries(table: list[Any]) -> None:
    datagram = b"".join(map(framed, table))
    entries, rows, summary, top, general, general_top = Entries(), Rows(), Summary(), Top(), Summary(), Top()
    DumpDecoder(VisitorGroup([entries, rows, summary, top]), layouts=LayoutCache(ENTRIES)).feed(datagram)
    assert [dict(zip(*row)) for row in rows.found] == entries.found
    assert wire.unordered(entries.found) == wire.unordered(map(decoded, table))
    for entry in entries.found:
        general.add(entry)
        general_top.add(entry)
    assert summary.as_document(3) == general.as_document(3)
    assert top.as_document(3) == general_top.as_document(3)


# groups of messages


def is_sound(payload: bytes) -> bool:
    """Return whether the general decoder can read a message."""
    try:
        ENTRIES.decode(payload, 4)
    except MalformedMessage:
        return False
    return True


#: An attribute that contains a malformed one: only the general decoder can read its message.
WITHOUT_LAYOUT = b"\2\0\0\0" + wire.attribute((0x8001,), struct.pack("=HH", 40, 1))
ALL = 1 << 16


@st.composite
def dumps(draw: Any) -> list[bytes]:
    """Draw the messages of a dump: many of few layouts, some with the same size, and some interrupted."""
    payloads = [WITHOUT_LAYOUT, *draw(st.lists(odd_messages().filter(is_sound), max_size=2))]
    for entry in draw(st.lists(live_entries(), min_size=1, max_size=2)):
        entry = {"mark": 0, "timeout": 0, **entry}
        # The second entry has the same length, but its protocol and zone are at other offsets
        for other in (entry, {**entry, "original.protocol": 136}):
            for number in range(3):
                varied = {**other, "mark": entry["mark"] ^ number, "timeout": entry["timeout"] ^ number >> 1}
                payloads.append(bytes([entry["family"], 0, 0, 0]) + ENTRIES.encode(varied))
    messages = st.tuples(st.sampled_from([2] * 9 + [0x12]), st.sampled_from(payloads))
    return [wire.framed(0x0100, flags, 1, payload) for flags, payload in draw(st.lists(messages, max_size=30))]


def visitors() -> list[Any]:
    return [Entries(), Rows(), Summary(), Top(), EntrySample(ALL, ALL)]


@examples(150)
@given(dumps(), st.sampled_from([1, 3, 64]), st.sampled_from([0, 2, 512]))
def test_a_group_of_messages_is_processed_as_each_of_them(
    messages: list[bytes], most: int, layouts_at_most: int
) -> None:
    """The number of messages can exceed the size of a group, and the number of layouts that of the cache, or be 0."""
    layouts = LayoutCache(ENTRIES)
    layouts.most = layouts_at_most
    together, one_by_one = visitors(), visitors()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MessageLayout, "most_messages", most)
        scan = DumpDecoder(VisitorGroup(together), layouts=layouts)
        others = [scan.feed(b"".join(messages)) for _twice in range(2)]
    for message in messages * 2:
        for visitor in one_by_one:
            visitor.add(layouts.decode(message))
    assert seen_by(together) == seen_by(one_by_one)
    interrupted = [message[16:] for message in messages if message[6] == 0x12]
    assert [sorted(message.payload for message in each) for each in others] == [sorted(interrupted)] * 2


def seen_by(visitors: list[Any]) -> list[Any]:
    entries, rows, summary, top, sample = visitors
    return [
        wire.unordered(entries.found),
        wire.unordered(dict(zip(*row)) for row in rows.found if "extra" not in row[0]),
        summary.as_document(9),
        top.as_document(9),
        sample.count,
        wire.unordered(sample.first),
        wire.unordered(sample.longest),
    ]


@examples(30)
@given(st.lists(live_entries(), max_size=4))
def test_flows_of_a_group_are_those_of_each_message(table: list[Any]) -> None:
    (together, keys), (one_by_one, general_keys) = ((Flows(), FlowKeys()) for _twice in range(2))
    DumpDecoder(VisitorGroup([together, keys]), layouts=LayoutCache(ENTRIES)).feed(b"".join(map(framed, table * 3)))
    for visitor in (one_by_one, general_keys):
        visitor.add_all(map(decoded, table * 3))

    def shown(flow: Any) -> str:
        return repr((id(flow.layout), flow.values, flow.has_master, sorted(flow.entry().items())))

    assert sorted(map(shown, together.found)) == sorted(map(shown, one_by_one.found))
    assert keys.found == general_keys.found == {flow[:2] for flow in together.found}


@examples(60)
@given(dumps(), matches())
def test_match_selects_the_same_entries_in_groups_and_one_by_one(messages: list[bytes], raw: Any) -> None:
    try:
        match = parse_match(raw)
        wanted = [entry for entry in map(LayoutCache(ENTRIES).decode, messages) if match(entry)]
    except ValueError:
        return
    entries = Entries()
    DumpDecoder(entries, match.term, LayoutCache(ENTRIES)).feed(b"".join(messages))
    assert wire.unordered(entries.found) == wire.unordered(wanted)


@examples(60)
@given(dumps(), st.data())
def test_truncated_datagram_is_malformed(messages: list[bytes], data: Any) -> None:
    """The decoder must also detect this if it has the lengths of the layout. A cut between two messages is valid."""
    whole = b"".join(messages)
    entries = Entries()
    scan = DumpDecoder(entries, layouts=LayoutCache(ENTRIES))
    for _known in range(2):
        end = data.draw(st.integers(0, len(whole)))
        entries.found.clear()
        try:
            expected = len(list(split(whole[:end])))
        except MalformedMessage:
            with pytest.raises(MalformedMessage):
                scan.feed(whole[:end])
            assert entries.found == []
        else:
            scan.feed(whole[:end])
            assert len(entries.found) == expected
        scan.feed(whole)


@examples(60)
@given(st.lists(st.one_of(st.binary(max_size=9), st.sampled_from([b"", b"1234", b"abcdefgh"])), max_size=30), st.data())
def test_datagram_is_split_equally_with_and_without_known_lengths(payloads: list[bytes], data: Any) -> None:
    splitter = MessageSplitter()
    for _known in range(3):
        some = data.draw(st.permutations(payloads))
        datagram = b"".join(wire.framed(0x0100, 2, 1, payload) for payload in some)
        assert splitter.split(datagram) == list(split(datagram))


@examples(40)
@given(st.lists(live_entries(), min_size=1, max_size=3), st.integers(1, 4))
def test_deletion_of_a_group_sends_the_requests_of_each_entry(table: list[Any], size: int) -> None:
    numbers = iter(range(100, 1 << 20, size))
    requests, general = (DeleteRequests(lambda _size: next(numbers), size) for _twice in range(2))
    table = [entry for entry in table for _number in range(5)]
    DumpDecoder(requests, layouts=LayoutCache(ENTRIES)).feed(b"".join(map(framed, table)))
    general.add_all(map(decoded, table))
    made, expected = requests.drain(last=True), general.drain(last=True)
    assert [batch.count for batch in made] == [batch.count for batch in expected]
    assert keys_in(made) == keys_in(expected)
    for batch in made:
        sent = list(wire.messages(batch.frames))
        assert [request.sequence for request in sent] == list(range(batch.first, batch.first + batch.count))
        assert [bool(request.flags & fake_socket.ACK) for request in sent] == [False] * (len(sent) - 1) + [True]


@st.composite
def dumps_of_different_entries(draw: Any) -> list[bytes]:
    """Entries of few layouts in any order, each with its own id and source. Some have no layout, some are alone."""
    messages: list[bytes] = []
    for entry in draw(st.lists(live_entries(), min_size=1, max_size=3)):
        source = entry["original.source"]
        for number in range(draw(st.integers(1, 9))):
            varied = {**entry, "id": number << 24 | len(messages), "original.source": source[:-1] + bytes([number])}
            payload = bytes([entry["family"], 0, 0, 0]) + ENTRIES.encode(varied)
            if draw(st.sampled_from([False] * 5 + [True])):
                payload += wire.attribute((0x8000 | 20,), struct.pack("=HH", 40, 1))
            messages.append(wire.framed(0x0100, 2, 1, payload))
    return draw(st.permutations(messages))


@examples(100)
@given(dumps_of_different_entries(), st.integers(1, 7), st.sampled_from([1, 2, 64]))
def test_each_entry_is_deleted_by_its_own_tuple_zone_and_id(messages: list[bytes], size: int, most: int) -> None:
    """The result does not depend on the other entries of the group or on the size of a batch."""
    first = iter(range(100, 1 << 20, size))
    made, general = (DeleteRequests(lambda _size: next(first), size) for _twice in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MessageLayout, "most_messages", most)
        DumpDecoder(made, layouts=LayoutCache(ENTRIES)).feed(b"".join(messages))
    general.add_all(map(LayoutCache(ENTRIES).decode, messages))
    batches = made.drain(last=True)
    assert keys_in(batches) == keys_in(general.drain(last=True))
    for batch in batches:
        sent = list(wire.messages(batch.frames))
        assert [request.sequence for request in sent] == list(range(batch.first, batch.first + batch.count))
        assert [request.flags for request in sent] == [1] * (len(sent) - 1) + [1 | fake_socket.ACK]


def test_an_entry_whose_last_attribute_is_not_padded_is_deleted() -> None:
    """The zone is an attribute of 6 bytes at the end of the message."""
    ends = {"original.source": bytes(4), "original.destination": bytes(4), "original.protocol": 17}
    payload = framed({"family": 2, **ends, "id": 7})[16:] + struct.pack("=HH", 6, 18) + b"\0\5"
    datagram = wire.padded(struct.pack("=LHHLL", 16 + len(payload), 0x0100, 2, 1, 0) + payload)
    requests = DeleteRequests(lambda _size: 1)
    DumpDecoder(requests, layouts=LayoutCache(ENTRIES)).feed(datagram * 2)
    (batch,) = requests.drain(last=True)
    assert [wire.tree(request.payload[4:])[18] for request in wire.messages(batch.frames)] == [b"\0\5"] * 2


def keys_in(batches: list[Any]) -> list[str]:
    requests = [request for batch in batches for request in wire.messages(batch.frames)]
    return sorted(repr((request.type, request.payload[:4], wire.tree(request.payload[4:]))) for request in requests)


# control messages, interrupted dumps and errors


def test_end_of_a_dump_is_returned() -> None:
    scan = DumpDecoder(Entries(), layouts=LayoutCache(ENTRIES))
    end = wire.framed(3, 2, 1, struct.pack("=i", 0))
    assert [message.type for message in scan.feed(framed({"family": 2, "mark": 1}) + end)] == [3]
    assert scan.feed(framed({"family": 2, "mark": 1})) == []


def test_interrupted_dump_is_reported_and_its_entries_are_found() -> None:
    entries = Entries()
    scan = DumpDecoder(entries, layouts=LayoutCache(ENTRIES))
    scan.feed(framed({"family": 2, "mark": 1}))
    (reported,) = scan.feed(framed({"family": 2, "mark": 2}, flags=0x12))
    assert reported.flags & 0x10
    assert [entry["mark"] for entry in entries.found] == [1, 2]


@pytest.mark.parametrize("datagram", [b"\0\0\0\0" * 5, struct.pack("=LHHLL", 400, 0x100, 2, 1, 0) + bytes(40)])
def test_invalid_message_is_an_error(datagram: bytes) -> None:
    with pytest.raises(MalformedMessage):
        scanned([framed({"family": 2, "mark": 1}) + datagram])


# requests


FLOWS_OF_A_DATAGRAM = 150
MATCHING = 1000


def flow(number: int, port: int) -> bytes:
    """Encode a UDP flow with an id of its own as a kernel sends it."""
    address = struct.pack(">I", 0x0A000000 + number)
    entry = {
        "family": 2,
        **{f"original.{key}": value for key, value in tuple_of(address, b"\xc0\0\2\1", 4000, port).items()},
        **{f"reply.{key}": value for key, value in tuple_of(b"\xc0\0\2\1", address, port, 4000).items()},
        "status": 8,
        "mark": 0,
        "timeout": 60,
        "id": number,
        "use": 1,
    }
    return b"\2\0\0\0" + ENTRIES.encode(entry)


def tuple_of(source: bytes, destination: bytes, source_port: int, destination_port: int) -> dict[str, Any]:
    return {
        "source": source,
        "destination": destination,
        "protocol": 17,
        "source_port": source_port,
        "destination_port": destination_port,
    }


def counted(request: wire.Framed, entries: int) -> bytes:
    """Return the kernel's answer to a request for the number of entries."""
    return wire.framed(0x0105, 2, request.sequence, bytes(4) + wire.attribute((1,), struct.pack(">I", entries)))


class Million(fake_socket.FakeDatagrams):
    """A table with a million flows, of which `MATCHING` go to port 53."""

    def __init__(self) -> None:
        super().__init__(fake_socket.acknowledge)
        each = [flow(number, 53 if number == 0 else 80) for number in range(FLOWS_OF_A_DATAGRAM)]
        self._other, self._with_one = (
            b"".join(wire.framed(0x0100, 2, 1, payload) for payload in flows) for flows in (each[1:] + each[1:2], each)
        )
        self._left = 0

    def send(self, datagram: bytes) -> None:
        (request, *_others) = wire.messages(datagram)
        if request.type == 0x0105:
            self.sent.append(datagram)
            self.waiting.extend([counted(request, 1_000_000), fake_socket.refusal(request, 0)])
        elif request.type == 0x0101:
            self.sent.append(datagram)
            self._left = 1_000_000 // FLOWS_OF_A_DATAGRAM
            self._end = fake_socket.done(request)
        else:
            super().send(datagram)

    def receive(self) -> bytes:
        if not self._left:
            return super().receive()
        self._left -= 1
        if not self._left:
            self.waiting.append(self._end)
        return self._with_one if self._left < MATCHING else self._other


@pytest.mark.parametrize("batch", [BATCH_SIZE, MAX_BATCH_SIZE])
def test_flush_in_a_large_table_is_one_dump_and_one_send_per_batch(batch: int) -> None:
    sockets: list[Million] = []

    def connect() -> NetlinkSocket:
        sockets.append(Million())
        if batch == MAX_BATCH_SIZE:
            sockets[-1].grow = lambda receive_buffer: 2 * receive_buffer  # type: ignore[method-assign]
        return NetlinkSocket(sockets[-1])

    with Table(connect) as table:
        match = parse_match({"family": "ipv4", "protocol": "udp", "destination_port": 53})
        result = flush(DeletionPlan(table, match))
    sent = [list(wire.messages(datagram)) for datagrams in sockets for datagram in datagrams.sent]
    dumps = [requests for requests in sent if requests[0].type == 0x0101]
    deletions = [requests for requests in sent if requests[0].type == 0x0102]
    assert result["flushed"] == MATCHING
    assert len(dumps) == 1
    assert len(deletions) == -(-MATCHING // batch)
    # The result and the receive buffer of the dump both need the number of entries
    assert [requests[0].type for requests in sent if requests not in dumps + deletions] == [0x0105, 0x0105]
    for requests in deletions:
        assert [bool(request.flags & fake_socket.ACK) for request in requests] == [False] * (len(requests) - 1) + [True]
        assert len({request.sequence for request in requests}) == len(requests)
        for request in requests:
            key = wire.tree(request.payload[4:])
            assert set(key) == {1, 12}, "the original tuple and the id, and so one entry and no other"


def dumped(respond: fake_socket.Respond, match: Any, entries: int = FEW) -> tuple[list[Any], list[wire.Framed]]:
    """Return the entries that a table finds for a match, and the requests that it sends."""
    requests: list[wire.Framed] = []

    def noted(request: wire.Framed) -> Iterable[fake_socket.Reply]:
        if request.type == 0x0105:
            return [counted(request, entries), fake_socket.refusal(request, 0)]
        requests.append(request)
        return respond(request)

    with Table(lambda: NetlinkSocket(fake_socket.FakeDatagrams(noted))) as table:
        return list(table.dump(where=parse_match(match).term)), requests


def test_match_of_both_families_is_one_dump_per_family() -> None:
    """The kernel compares ports only within a family, and a dump of all entries would take far longer."""

    def respond(request: wire.Framed) -> Iterable[fake_socket.Reply]:
        if request.payload[0] == 2:
            yield fake_socket.entry_message(request, flow(1, 53))
        yield fake_socket.done(request)

    found, requests = dumped(respond, {"protocol": "udp", "destination_port": 53})
    assert [entry["id"] for entry in found] == [1]
    assert [request.payload[0] for request in requests] == [2, 10]


def test_small_table_is_read_without_a_filter() -> None:
    def respond(request: wire.Framed) -> Iterable[fake_socket.Reply]:
        yield fake_socket.entry_message(request, flow(1, 53))
        yield fake_socket.entry_message(request, flow(2, 80))
        yield fake_socket.done(request)

    found, requests = dumped(respond, {"protocol": "udp", "destination_port": 53}, FEW - 1)
    assert [entry["id"] for entry in found] == [1]
    assert [request.payload for request in requests] == [b"\0\1\0\0"]


def test_dump_is_repeated_without_a_filter_that_the_kernel_refuses() -> None:
    def respond(request: wire.Framed) -> Iterable[fake_socket.Reply]:
        if len(request.payload) > 4:
            yield fake_socket.refusal(request, errno.EOPNOTSUPP)
            return
        yield fake_socket.entry_message(request, flow(1, 53))
        yield fake_socket.entry_message(request, flow(2, 80))
        yield fake_socket.done(request)

    found, requests = dumped(respond, {"family": "ipv4", "protocol": "udp", "destination_port": 53})
    assert [entry["id"] for entry in found] == [1]
    assert [len(request.payload) > 4 for request in requests] == [True, False]
    assert [request.payload[0] for request in requests] == [2, 2]


def test_another_refusal_is_an_error() -> None:
    datagrams = fake_socket.FakeDatagrams(lambda request: [fake_socket.refusal(request, errno.EPERM)])
    with Table(lambda: NetlinkSocket(datagrams)) as table, pytest.raises(Exception, match="CAP_NET_ADMIN"):
        list(table.dump(where=parse_match({"family": "ipv4", "protocol": "udp"}).term))
    assert len(datagrams.requests) == 1
