# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the requests and errors of each table operation with a fake kernel that holds a list of entries."""

from __future__ import annotations

import errno
import itertools
import threading
import time
from typing import Any, Iterable

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client import errors
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.codec import ENTRIES as ENTRY_CODEC
from ansible_collections.netops.conntrack.plugins.module_utils.client.ctnetlink import messages, requests
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.scan import Entries
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.creation import creation
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import identity
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.tuple import default_reply
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import (
    InvalidValue,
    NotPermitted,
    Unsupported,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.expression import And, InRanges, Term
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.error import ErrorReply
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.message import Message
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.socket import (
    BATCH_SIZE,
    DumpInterrupted,
    NetlinkSocket,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from ansible_collections.netops.conntrack.plugins.module_utils.client.table_reader import to_kernel_error
from ansible_collections.netops.conntrack.tests.unit.support import corpus, fake_socket, wire
from ansible_collections.netops.conntrack.tests.unit.support.fake_socket import FakeDatagrams, FakeKernel, Reply

SAMPLES = [sample.data for sample in corpus.ANSWERS]
ENTRIES = [messages.parse_entry(Message(0x100, 0, data)) for data in SAMPLES]


def udp(port: int, **keys: Any) -> Any:
    ends = {"source": "10.0.0.1", "destination": "10.0.0.2", "source_port": port, "destination_port": 53}
    return from_document({"protocol": "udp", "original": ends, **keys})


def table_over(respond: fake_socket.Respond) -> Table:
    return Table(lambda: NetlinkSocket(FakeDatagrams(respond)))


@pytest.mark.parametrize("entry", ENTRIES, ids=[sample.name for sample in corpus.ANSWERS])
def test_every_entry_can_be_read_and_deleted_without_another(entry: Any) -> None:
    kernel = FakeKernel(*SAMPLES)
    table = kernel.table()
    assert table.get(entry) == entry
    table.delete(entry)
    with pytest.raises(errors.NotFound, match="^reading "):
        table.get(entry)
    left = [messages.parse_entry(Message(0x100, 0, data)) for data in kernel.entries]
    assert left == [other for other in ENTRIES if identity(other) != identity(entry)]


def test_get_does_not_return_an_entry_by_its_reply_tuple() -> None:
    there = creation(udp(1000))
    kernel = FakeKernel(requests.CREATE.message(there).payload)
    mirrored = {
        **{key: value for key, value in there.items() if not key.startswith(("original.", "reply."))},
        **{key.replace("reply.", "original."): value for key, value in default_reply(there).items()},
    }
    with pytest.raises(errors.NotFound):
        kernel.table().get(mirrored)
    assert identity(kernel.table().find_by_tuple(mirrored)) == identity(there)
    assert identity(kernel.table().find_by_tuple(there, "reply")) == identity(there)


def test_an_entry_of_another_zone_is_another_entry() -> None:
    kernel = FakeKernel(requests.CREATE.message(creation(udp(1000, zone=5))).payload)
    with pytest.raises(errors.NotFound):
        kernel.table().get(udp(1000))
    assert kernel.table().get(udp(1000, zone=5))["zone"] == 5


def test_entry_with_another_id_is_not_deleted() -> None:
    kernel = FakeKernel(SAMPLES[0])
    with pytest.raises(errors.NotFound):
        kernel.table().delete({**ENTRIES[0], "id": ENTRIES[0]["id"] ^ 1})
    assert kernel.entries == [SAMPLES[0]]


def test_create_and_put() -> None:
    kernel = FakeKernel()
    table = kernel.table()
    table.create(udp(1000))
    with pytest.raises(errors.Exists, match=r"^creating udp 10\.0\.0\.1:1000 -> 10\.0\.0\.2:53: .*EEXIST"):
        table.create(udp(1000))
    table.create_or_update(udp(1000))
    assert len(kernel.entries) == 1
    table.update(udp(1000))
    with pytest.raises(errors.NotFound, match="^updating "):
        table.update(udp(1001))
    assert table.get(udp(1000))["timeout"] == 120


def test_put_keeps_the_flags_of_an_existing_tcp_entry() -> None:
    kernel = FakeKernel()
    table = kernel.table()
    tcp = {**udp(1000), "original.protocol": 6}
    for _time in ("created", "updated"):
        table.create_or_update(tcp)
    made, refused_, updated = (wire.tree(request.payload[4:]) for request in kernel.requests)
    assert made == refused_
    assert made[4][1][4] == made[4][1][5] == b"\x0a\xff"
    assert 4 not in updated
    table.create_or_update({**tcp, "tcp.original.flags": 0, "tcp.reply.flags": 8})
    assert wire.tree(kernel.requests[-1].payload[4:])[4][1] == {4: b"\0\xff", 5: b"\x08\xff"}
    assert len(kernel.requests) == 4


def test_dump_reads_one_family_or_both() -> None:
    table = FakeKernel(*SAMPLES).table()
    assert list(table.dump()) == ENTRIES
    for family in (2, 10):
        assert list(table.dump(family)) == [entry for entry in ENTRIES if entry["family"] == family]


def test_changes_can_be_made_during_a_dump() -> None:
    kernel = FakeKernel(*SAMPLES)
    table = kernel.table()
    for entry in table.dump():
        table.delete(entry)
    assert kernel.entries == []
    assert len(kernel.sockets) == 2, "the dump has a socket of its own"
    assert kernel.sockets[1].closed
    table.close()
    assert kernel.sockets[0].closed


def test_abandoned_dump_closes_its_socket() -> None:
    kernel = FakeKernel(*SAMPLES)
    with kernel.table() as table:
        reading = table.dump()
        next(reading)
        del reading
    assert all(datagrams.closed for datagrams in kernel.sockets)


def test_a_scan_calls_back_after_each_datagram() -> None:
    """A flush deletes the entries found so far in this call."""
    visitor, seen = Entries(), []
    with FakeKernel(*SAMPLES).table() as table:
        table.scan(visitor, between=lambda: seen.append(len(visitor.found)))
    assert visitor.found == ENTRIES
    assert seen == [*range(1, len(ENTRIES) + 1), len(ENTRIES)], "one entry in each datagram, and the end in the last"


@pytest.mark.parametrize("error", [errors.NotFound("reading", errno.ENOENT), KeyboardInterrupt(), SystemExit(1)])
@pytest.mark.parametrize("where", [None, InRanges(("family",), ((2, 2),))])
def test_a_scan_that_is_ended_by_its_caller_closes_its_socket(error: BaseException, where: Term | None) -> None:
    """The socket must close even if the traceback refers to the scan, and also in the thread that reads ahead."""
    entries = [creation(udp(port)) for port in range(1, 100)]
    kernel = FakeKernel(*(b"\2\0\0\0" + ENTRY_CODEC.encode(entry) for entry in entries))
    threads = threading.active_count()
    steps = itertools.count()

    def stop() -> None:
        if next(steps) == 12:
            raise error

    with kernel.table() as table:
        with pytest.raises(error.__class__) as caught:
            table.scan(Entries(), where, between=stop)
        assert caught.value is error
        assert [datagrams.closed for datagrams in kernel.sockets] == [False, True]
        assert threading.active_count() == threads
        assert len(list(table.dump())) == len(entries)


@pytest.mark.parametrize("count", [0, 1, BATCH_SIZE, 3 * BATCH_SIZE + 1])
def test_many_entries_take_one_send_per_batch(count: int) -> None:
    kernel = FakeKernel()
    table = kernel.table()
    entries = [creation(udp(port)) for port in range(1, count + 1)]
    batches = -(-count // BATCH_SIZE)
    for work in (table.create_all, table.update_all, table.delete_all):
        kernel.sockets[0].sent.clear()
        assert list(work(entries)) == [None] * count
        assert len(kernel.sockets[0].sent) == batches
    assert kernel.entries == []


def test_errors_name_their_entry_and_do_not_stop_the_others() -> None:
    kernel = FakeKernel()
    entries = [creation(udp(port)) for port in (1, 2, 1, 3)]
    results = list(kernel.table().create_all(entries))
    assert [type(result) for result in results] == [type(None), type(None), errors.Exists, type(None)]
    assert str(results[2]).startswith("creating udp 10.0.0.1:1 -> 10.0.0.2:53: ")
    assert len(kernel.entries) == 3
    gone = list(kernel.table().delete_all([udp(9), *entries[:2]]))
    assert [type(result) for result in gone] == [errors.NotFound, type(None), type(None)]


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOBUFS, errors.Overrun), (errno.ETIMEDOUT, errors.ResultUnknown)])
def test_lost_answer_is_reported_with_its_entry(code: int, kind: type[Exception]) -> None:
    table = table_over(lambda request: [OSError(code, "lost")])
    for work, doing in (
        (table.create, "creating"),
        (table.create_or_update, "creating or updating"),
        (table.update, "updating"),
        (table.delete, "deleting"),
        (table.get, "reading"),
    ):
        with pytest.raises(kind, match=f"^{doing} udp 10.0.0.1:7 "):
            work(udp(7))
    (result,) = table.create_all([creation(udp(7))])
    assert result.__class__ is kind
    assert str(result).startswith("creating udp 10.0.0.1:7 ")
    for read in (lambda: list(table.dump()), table.count, table.statistics_per_cpu):
        with pytest.raises(kind):
            read()


