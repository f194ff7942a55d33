# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""End the sockets of removed flows, and count the flows that return, with real connections."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._operations.end_sockets import SocketsToEnd
from ansible_collections.netops.conntrack.plugins.module_utils._operations.flush import DeletionPlan, flush
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import Unsupported
from ansible_collections.netops.conntrack.plugins.module_utils.client.host import sockets
from ansible_collections.netops.conntrack.plugins.module_utils.client.host.ssh_session import TcpConnection
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import EVERYTHING, parse_match
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.message import Message
from ansible_collections.netops.conntrack.plugins.module_utils.client.table_reader import TableReader
from tests.features import needs
from tests.lab import Gateway, Namespace, has_ipv6
from tests.modules import run

pytestmark = pytest.mark.oldest_and_newest_kernel

Document = dict[str, Any]
NO_CONNECTION: frozenset[TcpConnection] = frozenset()
LOOPBACK = {"ipv4": "127.0.0.1", "ipv6": "::1"}


class Connection(NamedTuple):
    """Both ends of a TCP connection on one host."""

    server: socket.socket
    client: socket.socket
    accepted: socket.socket

    def carries(self, data: bytes = b"data") -> bool:
        """Return whether the connection carries data. Call this only if a failure is immediate."""
        try:
            self.client.sendall(data)
            return self.accepted.recv(len(data)) == data
        except ConnectionError:
            return False


@contextlib.contextmanager
def connection(namespace: Namespace, address: str = "127.0.0.1") -> Iterator[Connection]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with namespace.entered():
        server, client = socket.socket(family), socket.socket(family)
    with server, client:
        server.bind((address, 0))
        server.listen()
        client.connect(server.getsockname())
        accepted, _peer = server.accept()
        with accepted:
            yield Connection(server, client, accepted)


def remove(
    namespace: Namespace,
    match: Document | None = None,
    keep: frozenset[TcpConnection] = NO_CONNECTION,
    ended: bool = False,
    check: bool = False,
    protected: frozenset[TcpConnection] = NO_CONNECTION,
) -> Document:
    """Flush the matching entries of a namespace. With `ended`, end their sockets, except those of `protected`."""
    selected = EVERYTHING if match is None else parse_match(match)
    with namespace.entered(), contextlib.ExitStack() as stack:
        table = stack.enter_context(TableReader())
        chosen = stack.enter_context(SocketsToEnd(protected or keep)) if ended else None
        return flush(DeletionPlan(table, selected, keep, sockets=chosen), check_mode=check)


@pytest.fixture
def tracked(namespace: Namespace) -> Namespace:
    namespace.firewall.track()
    return namespace


@pytest.mark.parametrize("family", LOOPBACK)
def test_both_ends_are_ended_with_their_entry(tracked: Namespace, family: str) -> None:
    """The process and its peer receive errors. Other connections continue, also those of the same server."""
    needs("socket_destroy")
    if family == "ipv6" and not has_ipv6():
        pytest.skip("this kernel has no IPv6")
    address = LOOPBACK[family]
    with connection(tracked, address) as one, connection(tracked, address) as other:
        match = {"source_port": one.client.getsockname()[1]}
        predicted = remove(tracked, match, ended=True, check=True)
        assert (predicted["flushed"], predicted["ended_sockets"], predicted["will_return"]) == (1, 2, 0)
        assert one.carries()
        assert tracked.count() == 2
        done = remove(tracked, match, ended=True)
        assert (done["flushed"], done["ended_sockets"], done["will_return"]) == (1, 2, 0)
        for end in (one.client, one.accepted):
            with pytest.raises(ConnectionError, match="abort|reset"):
                end.recv(1)
        assert other.carries()
        one.server.settimeout(0)
        with pytest.raises(BlockingIOError):
            one.server.accept()  # it still listens
        again = remove(tracked, match, ended=True)
        assert (again["changed"], again["ended_sockets"]) == (False, 0)


def test_peer_behind_destination_nat_is_reset(gateway_lab: Gateway) -> None:
    """The reset passes through the NAT of the entry, which the module deletes afterwards."""
    needs("socket_destroy")
    gateway = gateway_lab.gateway
    gateway.mirror(9)
    gateway.firewall.dnat("10.1.0.1", 9, protocol="tcp", port=99, destination="10.1.0.1")
    with gateway_lab.client1.tcp("10.1.0.1", 99) as flow, gateway_lab.client1.tcp("10.1.0.1", 9) as other:
        flow.seen_as()
        done = remove(gateway, {"destination_port": 99}, ended=True)
        assert (done["flushed"], done["ended_sockets"]) == (1, 1)
        with pytest.raises(ConnectionResetError):
            flow.seen_as()
        other.seen_as()


def test_forwarded_flows_have_no_socket(gateway_lab: Gateway) -> None:
    needs("socket_destroy")
    with gateway_lab.client1.tcp(gateway_lab.SERVER, gateway_lab.PORT) as flow:
        flow.seen_as()
        done = remove(gateway_lab.gateway, {"protocol": "tcp"}, ended=True)
        assert (done["flushed"], done["ended_sockets"], done["will_return"]) == (1, 0, 1)
        flow.seen_as()
    assert gateway_lab.gateway.count() == 1


