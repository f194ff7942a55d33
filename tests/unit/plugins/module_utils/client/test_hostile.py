# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that any kernel answer, socket error or input raises only exceptions of this library."""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import Any, Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client import statistics, timeout_policy, uapi
from ansible_collections.netops.conntrack.plugins.module_utils.client.bulk.columns import batches
from ansible_collections.netops.conntrack.plugins.module_utils.client.bulk.records import records
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.codec import ENTRIES
from ansible_collections.netops.conntrack.plugins.module_utils.client.ctnetlink import messages
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.scan import VisitorGroup
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.summary import Summary
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.top import Top
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.creation import creation
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import (
    _TOP,
    from_document,
    to_document,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import describe, identity
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import (
    ConntrackError,
    InvalidValue,
    KernelError,
    MalformedMessage,
    ResultUnknown,
    Unsupported,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.events.subscription import parse_event
from ansible_collections.netops.conntrack.plugins.module_utils.client.expectation import (
    document as expectation_document,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.expectation import expectation
from ansible_collections.netops.conntrack.plugins.module_utils.client.host import sysctl
from ansible_collections.netops.conntrack.plugins.module_utils.client.match import keys as vocabulary
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import parse_match
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink import socket as netlink
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.message import Message
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.socket import (
    NetlinkSocket,
    NetlinkTransport,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.support import fake_socket, wire
from ansible_collections.netops.conntrack.tests.unit.support.fake_socket import FakeDatagrams, Reply
from ansible_collections.netops.conntrack.tests.unit.support.strategies import odd_messages

FLOW = {"source": "10.0.0.1", "destination": "10.0.0.2", "source_port": 1, "destination_port": 2}
ENTRY = creation(from_document({"protocol": "udp", "original": FLOW}))
SHOWN = b"\2\0\0\0" + ENTRIES.encode(ENTRY)
MATCH = parse_match({"protocol": "udp", "source": "10.0.0.0/8", "port": 1}).where

WORKS: dict[str, Callable[[Table], Any]] = {
    "create": lambda table: table.create(ENTRY),
    "get": lambda table: table.get(ENTRY),
    "delete": lambda table: table.delete(ENTRY),
    "create_all": lambda table: list(table.create_all([ENTRY] * 5)),
    "zero_all": lambda table: list(table.zero_all([ENTRY] * 5)),
    "holders": lambda table: list(table.find_by_tuples([ENTRY] * 5)),
    "dump": lambda table: list(table.dump()),
    "narrowed": lambda table: list(table.dump(where=MATCH)),
    "rows": lambda table: list(table.rows()),
    "counted": lambda table: table.scan(VisitorGroup([Summary(), Top()])),
    "dying": lambda table: list(table.dying()),
    "statistics": lambda table: table.statistics(),
    "per_cpu": lambda table: table.statistics_per_cpu(),
    "expectations_per_cpu": lambda table: table.expectation_statistics_per_cpu(),
    "expectations": lambda table: list(expectation.located(table, expectation.read_all(table))),
    "policies": lambda table: list(timeout_policy.read_all(table)),
    "policy": lambda table: timeout_policy.find(table, "x"),
    "defaults": lambda table: timeout_policy.defaults(table, uapi.IPPROTO_UDP),
}

# kernel answers


def answers(sequence: int) -> st.SearchStrategy[bytes]:
    """Draw an answer to a request: of any kind, with a valid, truncated, odd or random payload."""
    kinds = st.sampled_from([0x0100, 0x0104, 0x0105, 0x0200, 0x0800, 0x0103, 2, 3, 4])
    errors = [fake_socket.refusal(wire.Framed(0x0100, 5, sequence, b""), code) for code in (0, errno.EINVAL)]
    right = [SHOWN, *(error[16:] for error in errors), b"\0\0\0\0" + wire.attribute((1,), b"\0\0\0\5")]
    payloads = st.one_of(
        st.sampled_from(right),
        st.tuples(st.sampled_from(right), st.integers(0, 24)).map(lambda both: both[0][: both[1]]),
        odd_messages(),
        st.binary(max_size=40),
    )
    flags = st.sampled_from([0, 2, 0x100, 0x200, 0x300, 0x12])
    return st.builds(lambda kind, flags, payload: wire.framed(kind, flags, sequence, payload), kinds, flags, payloads)


@pytest.mark.parametrize("work", WORKS)
@examples(60)
@given(data=st.data())
def test_any_answer_is_a_result_or_a_named_error(work: str, data: Any) -> None:
    def respond(request: wire.Framed) -> Iterable[Reply]:
        yield from data.draw(st.lists(answers(request.sequence), max_size=3))
        if data.draw(st.booleans()):
            yield (
                fake_socket.done(request)
                if request.flags & fake_socket.DUMP == fake_socket.DUMP
                else fake_socket.refusal(request, 0)
            )

    with contextlib.suppress(ConntrackError), Table(lambda: NetlinkSocket(FakeDatagrams(respond))) as table:
        WORKS[work](table)


@examples(100)
@given(odd_messages())
def test_any_entry_can_be_shown(payload: bytes) -> None:
    """The entry can have a port and no protocol."""
    entry = messages.parse_entry(Message(0x0100, 0, payload))
    identity(entry)
    describe(entry)
    to_document(entry)
    rows = [(tuple(entry), tuple(entry.values()))] * 5
    with contextlib.suppress(ConntrackError):
        for batch in batches(rows):
            list(records(batch))


@examples(100)
@given(st.binary(max_size=60), st.sampled_from([0x0100, 0x0102, 0x0200, 0x0202, 0x0800]))
def test_any_bytes_are_a_message_or_malformed(payload: bytes, kind: int) -> None:
    message = Message(kind, 0, payload)
    for read in (
        messages.parse_entry,
        statistics.parse_global,
        statistics.parse_per_cpu,
        statistics.parse_expectations_per_cpu,
        expectation.parse_expectation,
        timeout_policy.parse_policy,
        parse_event,
    ):
        with contextlib.suppress(MalformedMessage):
            read(message)


def test_missing_statistics_are_an_error() -> None:
    with Table(lambda: NetlinkSocket(FakeDatagrams(fake_socket.acknowledge))) as table, pytest.raises(Unsupported):
        table.count()


def test_malformed_answer_to_a_change_leaves_its_result_unknown() -> None:
    def respond(request: wire.Framed) -> Iterable[Reply]:
        yield wire.framed(2, 0, request.sequence, b"\0\0")

    with Table(lambda: NetlinkSocket(FakeDatagrams(respond))) as table:
        with pytest.raises(ResultUnknown):
            table.create(ENTRY)
        assert [type(error) for error in table.create_all([ENTRY] * 3)] == [ResultUnknown] * 3


# socket errors


class Refusing(socket.socket):
    """A socket on which one call fails, as under SELinux. Calls that need CAP_NET_ADMIN do nothing."""

    refused = ""
    code = errno.EACCES

    def _refuse(self, call: str) -> None:
        if call == self.refused:
            raise OSError(self.code, "refused")

    def bind(self, *_arguments: Any) -> None:
        self._refuse("bind")

    def setsockopt(self, *_arguments: Any) -> None:
        self._refuse("setsockopt")

    def getsockopt(self, *arguments: Any) -> Any:
        self._refuse("getsockopt")
        return super().getsockopt(*arguments)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOBUFS])
@pytest.mark.parametrize("call", ["bind", "setsockopt", "getsockopt"])
def test_socket_error_is_reported_with_one_sentence(call: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink.socket, "socket", type("Socket", (Refusing,), {"refused": call, "code": code}))
    with pytest.raises(KernelError) as raised, contextlib.closing(NetlinkTransport(groups=[1])) as datagrams:
        datagrams.grow(1 << 20)
    assert raised.value.errno == code
    assert ("SELinux" in str(raised.value)) == (code == errno.EACCES)


# user input

#: Python refuses to convert it to text, and an error message must not fail because of that.
HUGE = 1 << 20_000
READERS: dict[str, tuple[Callable[[Any], Any], Iterable[str]]] = {
    "entry": (from_document, _TOP),
    "expectation": (expectation.from_document, expectation_document._TOP),
    "match": (parse_match, vocabulary.KEYS),
    "settings": (sysctl.parse, [*sysctl.NAMES, "timeouts"]),
}


@pytest.mark.parametrize("key", [f"{name}.{key}" for name, (_read, keys) in READERS.items() for key in sorted(keys)])
def test_integers_of_thousands_of_digits_are_refused(key: str) -> None:
    name, key = key.split(".")
    read = READERS[name][0]
    for value in (HUGE, -HUGE, [HUGE], {"source": HUGE}, {HUGE: 1}, f"{HUGE:#x}"):
        with pytest.raises(InvalidValue):
            read({key: value})
    if name != "settings":
        with pytest.raises(InvalidValue, match="an integer of thousands of digits"):
            read({HUGE: 1})
