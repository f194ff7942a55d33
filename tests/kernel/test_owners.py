# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find the processes that own flows, with real programs in several network namespaces."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.lab import Gateway, Namespace, has_ipv6
from tests.modules import run

from .test_sockets import connection

pytestmark = pytest.mark.oldest_and_newest_kernel

Document = dict[str, Any]

#: A program that answers one datagram or one connection after another.
SERVER = """
import socket, sys
family, kind, address, port = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
with socket.socket(family, kind) as server:
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, port))
    if kind == socket.SOCK_STREAM:
        server.listen()
    print("ready", flush=True)
    if kind == socket.SOCK_DGRAM:
        while True:
            data, peer = server.recvfrom(1024)
            server.sendto(data, peer)
    accepted = []
    while True:
        accepted.append(server.accept()[0])
        accepted[-1].sendall(accepted[-1].recv(1024))
"""


def serve(
    namespace: Namespace, kind: int, port: int, address: str = "0.0.0.0", family: int = socket.AF_INET
) -> subprocess.Popen[str]:
    """Start a program that answers on a port, and wait until it does."""
    arguments = [str(int(each)) for each in (family, kind)]
    program = namespace.start([sys.executable, "-c", SERVER, *arguments, address, str(port)])
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    return program


def send_and_receive(namespace: Namespace, kind: int, to: tuple[str, int]) -> socket.socket:
    """Send a message in a namespace, and return the socket after the answer."""
    with namespace.entered():
        client = socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET, kind)
    client.settimeout(60)
    client.connect(to)
    client.send(b"data")
    assert client.recv(1024) == b"data"
    return client


def owners(namespace: Namespace, **options: Any) -> list[Document | None]:
    entries = run(namespace, "conntrack_info", owner=True, **options)["entries"]
    return [entry["owner"] for entry in entries]


def pids(namespace: Namespace, **options: Any) -> list[int | None]:
    return [owner and owner["pid"] for owner in owners(namespace, **options)]


@pytest.fixture
def tracked(namespace: Namespace) -> Namespace:
    namespace.firewall.track()
    return namespace


def test_the_owner_of_a_connection_within_the_host(tracked: Namespace) -> None:
    """The owner is the process that started the connection. Without the option, entries have no owner."""
    with connection(tracked):
        (owner,) = owners(tracked)
        assert owner is not None
        assert (owner["pid"], owner["user"]) == (os.getpid(), pwd.getpwuid(os.geteuid()).pw_name)
        assert owner["process"] == Path("/proc/self/comm").read_text().rstrip("\n")
        (entry,) = run(tracked, "conntrack_info")["entries"]
        assert "owner" not in entry


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_server_behind_destination_nat(gateway_lab: Gateway, kind: int, family: int) -> None:
    """A UDP server has one socket without an address for all flows. An IPv6 socket also receives IPv4."""
    if family == socket.AF_INET6 and not has_ipv6():
        pytest.skip("this kernel has no IPv6")
    gateway = gateway_lab.gateway
    protocol = "tcp" if kind == socket.SOCK_STREAM else "udp"
    gateway.firewall.dnat("10.1.0.1", 9, protocol=protocol, port=99, destination="10.1.0.1")
    program = serve(gateway, kind, 9, "::" if family == socket.AF_INET6 else "0.0.0.0", family)
    with send_and_receive(gateway_lab.client1, kind, ("10.1.0.1", 99)):
        assert pids(gateway, match={"protocol": protocol}) == [program.pid]


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_flow_to_another_namespace(gateway_lab: Gateway, kind: int) -> None:
    """The flow is routed, as to a container. A server of the gateway with the same port is not its owner.

    The namespace of the client has no process, so the module does not search it.
    """
    serve(gateway_lab.gateway, kind, 9)
    program = serve(gateway_lab.server, kind, 9)
    with send_and_receive(gateway_lab.client1, kind, (gateway_lab.SERVER, 9)):
        assert pids(gateway_lab.gateway) == [program.pid]
        program.kill()
        program.wait()
        assert pids(gateway_lab.gateway, match={"source": gateway_lab.CLIENTS[0]}) == [None]


def test_loopback_addresses_belong_to_one_namespace(tracked: Namespace) -> None:
    """An example is systemd-resolved. A server with the same address in another namespace is not the owner."""
    resolver = ("127.0.0.53", 9)
    with Namespace("other") as other:
        serve(other, socket.SOCK_DGRAM, 9, "127.0.0.53")
        entry = "-p udp -s 127.0.0.1 -d 127.0.0.53 --sport 1 --dport 9 -t 600"
        tracked.conntrack("-I", *entry.split())
        assert owners(tracked) == [None]
        program = serve(tracked, socket.SOCK_DGRAM, 9, "127.0.0.53")
        assert pids(tracked) == [program.pid]
        tracked.empty()
        with send_and_receive(tracked, socket.SOCK_DGRAM, resolver) as client:
            assert pids(tracked) == [os.getpid()]
            client.close()
            assert pids(tracked) == [program.pid]


def test_flows_without_socket(tracked: Namespace) -> None:
    """The owner is null if the socket is closed, and for other protocols."""
    tracked.conntrack("-I", *"-p tcp -s 10.1.0.2 -d 10.1.0.3 --sport 1 --dport 2 -t 600 --state ESTABLISHED".split())
    tracked.conntrack("-I", *"-p icmp -s 10.1.0.2 -d 10.1.0.3 --icmp-type 8 --icmp-code 0 -t 600".split())
    assert owners(tracked) == [None, None]


def test_only_returned_entries_are_looked_up(tracked: Namespace) -> None:
    with connection(tracked), connection(tracked):
        assert len(owners(tracked, limit=1)) == 1
        assert owners(tracked, limit=0) == []


def test_expectations_have_no_owner(tracked: Namespace) -> None:
    refused = run(tracked, "conntrack_info", table="expect", owner=True)
    assert refused["failed"]
    assert refused["msg"] == "owner: expectations have no owner; leave it out or write another table."
