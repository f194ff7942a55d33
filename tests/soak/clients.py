# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the clients: new connections at a steady rate. Each connection checks that every message comes back unchanged."""

from __future__ import annotations

import contextlib
import errno
import heapq
import os
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from . import ports
from .children import Stop

#: The maximum number of connections of a client, and of those that wait for an answer. If the server gets no
#: processor, the rate falls; otherwise answers would come too late.
MOST, MOST_WAITING = 1000, 200
#: New connections at a time. Between two groups, the client reads answers.
BURST = 32
#: Seconds between two checks of the time.
TICK = 0.002
#: Seconds that a connection waits for an answer, and one that the flush may break.
PATIENCE, PATIENCE_IF_FLUSHED = 90.0, 4.0
#: Seconds after which a client sends a datagram again; twice as many each next time.
REPEAT = 1.0
#: Every ninth connection lasts longer: it exchanges several messages, with a pause before each next one. Protocols and
#: ports repeat with an even period, so an odd number covers each of them in turn.
LONG_EVERY, LONG_MESSAGES, LONG_PAUSE = 9, 4, 0.3
#: Steady connections of each client and protocol, their first source port, and the pause between two messages.
STEADY, STEADY_PORT, STEADY_PAUSE = 50, 61000, 1.0
#: Every fifth TCP connection ends by FIN, which leaves a socket in TIME_WAIT. The others end by a reset. (Also odd.)
FIN_EVERY = 5
RESET = struct.pack("ii", 1, 0)
MESSAGE = struct.Struct("!IQI16x")
UNLIMITED = 1 << 30
#: Errors of bind and connect that are not caused by the gateway.
LOCAL = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)


class Plan(NamedTuple):
    """The work of a client: its rate, its source addresses and its source ports."""

    number: int
    rate: float
    #: Pairs of a source address and the server's address of the same family. The client uses all ports with the first
    #: pair, then all ports with the next.
    addresses: Sequence[tuple[str, str]]
    first_port: int
    last_port: int


class Connection:
    """A connection and its state."""

    __slots__ = (
        "due",
        "expected",
        "left",
        "message",
        "number",
        "patient_until",
        "pause",
        "paused",
        "port",
        "repeat",
        "socket",
        "tcp",
    )

    def __init__(self, opened: socket.socket, number: int, tcp: bool, port: int, left: int, pause: float) -> None:
        self.socket, self.number, self.tcp, self.port = opened, number, tcp, port
        #: The number of messages left, and the seconds between two messages.
        self.left, self.pause = left, pause
        self.message = b""
        #: The missing part of the answer; empty while the connection waits for no answer.
        self.expected = b""
        #: Whether the connection pauses before its next message.
        self.paused = False
        #: Seconds until the message is sent again.
        self.repeat = REPEAT
        #: The times of the next check of the connection, and of its failure.
        self.due = self.patient_until = 0.0


def connect(stop: Stop, ready: Callable[[], None], plan: Plan) -> dict[str, Any]:
    """Open connections until the parent requests the end, and return the figures."""
    with contextlib.closing(_Client(plan)) as client:
        client.open_steady()
        ready()
        began = time.monotonic()
        client.run(stop)
        seconds = time.monotonic() - began
        client.drain()
        return {"seconds": seconds, **client.figures()}


