# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Works with a bare socket: they measure the cost of the kernel, which is the lower limit for every program.

Each function prepares a work and returns the function to be timed. That function returns the number of things done.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterable

from .mix import CYCLE, HALVES, KINDS, PORT, TCP, Kind, Template

Work = Callable[[], int]

NETLINK_NETFILTER = 12
GET, DELETE, STATISTICS = 0x101, 0x102, 0x105
REQUEST, ACK, DUMP = 1, 4, 0x300
ERROR, DONE = 2, 3
BUFFER = 1 << 16
#: A message that only requests an acknowledgement. The kernel sends it after all messages before it.
BARRIER = struct.pack("=IHHII", 16, 1, REQUEST | ACK, 0, 0)
#: Turns in one send: about sixty requests.
TURNS = 3


class NotPrivate(RuntimeError):
    """This process is in the machine's own network namespace."""


def receive() -> Work:
    """Read the whole table into one buffer and parse only the end."""
    return _receive(struct.pack("=BBH", 0, 0, 0))


def receive_half() -> Work:
    """Do the same, with the kernel's filter for TCP and port 443."""
    numbers = _attribute(1, bytes([TCP])) + _attribute(3, struct.pack("!H", PORT))
    body = _attribute(1 | 0x8000, _attribute(2 | 0x8000, numbers))
    body += _attribute(25 | 0x8000, _attribute(1, struct.pack("=I", 1 << 3 | 1 << 5)))
    return _receive(struct.pack("=BBH", socket.AF_INET, 0, 0) + body)


def fill(entries: str, half: str = "") -> Work:
    """Create this number of entries of the mix, or only the half that a flush has removed."""
    _stay_private()
    kinds = HALVES[half] if half else KINDS
    turns = int(entries) // CYCLE
    return lambda: _send(kinds, turns)


def empty() -> Work:
    """Empty the table now.

    If its namespace were closed instead, the kernel would empty it during the next measurement.
    """
    _stay_private()

    def work() -> int:
        with _open() as connection:
            before = _count(connection)
            connection.send(struct.pack("=IHHIIBBH", 20, DELETE, REQUEST | ACK, 0, 0, 0, 1, 0))
            _acknowledged(connection)
            return before

    return work


def count() -> Work:
    """Return the number of entries."""

    def work() -> int:
        with _open() as connection:
            return _count(connection)

    return work


def _receive(body: bytes) -> Work:
    connection = _open()
    request = struct.pack("=IHHII", 16 + len(body), GET, REQUEST | DUMP, 0, 0) + body
    buffer = bytearray(BUFFER)
    into = connection.recv_into

    def work() -> int:
        connection.send(request)
        while True:
            size = into(buffer)
            # The end of the dump is a message of 20 bytes, alone or after the last entries.
            if buffer[size - 16] == DONE and buffer[size - 20] == 20 and not buffer[size - 15]:
                return 1
            if buffer[4] == ERROR:
                raise OSError(-struct.unpack_from("=i", buffer, 16)[0], "the dump was refused")

    return work


def _send(kinds: Iterable[Kind], turns: int) -> int:
    requests = [Template(kind).request for kind in kinds]
    with _open() as connection:
        for start in range(0, turns, TURNS):
            span = range(start, min(start + TURNS, turns))
            connection.send(b"".join([request(turn) for turn in span for request in requests]) + BARRIER)
            _acknowledged(connection)
    return turns * len(requests)


def _acknowledged(connection: socket.socket) -> None:
    """Wait for the one acknowledgement. Every error arrives before it."""
    answer = connection.recv(BUFFER)
    number = -struct.unpack_from("=i", answer, 16)[0]
    if number:
        raise OSError(number, os.strerror(number))


def _count(connection: socket.socket) -> int:
    connection.send(struct.pack("=IHHIIBBH", 20, STATISTICS, REQUEST, 0, 0, 0, 0, 0))
    answer = connection.recv(BUFFER)
    number: int = struct.unpack_from("!I", answer, 24)[0]
    return number


def _stay_private() -> None:
    """Refuse to change the machine's own table, even after an earlier error."""
    if os.readlink("/proc/self/ns/net") == os.environ["BENCH_MACHINE"]:
        raise NotPrivate("this would change the machine's own connection tracking table")


def _open() -> socket.socket:
    connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    connection.bind((0, 0))
    return connection


def _attribute(number: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)
