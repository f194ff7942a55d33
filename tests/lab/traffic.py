# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real traffic: a mirror that returns the source address of each message, and TCP, UDP and ICMP flows to it.

Each call waits at most TIMEOUT seconds for an answer, which only ends a hung test.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import selectors
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

TIMEOUT = 120.0
IP_PKTINFO = 8
ICMP_ECHO, ICMPV6_ECHO = 8, 128
SO_LINGER_RESET = struct.pack("ii", 1, 0)

Entered = Callable[[], contextlib.AbstractContextManager[None]]


class Endpoint(NamedTuple):
    """An address and a port."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class Mirror:
    """A server on a TCP and a UDP port, over IPv4 and IPv6. It answers every message with the address of the sender."""

    def __init__(self, entered: Entered, port: int) -> None:
        self.port = port
        self._selector = selectors.DefaultSelector()
        self._stop, self._stopped = socket.socketpair()
        with entered():
            for family in (socket.AF_INET, socket.AF_INET6):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    self._serve(family, kind)
        self._selector.register(self._stopped, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._loop, name=f"mirror {port}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering and close all connections."""
        if self._thread.is_alive():
            self._stop.send(b"stop")
            self._thread.join()
        self._stop.close()

    def _serve(self, family: socket.AddressFamily, kind: socket.SocketKind) -> None:
        try:
            server = socket.socket(family, kind)
        except OSError:  # a kernel without IPv6
            return
        if kind == socket.SOCK_STREAM:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Each datagram comes with its destination address, from which the answer must come.
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            server.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        server.bind(("", self.port))
        if kind == socket.SOCK_STREAM:
            server.listen(64)
            self._selector.register(server, selectors.EVENT_READ, self._accept)
        else:
            self._selector.register(server, selectors.EVENT_READ, self._answer_datagram)

    def _loop(self) -> None:
        while True:
            for key, _events in self._selector.select():
                if key.data is None:
                    for each in list(self._selector.get_map().values()):
                        each.fileobj.close()  # type: ignore[union-attr]
                    self._selector.close()
                    return
                with contextlib.suppress(OSError):
                    key.data(key.fileobj)

    def _accept(self, server: socket.socket) -> None:
        connection = server.accept()[0]
        self._selector.register(connection, selectors.EVENT_READ, self._answer_stream)

    def _answer_stream(self, connection: socket.socket) -> None:
        try:
            if connection.recv(4096):
                connection.sendall(_describe(connection.getpeername()))
                return
        except OSError:
            pass
        self._selector.unregister(connection)
        connection.close()

    def _answer_datagram(self, server: socket.socket) -> None:
        addressed_to, sender = server.recvmsg(4096, 128)[1::2]
        server.sendmsg([_describe(sender)], addressed_to, 0, sender)


class Flow:
    """A TCP connection or a UDP flow to a mirror, with its own port."""

    def __init__(self, entered: Entered, kind: socket.SocketKind, to: Endpoint, source_port: int = 0) -> None:
        self.remote = to
        with entered():
            self._socket = socket.socket(_family(to.address), kind)
        try:
            self._socket.settimeout(TIMEOUT)
            if kind == socket.SOCK_STREAM:  # for UDP, the kernel would assign the same free port to two sockets
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self._socket.family == socket.AF_INET6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 may have the same port
            self._socket.bind(("", source_port))
            self._socket.connect(to)
        except BaseException:
            self._socket.close()
            raise
        self.local = Endpoint(*self._socket.getsockname()[:2])

    def __enter__(self) -> Flow:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def seen_as(self, timeout: float | None = None) -> Endpoint:
        """Send one message, and return the source address that the mirror received.

        :param timeout: Seconds to wait for the answer, by default TIMEOUT.
        :raises TimeoutError: without an answer.
        """
        self._socket.settimeout(TIMEOUT if timeout is None else timeout)
        self._socket.send(b"who am I?")
        address, port = self._socket.recv(4096).decode().split()
        return Endpoint(address, int(port))

    def send(self, data: bytes = b"hello") -> None:
        """Send without waiting for an answer."""
        self._socket.send(data)

    def close(self) -> None:
        """Close the flow; a TCP connection with FIN."""
        self._socket.close()

    def reset(self) -> None:
        """End a TCP connection with a reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, SO_LINGER_RESET)
        self._socket.close()


def ping(entered: Entered, to: str, identifier: int | None = None, count: int = 1) -> int:
    """Send ICMP echo requests one after another. Return the number that was answered in time."""
    identifier = os.getpid() & 0xFFFF if identifier is None else identifier
    answered = 0
    with entered(), _icmp_socket(to) as connection:
        connection.settimeout(TIMEOUT)
        connection.connect((to, 0))
        for sequence in range(count):
            connection.send(_echo_request(to, identifier, sequence))
            with contextlib.suppress(TimeoutError):
                while not _is_reply(connection.recv(4096), to, identifier, sequence):
                    pass
                answered += 1
    return answered


def _icmp_socket(to: str) -> socket.socket:
    family = _family(to)
    protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
    return socket.socket(family, socket.SOCK_RAW, protocol)


def _echo_request(to: str, identifier: int, sequence: int) -> bytes:
    if _family(to) == socket.AF_INET6:  # the kernel sets the checksum
        return struct.pack("!BBHHH", ICMPV6_ECHO, 0, 0, identifier, sequence)
    words = (ICMP_ECHO << 8) + identifier + sequence
    checksum = ~((words & 0xFFFF) + (words >> 16)) & 0xFFFF
    return struct.pack("!BBHHH", ICMP_ECHO, 0, checksum, identifier, sequence)


def _is_reply(packet: bytes, to: str, identifier: int, sequence: int) -> bool:
    if _family(to) == socket.AF_INET6:
        reply = ICMPV6_ECHO + 1
    else:
        packet, reply = packet[(packet[0] & 0xF) * 4 :], 0
    kind, *rest = struct.unpack_from("!B3xHH", packet)
    return kind == reply and rest == [identifier, sequence]


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET if ipaddress.ip_address(address).version == 4 else socket.AF_INET6


def _describe(sender: Any) -> bytes:
    return f"{sender[0]} {sender[1]}".encode()
