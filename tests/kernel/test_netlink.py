# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The transport on a real socket reports lost answers, and returns the kernel's explanations of errors."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client import uapi
from ansible_collections.netops.conntrack.plugins.module_utils.client.ctnetlink import messages, requests
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.creation import creation
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import Entry
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import (
    Exists,
    KernelError,
    NotFound,
    Overrun,
    ResultUnknown,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.error import RequestRejected
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.message import Message
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.socket import (
    BATCH_SIZE,
    NetlinkSocket,
    NetlinkTransport,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from tests import samples
from tests.lab import Namespace

pytestmark = pytest.mark.every_kernel

NETLINK_BROADCAST_ERROR = 4
#: Seconds that a request waits for an answer: much longer than a machine stands still.
UNANSWERED = 120.0


def udp(port: int) -> Entry:
    return creation(from_document(samples.flow("ipv4", "udp", port, 53)))


@pytest.fixture
def table(namespace: Namespace) -> Iterator[Table]:
    with namespace.entered(), Table() as table:
        yield table


@pytest.fixture
def small_buffer_table(namespace: Namespace) -> Iterator[Table]:
    """Return a table whose sockets have the smallest receive buffer that the kernel allows."""
    with (
        namespace.entered(),
        Table(lambda: NetlinkSocket(NetlinkTransport(receive_buffer=1, timeout=UNANSWERED))) as table,
    ):
        yield table


class TestOverrun:
    COUNT = 3 * BATCH_SIZE + 5

    def test_acknowledgements_fit_in_a_small_buffer(self, small_buffer_table: Table, namespace: Namespace) -> None:
        assert not any(small_buffer_table.create_all(udp(port) for port in range(1, self.COUNT + 1)))
        assert namespace.count() == self.COUNT

    def test_lost_refusals_count_as_unknown(self, small_buffer_table: Table, namespace: Namespace) -> None:
        """The kernel rejects more requests than the buffer has room for. None of them may count as successful."""
        entries = [udp(port) for port in range(1, self.COUNT + 1)]
        assert not any(small_buffer_table.create_all(entries))
        results = list(small_buffer_table.create_all(entries))
        assert len(results) == self.COUNT
        assert all(isinstance(error, (Exists, Overrun)) for error in results)
        unknown = [error for error in results if isinstance(error, Overrun)]
        assert len(unknown) >= BATCH_SIZE
        assert unknown[0].errno == errno.ENOBUFS
        assert str(unknown[0]).startswith("creating udp 192.0.2.1:")
        assert namespace.count() == self.COUNT

    def test_request_without_answer_counts_as_unknown(self, small_buffer_table: Table, namespace: Namespace) -> None:
        """Errors displace the acknowledgement of the last request, although the kernel has executed it."""
        existing = [udp(port) for port in range(1, BATCH_SIZE)]
        assert not any(small_buffer_table.create_all(existing))
        *_unused, last = small_buffer_table.create_all([*existing, udp(BATCH_SIZE)])
        assert isinstance(last, ResultUnknown)
        assert BATCH_SIZE in {entry["original"]["source_port"] for entry in namespace.table()}

    def test_no_request_waits_for_lost_answers(self, small_buffer_table: Table) -> None:
        """Neither the next batch nor the next request waits for answers that cannot arrive."""
        entries = [udp(port) for port in range(1, self.COUNT + 1)]
        assert not any(small_buffer_table.create_all(entries))
        start = time.monotonic()
        list(small_buffer_table.create_all(entries))
        assert small_buffer_table.get(udp(1))["original.source_port"] == 1
        with pytest.raises(Exists):
            small_buffer_table.create(udp(1))
        assert time.monotonic() - start < UNANSWERED, "a request waited for its timeout"

    @pytest.mark.running_kernel_only
    def test_dump_is_complete_with_a_small_buffer(self, small_buffer_table: Table) -> None:
        """The kernel waits for the reader of a dump, so a small buffer makes the dump slow but complete."""
        assert not any(small_buffer_table.create_all(udp(port) for port in range(1, 5001)))
        assert len(list(small_buffer_table.dump())) == 5000


class TestDying:
    def test_entries_with_an_undelivered_event(self, table: Table, namespace: Namespace) -> None:
        """If a listener requires every event and its buffer is full, the kernel keeps the entries."""
        with namespace.entered():
            listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, uapi.NETLINK_NETFILTER)
        with listener:
            listener.setsockopt(uapi.SOL_NETLINK, NETLINK_BROADCAST_ERROR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            listener.bind((0, 1 << 2))  # the DESTROY group
            entries = [udp(port) for port in range(1, 101)]
            assert not any(table.create_all(entries))
            assert not any(table.delete_all(entries))
            assert list(table.dump()) == []
            dying = list(table.dying())
            assert dying
            assert all(entry["status"] & uapi.IPS_DYING for entry in dying)
            shown = namespace.conntrack("-L", "dying").splitlines()
            assert len(shown) == len(dying) < 100

    def test_empty_without_a_listener(self, table: Table) -> None:
        table.create(udp(1))
        table.delete(udp(1))
        assert list(table.dying()) == []

    def test_no_entry_is_unconfirmed(self, table: Table, namespace: Namespace) -> None:
        table.create(udp(1))
        assert list(table.unconfirmed()) == []
        assert namespace.conntrack("-L", "unconfirmed").strip() == ""


class TestAnswers:
    def test_error_contains_the_attribute(self, table: Table) -> None:
        """Send an attribute of the wrong length, which the client itself never sends."""
        broken = requests.CREATE.message(udp(1))
        mark = b"\x06\x00\x08\x00\x01\x02\x00\x00"  # CTA_MARK with two bytes
        with NetlinkSocket() as transport, pytest.raises(RequestRejected) as refusal:
            transport.request(Message(broken.type, broken.flags, broken.payload + mark))
        assert refusal.value.refusal.errno == errno.ERANGE
        assert refusal.value.refusal.attribute == uapi.CTA_MARK
        assert refusal.value.refusal.text

    def test_an_unknown_message_is_refused(self, table: Table) -> None:
        with NetlinkSocket() as transport, pytest.raises(RequestRejected) as refusal:
            transport.request(Message(uapi.NFNL_SUBSYS_CTNETLINK << 8 | 99, 0, messages.nfgenmsg()))
        assert refusal.value.refusal.errno == errno.EINVAL

    def test_dying_needs_a_dump(self, table: Table) -> None:
        with NetlinkSocket() as transport, pytest.raises(RequestRejected) as refusal:
            transport.request(messages.DUMP_DYING)
        assert refusal.value.refusal.errno == errno.EOPNOTSUPP

    def test_two_dumps_on_one_socket(self, table: Table) -> None:
        assert not any(table.create_all(udp(port) for port in range(1, 2001)))
        with NetlinkSocket() as transport:
            first = transport.dump(messages.dump())
            next(first)
            with pytest.raises(RequestRejected) as refusal:
                list(transport.dump(messages.dump()))
            assert refusal.value.refusal.errno == errno.EBUSY

    def test_requests_one_after_the_other_on_one_socket(self, table: Table) -> None:
        """The sequence number identifies an answer, also after errors."""
        for port in range(1, 300):
            table.create(udp(port))
            with pytest.raises(Exists):
                table.create(udp(port))
            assert table.get(udp(port))["original.source_port"] == port
            with pytest.raises(NotFound):
                table.get(udp(port + 1))

    def test_missing_answer_is_an_unknown_result(self, namespace: Namespace) -> None:
        """The client stops waiting for a missing answer after the timeout."""
        with namespace.entered(), NetlinkSocket(NetlinkTransport(timeout=0.2)) as transport:
            silent = Message(3, 0, messages.nfgenmsg())  # NLMSG_DONE is not a request
            with pytest.raises(KernelError) as refusal:
                transport.dump(silent).__next__()
            assert isinstance(refusal.value, ResultUnknown)
            assert refusal.value.errno == errno.ETIMEDOUT
