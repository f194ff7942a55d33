# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that sockets are read as the kernel sends them, and that its answers are handled correctly."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import KernelError, NotPermitted
from ansible_collections.netops.conntrack.plugins.module_utils.client.host import sockets
from ansible_collections.netops.conntrack.plugins.module_utils.client.host.sockets import LocalSocket
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.error import ErrorReply, RequestRejected
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.message import Message, attribute

pytestmark = pytest.mark.portability

TCP, UDP = 6, 17
A, B = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
MAPPED = bytes(10) + b"\xff\xff"
COOKIE = bytes(range(8))


def answer(family: int, state: int, local: bytes, peer: bytes, ports: Any = (1, 2), more: bytes = b"") -> Message:
    """Return struct inet_diag_msg of a socket of user 33 with inode 7."""
    identity = struct.pack(">HH16s16s", *ports, local, peer) + struct.pack("=I", 3) + COOKIE
    return Message(20, 0, bytes([family, state, 0, 0]) + identity + bytes(12) + struct.pack("=II", 33, 7) + more)


class FakeSocket:
    """Answers each dump with the sockets of its family and protocol, and each request with the next refusal."""

    def __init__(self, listed: Any = None, refusals: Any = ()) -> None:
        self.listed = listed or {}
        self.refusals = list(refusals)
        self.requests: list[Message] = []

    def dump(self, message: Message) -> Any:
        self.requests.append(message)
        family, protocol, states = struct.unpack_from("=BBxxI", message.payload)
        assert len(message.payload) == 56
        for one in self.listed.get((protocol, family), ()):
            if states >> one.payload[1] & 1:
                yield one

    def request(self, message: Message) -> list[Message]:
        self.requests.append(message)
        refusal = self.refusals.pop(0)
        if refusal:
            raise RequestRejected(ErrorReply(refusal))
        return []

    def request_many(self, messages: Any) -> Any:
        for message in messages:
            self.requests.append(message)
            refusal = self.refusals.pop(0)
            yield refusal or []


def test_sockets_with_a_peer_are_found_by_their_ends() -> None:
    established, time_wait, listening = 1, 6, 10
    netlink: Any = FakeSocket(
        {
            (TCP, socket.AF_INET): [
                answer(2, established, A, B),
                answer(2, time_wait, A, B, (3, 4)),
                answer(2, listening, A, bytes(4), (5, 0)),
            ],
            (TCP, socket.AF_INET6): [answer(10, established, MAPPED + A, MAPPED + B, (6, 7))],
            (UDP, socket.AF_INET): [answer(2, established, A, B), answer(2, 7, A, bytes(4), (8, 0))],
        }
    )
    found = sockets.connected(netlink)
    assert list(found) == [(TCP, A, 1, B, 2), (TCP, A, 6, B, 7), (UDP, A, 1, B, 2)]
    (one,) = found[TCP, A, 1, B, 2]
    assert (one.user, one.inode, one.family) == (33, 7, 2)
    assert one.id == netlink.listed[TCP, socket.AF_INET][0].payload[4:52], "the kernel finds the same socket by it"


@pytest.mark.parametrize("only_ipv6", [False, True])
def test_a_socket_for_all_addresses_receives_ipv4_unless_it_is_of_ipv6_only(only_ipv6: bool) -> None:
    closed, more = 7, attribute(11, bytes([only_ipv6]))
    netlink: Any = FakeSocket({(UDP, socket.AF_INET6): [answer(10, closed, bytes(16), bytes(16), (53, 0), more)]})
    found = sockets.receiving(netlink)
    specific, general = sockets.without_peer((UDP, A, 53, B, 9))
    assert specific == (UDP, A, 53, b"", 0)
    assert bool(found.get(general)) is not only_ipv6
    assert found[sockets.without_peer((UDP, bytes(15) + b"\1", 53, B, 9))[1]]


def test_both_directions_of_an_entry_are_ends() -> None:
    tuple_ = {"protocol": TCP, "source": A, "source_port": 1, "destination": B, "destination_port": 2}
    other = {"protocol": TCP, "source": B, "source_port": 20, "destination": A, "destination_port": 1}
    entry = {f"original.{key}": value for key, value in tuple_.items()}
    assert list(sockets.ends_of(entry)) == [(TCP, A, 1, B, 2)]
    entry.update((f"reply.{key}", value) for key, value in other.items())
    assert list(sockets.ends_of(entry)) == [(TCP, A, 1, B, 2), (TCP, B, 20, A, 1)]
    assert not list(sockets.ends_of({"original.protocol": 1, "original.source": A, "original.destination": B}))


SOME = [
    LocalSocket((protocol, A, 1, B, 2), 0, 0, 2, bytes([number]) * 48) for number, protocol in enumerate((6, 6, 17))
]


@pytest.mark.parametrize(
    ("answers", "ended", "failure"),
    [
        ([None, None, None], 3, None),
        ([ErrorReply(errno.ENOENT), None, ErrorReply(errno.ESTALE)], 3, None),
        ([ErrorReply(errno.EOPNOTSUPP), None, None], 2, None),
        ([None, ErrorReply(errno.EPERM), ErrorReply(errno.EACCES)], 1, errno.EPERM),
        ([None, None, ErrorReply(errno.ENOENT, lost=True)], 2, errno.ENOENT),
    ],
)
def test_socket_that_has_ended_is_not_a_failure(answers: Any, ended: int, failure: Any) -> None:
    netlink: Any = FakeSocket(refusals=answers)
    count, first = sockets.destroy(netlink, SOME)
    assert (count, first and first.errno) == (ended, failure)
    assert [message.type for message in netlink.requests] == [21] * 3
    assert [message.payload[1] for message in netlink.requests] == [6, 6, 17]
    assert [message.payload[8:] for message in netlink.requests] == [one.id for one in SOME]


def test_probe_reports_the_missing_feature() -> None:
    for refusals in ([errno.ENOENT, errno.ENOENT], [errno.ENOENT, errno.ESTALE]):
        netlink: Any = FakeSocket(refusals=refusals)
        sockets.check_destroy(netlink)
        assert [message.payload[1] for message in netlink.requests] == [TCP, UDP]
        assert all(message.payload[8:44] == bytes(36) for message in netlink.requests), "no such socket can exist"
    lacking: Any = FakeSocket(refusals=[errno.ENOENT, errno.EOPNOTSUPP])
    with pytest.raises(KernelError, match="CONFIG_INET_DIAG_DESTROY"):
        sockets.check_destroy(lacking)
    forbidden: Any = FakeSocket(refusals=[errno.EPERM])
    with pytest.raises(NotPermitted, match="become: true"):
        sockets.check_destroy(forbidden)