def test_attribute_of_an_error_is_named_as_in_the_document() -> None:
    names = {
        1: "original",
        2: "reply",
        3: "status",
        4: "tcp",
        7: "timeout",
        8: "mark",
        18: "zone",
        22: "labels",
        99: "99",
    }
    for number, name in names.items():
        error = to_kernel_error("creating x", ErrorReply(errno.ERANGE, "bad", number))
        assert error.attribute == name
        assert f" at {name}; the kernel reports: bad" in str(error)
    table = table_over(lambda request: [corpus.CAPPED])
    ((_unused, request),) = [(m.sequence, m) for m in wire.messages(corpus.REFUSED)]
    entry = messages.parse_entry(Message(0x100, 0, request.payload))
    with pytest.raises(errors.KernelError) as caught:
        table.create(entry)
    assert caught.value.text == "Attribute failed policy validation"


def test_missing_permission_is_reported_with_advice() -> None:
    table = table_over(lambda request: [fake_socket.refusal(request, errno.EPERM)])
    for work in (lambda: table.create(udp(1)), table.count, lambda: list(table.dump())):
        with pytest.raises(errors.NotPermitted, match="CAP_NET_ADMIN"):
            work()


def test_missing_ctnetlink_is_reported_with_advice() -> None:
    table = table_over(lambda request: [fake_socket.refusal(request, errno.EINVAL)])
    for work in (table.count, table.statistics_per_cpu, lambda: list(table.dump()), lambda: list(table.dying())):
        with pytest.raises(errors.Unavailable, match="modprobe nf_conntrack_netlink"):
            work()