class _Client:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        #: The times of the next check of each connection: (time, number, file descriptor).
        self._agenda: list[tuple[float, int, int]] = []
        self._number = 0
        self._draining = False
        self._paused = 0
        self.started: Counter[str] = Counter()
        self.exchanges = self.repeated = self.finished = self.skipped = self.steady = 0
        #: Failed connections by reason: those that must not fail, and those in the match of the flush.
        self.broken: Counter[str] = Counter()
        self.flushed: Counter[str] = Counter()

    def figures(self) -> dict[str, Any]:
        names = ("started", "exchanges", "repeated", "finished", "skipped", "steady", "broken", "flushed")
        return {name: getattr(self, name) for name in names}

    def close(self) -> None:
        for connection in self._connections.values():
            connection.socket.close()
        self._epoll.close()

    # the rate

    def open_steady(self) -> None:
        """Open the connections that stay. Both clients use the same ports; the gateway changes those of one client."""
        for place in range(STEADY):
            for tcp in (True, False):
                address = self._plan.addresses[place % len(self._plan.addresses)]
                self._open(tcp, ports.STEADY, address, STEADY_PORT + place, UNLIMITED, STEADY_PAUSE)
        self.steady = len(self._connections)

    def run(self, stop: Stop) -> None:
        """Open connections at the rate. If that is not possible, the rate falls; the client does not catch up."""
        self._epoll.register(stop, select.EPOLLIN)
        began, opened = time.monotonic(), 0.0
        while True:
            wanted = (time.monotonic() - began) * self._plan.rate
            opened = max(opened, wanted - self._plan.rate)
            number = len(self._connections)
            room = min(MOST - number, MOST_WAITING - (number - self._paused))
            for _turn in range(min(BURST, int(wanted - opened), room)):
                self._open_next()
                opened += 1
            if self._step(stop.fileno(), TICK):
                self._epoll.unregister(stop)
                return

    def drain(self) -> None:
        """Wait until each connection has its answer or has failed."""
        self._draining = True
        for fd, connection in list(self._connections.items()):
            if connection.paused:
                self._finish(fd, connection)
        while self._connections:
            self._step(-1, TICK)

    def _open_next(self) -> None:
        number, plan = self._number, self._plan
        self._number += 1
        span = plan.last_port - plan.first_port + 1
        address = plan.addresses[number // span % len(plan.addresses)]
        left, pause = (LONG_MESSAGES, LONG_PAUSE) if number % LONG_EVERY == 0 else (1, 0.0)
        port = ports.TURNS[number // 2 % len(ports.TURNS)]
        self._open(number % 2 == 0, port, address, plan.first_port + number % span, left, pause)

    def _open(
        self, tcp: bool, port: int, addresses: tuple[str, str], source_port: int, left: int, pause: float
    ) -> None:
        source, destination = addresses
        family = socket.AF_INET6 if ":" in source else socket.AF_INET
        kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
        opened = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind((source, source_port))
            result = opened.connect_ex((destination, port))
            if result not in (0, errno.EINPROGRESS):
                raise OSError(result, os.strerror(result))
        except OSError as error:
            opened.close()
            if error.errno in LOCAL:
                self.skipped += 1
                return
            raise
        self.started["tcp" if tcp else "udp"] += 1
        connection = Connection(opened, self.started.total(), tcp, port, left, pause)
        fd = opened.fileno()
        self._connections[fd] = connection
        if tcp:
            self._epoll.register(fd, select.EPOLLOUT)
            self._wait_for_answer(fd, connection)
        else:
            self._epoll.register(fd, select.EPOLLIN)
            self._send(fd, connection)

    # one connection

    def _step(self, stop: int, timeout: float) -> bool:
        """Handle events and timeouts. Return whether the parent requests the end."""
        for fd, events in self._epoll.poll(timeout, 256):
            if fd == stop:
                return True
            connection = self._connections[fd]
            if events & select.EPOLLOUT:
                self._epoll.modify(fd, select.EPOLLIN)
                self._send(fd, connection)
            else:
                self._receive(fd, connection)
        now = time.monotonic()
        while self._agenda and self._agenda[0][0] <= now:
            due, number, fd = heapq.heappop(self._agenda)
            connection_due = self._connections.get(fd)
            if connection_due and connection_due.number == number and connection_due.due == due:
                self._check(fd, connection_due, now)
        return False

    def _check(self, fd: int, connection: Connection, now: float) -> None:
        if connection.paused:
            self._pause(connection, False)
            self._send(fd, connection)
        elif now >= connection.patient_until:
            self._break(fd, connection, "no answer")
        else:
            self._transmit(fd, connection)
            self.repeated += 1
            connection.repeat *= 2
            self._schedule(fd, connection, min(connection.patient_until, now + connection.repeat))

    def _send(self, fd: int, connection: Connection) -> None:
        """Send the next message."""
        connection.left -= 1
        connection.message = connection.expected = MESSAGE.pack(self._plan.number, connection.number, connection.left)
        if self._transmit(fd, connection):
            self._wait_for_answer(fd, connection)

    def _transmit(self, fd: int, connection: Connection) -> bool:
        try:
            connection.socket.send(connection.message)
        except BlockingIOError:
            pass
        except OSError as error:
            self._fail(fd, connection, error)
            return not connection.tcp
        return True

    def _wait_for_answer(self, fd: int, connection: Connection) -> None:
        now = time.monotonic()
        connection.patient_until = now + (PATIENCE_IF_FLUSHED if connection.port == ports.FLUSHED else PATIENCE)
        connection.repeat = REPEAT
        self._schedule(fd, connection, connection.patient_until if connection.tcp else now + REPEAT)

    def _schedule(self, fd: int, connection: Connection, due: float) -> None:
        connection.due = due
        heapq.heappush(self._agenda, (due, connection.number, fd))

    def _receive(self, fd: int, connection: Connection) -> None:
        try:
            data = connection.socket.recv(4096)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(fd, connection, error)
            return
        if not connection.tcp:
            # A datagram that was sent twice may be answered twice
            if not connection.expected or _is_older(data, connection.message):
                return
            if len(data) != MESSAGE.size:
                self._break(fd, connection, "a wrong answer")
                return
        if not data:
            self._break(fd, connection, "closed by the server")
        elif not connection.expected.startswith(data):
            self._break(fd, connection, "a wrong answer")
        else:
            connection.expected = connection.expected[len(data) :]
            if not connection.expected:
                self._handle_answer(fd, connection)

    def _handle_answer(self, fd: int, connection: Connection) -> None:
        """Handle a message that came back unchanged."""
        self.exchanges += 1
        if connection.left and not self._draining:
            self._pause(connection, True)
            self._schedule(fd, connection, time.monotonic() + connection.pause)
        else:
            self._finish(fd, connection)

    def _pause(self, connection: Connection, paused: bool) -> None:
        self._paused += paused - connection.paused
        connection.paused = paused

    def _finish(self, fd: int, connection: Connection) -> None:
        self.finished += 1
        self._close(fd, connection)

    def _fail(self, fd: int, connection: Connection, error: OSError) -> None:
        """Handle an error. TCP ends; a datagram that was refused is sent again."""
        if connection.tcp:
            self._break(fd, connection, error.strerror or str(error))

    def _break(self, fd: int, connection: Connection, reason: str) -> None:
        if connection.port == ports.FLUSHED:
            self.flushed[reason] += 1
        else:
            self.broken[f"{'TCP' if connection.tcp else 'UDP'} to port {connection.port}: {reason}"] += 1
        self._close(fd, connection)

    def _close(self, fd: int, connection: Connection) -> None:
        del self._connections[fd]
        self._pause(connection, False)
        if connection.tcp and connection.number % FIN_EVERY:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.socket.close()


def _is_older(data: bytes, message: bytes) -> bool:
    """Return whether this is the answer to an earlier message of the same connection."""
    if len(data) != MESSAGE.size:
        return False
    (client, number, left), wanted = MESSAGE.unpack(data), MESSAGE.unpack(message)
    return bool((client, number) == wanted[:2] and left > wanted[2])
