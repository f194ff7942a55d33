# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find the connections of a process in /proc on the running kernel."""

from __future__ import annotations

import socket

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.host import ssh_session
from ansible_collections.netops.conntrack.plugins.module_utils.client.host.ssh_session import (
    TcpConnection,
    own_connections,
)
from tests.lab import Namespace

pytestmark = pytest.mark.every_kernel

#: Connections by the families of the server's and the client's socket, with the loopback address that each uses.
KINDS = {
    "ipv4": (socket.AF_INET, "127.0.0.1", socket.AF_INET, "127.0.0.1"),
    "ipv6": (socket.AF_INET6, "::1", socket.AF_INET6, "::1"),
    "ipv4-to-a-dual-stack-server": (socket.AF_INET6, "::", socket.AF_INET, "127.0.0.1"),
    "ipv4-in-ipv6": (socket.AF_INET, "127.0.0.1", socket.AF_INET6, "::ffff:127.0.0.1"),
}


def connect_and_find(kind: str) -> tuple[bool, bool]:
    """Connect two sockets of this process. Return whether both are found as its own, and one as that of a client."""
    of_server, server_address, of_client, client_address = KINDS[kind]
    with socket.socket(of_server) as server, socket.socket(of_client) as client:
        server.bind((server_address, 0))
        server.listen()
        client.connect((client_address, server.getsockname()[1]))
        accepted, _peer = server.accept()
        with accepted:
            address = socket.inet_pton(*((socket.AF_INET6, "::1") if kind == "ipv6" else (socket.AF_INET, "127.0.0.1")))
            ports = client.getsockname()[1], server.getsockname()[1]
            ends = {TcpConnection(address, one, address, other) for one, other in (ports, ports[::-1])}
            clients = ssh_session._clients_at("/proc", {(address, ports[0])})
            return ends <= own_connections(), list(clients.values()) == [(address, ports[0])]


@pytest.mark.parametrize("kind", KINDS)
def test_a_socket_of_each_family_is_found(namespace: Namespace, kind: str) -> None:
    assert namespace.call(connect_and_find, kind) == (True, True)