def test_interrupted_dump_is_an_error() -> None:
    def respond(request: wire.Framed) -> Iterable[Reply]:
        return [fake_socket.entry_message(request, SAMPLES[0], 0x12), fake_socket.done(request)]

    with pytest.raises(DumpInterrupted):
        list(table_over(respond).dump())


def test_counting_takes_one_request() -> None:
    kernel = FakeKernel(*SAMPLES)
    table = kernel.table()
    assert table.count() == len(SAMPLES)
    assert table.statistics()["max_entries"] == 262144
    assert [request.type for request in kernel.requests] == [0x0105, 0x0105]


def test_only_dumps_are_sent_without_a_tuple() -> None:
    kernel = FakeKernel(*SAMPLES)
    table = kernel.table()
    list(table.update_all(ENTRIES))
    list(table.delete_all(ENTRIES))
    list(table.create_all(ENTRIES))
    for request in kernel.requests:
        assert 1 in wire.tree(request.payload[4:])
        assert request.payload[1] == 1


def test_refused_helper_removal_is_reported_with_advice() -> None:
    with table_over(lambda request: [fake_socket.refusal(request, errno.EOPNOTSUPP)]) as table:
        with pytest.raises(Unsupported, match="cannot remove the helper of an entry .* create it again without"):
            table.update({**udp(1), "helper": ""})
        with pytest.raises(Unsupported) as other:
            table.update({**udp(1), "helper": "ftp"})
    assert "create it again" not in str(other.value)