def test_only_udp_sockets_with_a_peer_are_ended(tracked: Namespace) -> None:
    """The server has one socket for all its flows."""
    needs("socket_destroy")
    with tracked.entered():
        server, client = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _each in range(2))
    with server, client:
        server.bind(("127.0.0.1", 0))
        client.connect(server.getsockname())
        client.send(b"1")
        server.recv(1)
        done = remove(tracked, ended=True)
        assert (done["flushed"], done["ended_sockets"], done["will_return"]) == (1, 1, 0)
        with pytest.raises(ConnectionAbortedError):
            client.recv(1)
        with tracked.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as next_client:
            next_client.sendto(b"2", server.getsockname())
            assert server.recv(1) == b"2"


def test_a_dual_stack_server_is_found(tracked: Namespace) -> None:
    needs("socket_destroy")
    if not has_ipv6():
        pytest.skip("this kernel has no IPv6")
    with tracked.entered():
        server, client = socket.socket(socket.AF_INET6), socket.socket(socket.AF_INET)
    with server, client:
        server.bind(("::", 0))
        server.listen()
        client.connect(("127.0.0.1", server.getsockname()[1]))
        with server.accept()[0]:
            assert remove(tracked, ended=True)["ended_sockets"] == 2


@pytest.mark.parametrize("keep_ssh", [True, False])
def test_the_kept_connection_keeps_its_sockets(tracked: Namespace, keep_ssh: bool) -> None:
    """This also holds without `keep_ssh`, when the module deletes the entry."""
    needs("socket_destroy")
    address = bytes([127, 0, 0, 1])
    with connection(tracked) as mine, connection(tracked) as other:
        ports = mine.server.getsockname()[1], mine.client.getsockname()[1]
        own = frozenset({TcpConnection(address, ports[0], address, ports[1])})
        done = remove(tracked, keep=own if keep_ssh else NO_CONNECTION, ended=True, protected=own)
        assert (done["flushed"], done["kept"], done["ended_sockets"]) == (2 - keep_ssh, int(keep_ssh), 2)
        assert mine.carries()
        assert not other.carries()


def test_a_kernel_that_cannot_end_sockets(tracked: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module fails before it deletes anything. Every kernel gives the same answer for Unix sockets."""
    request = sockets._request

    def of_unix(kind: int, family: int, *more: Any) -> Message:
        return request(kind, socket.AF_UNIX if kind == sockets.SOCK_DESTROY else family, *more)

    with connection(tracked) as one:
        monkeypatch.setattr(sockets, "_request", of_unix)
        with pytest.raises(Unsupported, match="CONFIG_INET_DIAG_DESTROY"):
            remove(tracked, ended=True)
        assert one.carries()
    assert tracked.count() == 1


@pytest.mark.parametrize("loose", [0, 1])
@pytest.mark.parametrize("half_closed", [False, True])
def test_flows_return_as_predicted(tracked: Namespace, loose: int, half_closed: bool) -> None:
    """The next packet creates an entry only if the kernel picks up existing connections."""
    tracked.sysctl("nf_conntrack_tcp_loose", loose)
    with connection(tracked) as one:
        one.carries()
        if half_closed:
            one.accepted.shutdown(socket.SHUT_WR)
            assert one.client.recv(1) == b""
        predicted = remove(tracked, check=True)
        assert (predicted["flushed"], predicted["will_return"]) == (1, loose)
        assert remove(tracked)["will_return"] == loose
        assert one.carries()
        assert tracked.count() == loose


def test_flows_that_do_not_return(tracked: Namespace) -> None:
    """Flows that have not begun or have ended do not return, nor do flows of other protocols."""
    for number, state in enumerate(("SYN_SENT", "TIME_WAIT", "CLOSE")):
        tracked.conntrack(
            "-I", *f"-p tcp -s 10.1.0.2 -d 10.1.0.3 --sport {number} --dport 2 -t 600 --state {state}".split()
        )
    tracked.conntrack("-I", *"-p udp -s 10.1.0.2 -d 10.1.0.3 --sport 1 --dport 2 -t 600".split())
    done = remove(tracked)
    assert (done["flushed"], done["will_return"]) == (4, 0)


@pytest.mark.parametrize("keep_ssh", [True, False])
def test_a_connection_of_an_ancestor_is_never_ended(tracked: Namespace, keep_ssh: bool) -> None:
    """The module treats it as the SSH connection that runs the task."""
    needs("socket_destroy")
    with connection(tracked) as one:
        done = run(tracked, "conntrack_flush", all=True, end_local_sockets=True, keep_ssh=keep_ssh)
        assert (done["flushed"], done["kept"], done["ended_sockets"]) == (not keep_ssh, int(keep_ssh), 0)
        assert one.carries()


def test_expectations_have_no_sockets(namespace: Namespace) -> None:
    refused = run(namespace, "conntrack_flush", table="expect", all=True, end_local_sockets=True)
    assert refused["failed"]
    assert refused["msg"].startswith("end_local_sockets: expectations have no sockets")
