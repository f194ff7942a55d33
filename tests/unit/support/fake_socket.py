# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's end of a netlink socket: a function from requests to replies, and a small table.

It counts the sent datagrams, so that a test can limit the number of system calls for a task.
"""

from __future__ import annotations

import errno
import os
import struct
from collections import deque
from typing import Any, Callable, Iterable, Union

from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.socket import (
    NetlinkSocket,
    NetlinkTransport,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from ansible_collections.netops.conntrack.tests.unit.support import wire

ACK = 0x04
NOOP = 1
MULTI = 0x02
DUMP = 0x300
CREATE = 0x400
EXCL = 0x200

#: A datagram, or the error that receiving raises instead.
Reply = Union[bytes, OSError]
Respond = Callable[[wire.Framed], Iterable[Reply]]


class FakeDatagrams(NetlinkTransport):
    """Datagrams whose other end is `respond`, which is called with one request after another."""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond
        self.sent: list[bytes] = []
        self.waiting: deque[Reply] = deque()
        self.closed = False

    @property
    def requests(self) -> list[wire.Framed]:
        """Return every request that was sent."""
        return [request for datagram in self.sent for request in wire.messages(datagram)]

    def grow(self, receive_buffer: int) -> int:
        """Keep the default size, as the kernel does without privilege."""
        return 212992

    def send(self, datagram: bytes) -> None:
        assert not self.closed
        self.sent.append(datagram)
        for request in wire.messages(datagram):
            self.waiting.extend(self.respond(request))

    def receive(self) -> bytes:
        if not self.waiting:
            raise OSError(errno.ETIMEDOUT, "no answer")
        reply = self.waiting.popleft()
        if isinstance(reply, OSError):
            raise reply
        return reply

    def close(self) -> None:
        self.closed = True


class FakeMulticast(NetlinkTransport):
    """The kernel's end of a socket in multicast groups: sent messages wait here, behind a real file descriptor."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.waiting: deque[Reply] = deque()
        self._read, self._written = os.pipe()
        self.closed = False

    def put(self, datagram: Reply) -> None:
        self.waiting.append(datagram)
        os.write(self._written, b"!")

    def overrun(self) -> None:
        """Lose all waiting messages, and more."""
        while self.waiting:
            self.waiting.popleft()
            os.read(self._read, 1)
        self.put(OSError(errno.ENOBUFS, "lost"))

    def fileno(self) -> int:
        return self._read

    @property
    def receive_buffer(self) -> int:
        return 2 * int(self.options["receive_buffer"])

    def receive(self) -> bytes:
        if not self.waiting:
            raise OSError(errno.ETIMEDOUT, "no answer")
        os.read(self._read, 1)
        datagram = self.waiting.popleft()
        if isinstance(datagram, OSError):
            raise datagram
        return datagram

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            os.close(self._read)
            os.close(self._written)


def refusal(request: wire.Framed, code: int) -> bytes:
    """Return an error message (or with 0 an acknowledgement), without the request's payload."""
    echo = struct.pack("=LHHLL", 16 + len(request.payload), *request[:3], 0)
    return wire.framed(2, 0x100, request.sequence, struct.pack("=i", -code) + echo)


def acknowledge(request: wire.Framed) -> list[Reply]:
    """Return the kernel's answer to a successful request: nothing, unless the request has the flag ACK."""
    return [refusal(request, 0)] if request.flags & ACK else []


def done(request: wire.Framed, code: int = 0) -> bytes:
    """Return the end of a dump."""
    return wire.framed(3, MULTI, request.sequence, struct.pack("=i", -code))


def entry_message(request: wire.Framed, payload: bytes, flags: int = MULTI) -> bytes:
    """Return an entry in answer to a request."""
    return wire.framed(0x0100, flags, request.sequence, payload)


class FakeKernel:
    """A table of entries, found by either tuple and the zone as in ctnetlink."""

    def __init__(self, *entries: bytes) -> None:
        self.entries = list(entries)
        self.sockets: list[FakeDatagrams] = []

    def table(self) -> Table:
        """Return the client's view of this table."""
        return Table(self.connect)

    def connect(self) -> NetlinkSocket:
        self.sockets.append(FakeDatagrams(self.respond))
        return NetlinkSocket(self.sockets[-1])

    @property
    def requests(self) -> list[wire.Framed]:
        """Return every request that was sent, on any socket."""
        return [request for datagrams in self.sockets for request in datagrams.requests]

    def respond(self, request: wire.Framed) -> Iterable[Reply]:
        if request.type == NOOP:
            yield from acknowledge(request)
            return
        if request.flags & DUMP == DUMP and request.type == 0x0101:
            family = request.payload[0]
            for entry in self.entries:
                if family in (0, entry[0]):
                    yield entry_message(request, entry)
            yield done(request)
            return
        code = 0
        found = self.find(request.payload)
        if request.type == 0x0105:
            counts = wire.attribute((1,), struct.pack(">I", len(self.entries)))
            counts += wire.attribute((2,), struct.pack(">I", 262144))
            yield wire.framed(0x0105, MULTI, request.sequence, b"\0\0\0\0" + counts)
        elif request.type in (0x0101, 0x0103):
            if found is not None:
                yield entry_message(request, found)
            else:
                code = errno.ENOENT
        elif request.type == 0x0102:
            wanted = wire.tree(request.payload[4:])
            if found is None or wanted.get(12, wire.tree(found[4:]).get(12)) != wire.tree(found[4:]).get(12):
                code = errno.ENOENT
            else:
                self.entries.remove(found)
        elif found is not None and request.flags & EXCL:
            code = errno.EEXIST
        elif found is None and request.flags & CREATE:
            self.entries.append(request.payload)
        elif found is None:
            code = errno.ENOENT
        if code or request.flags & ACK:
            yield refusal(request, code)

    def find(self, payload: bytes) -> bytes | None:
        """Return the entry that has the original tuple of a request, in either direction."""
        wanted = wire.tree(payload[4:])
        for entry in self.entries:
            there = wire.tree(entry[4:])
            same_zone = wanted.get(18, b"\0\0") == there.get(18, b"\0\0")
            if entry[0] == payload[0] and same_zone and wanted.get(1) in (there[1], there[2]):
                return entry
        return None