def test_refused_filtered_flush_is_reported_with_advice() -> None:
    """The second request checks whether the subsystem answers at all."""
    datagrams = FakeDatagrams(
        lambda request: [fake_socket.refusal(request, 0 if request.type == 0x0105 else errno.EINVAL)]
    )
    wanted = And((InRanges(("family",), ((2, 2),)), InRanges(("original.protocol",), ((17, 17),))))
    with Table(lambda: NetlinkSocket(datagrams)) as table:
        with pytest.raises(Unsupported, match=r"6\.12; nothing was deleted"):
            table.flush(wanted)
        with pytest.raises(InvalidValue):
            table.flush(And(()))
    assert 25 in wire.tree(datagrams.requests[0].payload[4:])
    assert [request.type for request in datagrams.requests] == [0x0102, 0x0105]


@pytest.mark.parametrize(
    ("code", "error", "expected_message"),
    [
        (errno.EOPNOTSUPP, Unsupported, r"6\.12; the matching IPv4 entries were deleted\. Delete the entries"),
        (errno.EPERM, NotPermitted, r"become: true\)\. Before that, the matching IPv4 entries were deleted$"),
    ],
)
def test_flush_refused_for_the_second_family_reports_the_first(
    code: int, error: type[Exception], expected_message: str
) -> None:
    of_ipv4 = b"\2"
    datagrams = FakeDatagrams(
        lambda request: [fake_socket.refusal(request, 0 if request.payload[:1] == of_ipv4 else code)]
    )
    with Table(lambda: NetlinkSocket(datagrams)) as table, pytest.raises(error, match=expected_message):
        table.flush(InRanges(("original.protocol",), ((17, 17),)))
    assert [request.payload[0] for request in datagrams.requests] == [2, 10]


class Slow(FakeDatagrams):
    """A socket whose answers are slow enough for another thread to run."""

    def receive(self) -> bytes:
        time.sleep(0.001)
        return super().receive()


def test_requests_can_be_sent_while_batches_are_in_progress() -> None:
    """A thread sends the batches on the same socket at that time; each request must get its own answers."""
    shown = b"\2\0\0\0" + ENTRY_CODEC.encode(creation(udp(7)))

    def respond(request: wire.Framed) -> Iterable[Reply]:
        if request.type == 0x0101:
            yield fake_socket.entry_message(request, shown)
        yield from fake_socket.acknowledge(request)

    entries = [creation(udp(port)) for port in range(1, 40 * BATCH_SIZE)]
    with Table(lambda: NetlinkSocket(Slow(respond))) as table:
        for number, error in enumerate(table.create_all(entries)):
            assert error is None
            if number % 16 == 0:
                assert table.get(udp(7))["original.source_port"] == 7


def test_iterators_of_a_closed_table_raise_an_error() -> None:
    """The same applies to changes that were not made."""
    entries = [creation(udp(port)) for port in range(1, 40 * BATCH_SIZE)]
    kernel = FakeKernel(*(b"\2\0\0\0" + ENTRY_CODEC.encode(entry) for entry in entries))
    with kernel.table() as table:
        dump = table.dump()
        changes = table.update_all(entries)
        for iterator in (dump, changes):
            next(iterator)
    assert all(datagrams.closed for datagrams in kernel.sockets)
    with pytest.raises(errors.ConntrackError, match="^the table was closed before it was read to its end$"):
        list(dump)
    with pytest.raises(errors.ConntrackError, match="^the table was closed before all requests were sent$"):
        list(changes)
