# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a timeout policy is read as the kernel sends it, with the state names of its protocol."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client import timeout_policy
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import NotPermitted, Unavailable
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.message import Message
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.socket import NetlinkSocket
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from ansible_collections.netops.conntrack.tests.unit.support import fake_socket, wire
from ansible_collections.netops.conntrack.tests.unit.support.fake_kernel import encoded, u8, u16, u32


def payload(protocol: int, seconds: dict[int, int], **more: Any) -> bytes:
    data = {number: u32(value) for number, value in seconds.items()}
    attributes = {1: b"short\0", 2: u16(2), 3: u8(protocol), 4: data, 5: u32(1)}
    return bytes([2, 1, 0, 0]) + encoded(attributes)


def read(answers: Any) -> list[Any]:
    with Table(lambda: NetlinkSocket(fake_socket.FakeDatagrams(answers))) as table:
        return list(timeout_policy.read_all(table))


@pytest.mark.parametrize(
    ("protocol", "name", "seconds", "shown"),
    [
        (6, "tcp", {1: 10, 3: 600, 11: 5}, {"syn_sent": 10, "established": 600, "unacknowledged": 5}),
        (17, "udp", {1: 3, 2: 60}, {"unreplied": 3, "replied": 60}),
        (47, "gre", {1: 3, 2: 60}, {"unreplied": 3, "replied": 60}),
        (1, "icmp", {1: 7}, {"timeout": 7}),
        (132, "sctp", {4: 9}, {"established": 9}),
        (33, "dccp", {4: 9}, {"open": 9}),
        (200, 200, {1: 9}, {"timeout": 9}),
        (17, "udp", {1: 3, 9: 8}, {"unreplied": 3, "9": 8}),
    ],
)
def test_states_have_their_names_and_unknown_ones_their_numbers(
    protocol: int, name: Any, seconds: dict[int, int], shown: dict[str, int]
) -> None:
    found = timeout_policy.parse_policy(Message(0x0800, 0, payload(protocol, seconds)))
    assert found == {"name": "short", "family": "ipv4", "protocol": name, "use": 1, "timeouts": shown}


def test_all_policies_are_read_with_one_dump() -> None:
    requests = []

    def respond(request: wire.Framed) -> list[fake_socket.Reply]:
        requests.append(request)
        return [
            wire.framed(0x0800, fake_socket.MULTI, request.sequence, payload(17, {1: 3})),
            fake_socket.done(request),
        ]

    assert [policy["name"] for policy in read(respond)] == ["short"]
    assert [(request.type, request.flags & fake_socket.DUMP) for request in requests] == [(0x0801, fake_socket.DUMP)]


def test_missing_support_is_distinguished_from_missing_permission() -> None:
    for code, error in ((errno.EINVAL, Unavailable), (errno.EPERM, NotPermitted)):
        with pytest.raises(error):
            read(lambda request, code=code: [fake_socket.refusal(request, code)])
