# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the server, which returns all data that it receives over TCP and UDP, IPv4 and IPv6."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable

from tests.lab import has_ipv6

from . import ports
from .children import Stop

SO_RCVBUFFORCE = 33
#: Bytes of datagrams that may wait. Many arrive at once if the server did not run for some time.
BUFFER = 8 << 20
#: The maximum number of connections, and the seconds without a byte after which the server closes one.
MOST, IDLE = 8192, 30.0
BACKLOG = 4096
#: The number of connections or datagrams that the server takes at a time.
SOME = 64


def serve(stop: Stop, ready: Callable[[], None], wrong_every: int = 0) -> int:
    """Serve until the parent requests the end. Return the number of connections closed because they were idle.

    :param wrong_every: Answer every datagram of this number incorrectly, to test that the clients detect it. 0: none.
    """
    with contextlib.closing(_Server(wrong_every)) as server:
        ready()
        server.run(stop)
        return server.idle


class _Server:
    def __init__(self, wrong_every: int) -> None:
        self.idle = 0
        self._wrong_every, self._datagrams = wrong_every, 0
        self._epoll = select.epoll()
        self._listening: dict[int, socket.socket] = {}
        self._datagram: dict[int, socket.socket] = {}
        #: Connections with the time of the last byte, the longest idle one first.
        self._connections: dict[int, tuple[socket.socket, float]] = {}
        for family in (socket.AF_INET, socket.AF_INET6) if has_ipv6() else (socket.AF_INET,):
            for port in ports.ALL:
                self._listen(family, port)

    def close(self) -> None:
        for server in (*self._listening.values(), *self._datagram.values()):
            server.close()
        for connection, _last in self._connections.values():
            connection.close()
        self._epoll.close()

    def run(self, stop: Stop) -> None:
        self._epoll.register(stop, select.EPOLLIN)
        next_look = time.monotonic() + 1
        while True:
            for fd, _events in self._epoll.poll(1.0, 512):
                if fd == stop.fileno():
                    return
                if fd in self._listening:
                    self._accept(self._listening[fd])
                elif fd in self._datagram:
                    self._return_datagrams(self._datagram[fd])
                else:
                    self._return_bytes(fd)
            if time.monotonic() > next_look:
                next_look = time.monotonic() + 1
                self._close_idle()

    def _listen(self, family: socket.AddressFamily, port: int) -> None:
        for kind, where in ((socket.SOCK_STREAM, self._listening), (socket.SOCK_DGRAM, self._datagram)):
            server = socket.socket(family, kind | socket.SOCK_NONBLOCK)
            where[server.fileno()] = server
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind == socket.SOCK_DGRAM:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
                with contextlib.suppress(PermissionError):  # in a user namespace
                    server.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
            server.bind(("", port))
            if kind == socket.SOCK_STREAM:
                server.listen(BACKLOG)
            self._epoll.register(server, select.EPOLLIN)

    def _accept(self, server: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            for _turn in range(SOME):
                connection = server.accept()[0]
                connection.setblocking(False)
                self._connections[connection.fileno()] = (connection, time.monotonic())
                self._epoll.register(connection, select.EPOLLIN)
                if len(self._connections) > MOST:
                    self._drop(next(iter(self._connections)))
                    self.idle += 1

    def _return_bytes(self, fd: int) -> None:
        found = self._connections.pop(fd, None)
        if found is None:
            return
        connection = found[0]
        self._connections[fd] = (connection, time.monotonic())
        try:
            data = connection.recv(4096)
            if data:
                connection.send(data)
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._drop(fd)

    def _return_datagrams(self, server: socket.socket) -> None:
        for _turn in range(SOME):
            try:
                data, sender = server.recvfrom(4096)
            except OSError:  # no data left
                return
            self._datagrams += 1
            if self._wrong_every and self._datagrams % self._wrong_every == 0:
                data = data[::-1]
            with contextlib.suppress(OSError):  # the client sends again
                server.sendto(data, sender)

    def _close_idle(self) -> None:
        until = time.monotonic() - IDLE
        while self._connections:
            fd, (_connection, last) = next(iter(self._connections.items()))
            if last > until:
                return
            self._drop(fd)
            self.idle += 1

    def _drop(self, fd: int) -> None:
        self._connections.pop(fd)[0].close()
