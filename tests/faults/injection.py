# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a chosen system call of the client fail.

The client reaches the kernel through the sockets of `client.netlink`, and the settings through the files that
`client.host.sysctl` opens. `Injector` replaces the modules `socket` and `os` there with copies whose calls it counts.
It works in this process only, so call it in a forked child.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import types
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Any, NamedTuple

from ansible_collections.netops.conntrack.plugins.module_utils.client.host import sysctl
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink import socket as netlink

from . import DUMP, Fault

#: Timeout in seconds for a lost answer. The kernel answers a request before the call that sends it returns.
PATIENCE = 0.02
#: Length, type and flags of a netlink message.
_HEADER = struct.Struct("=IHH")
_HEADER_SIZE = 16
_NEW = 0
#: Offset of the attributes in a netfilter message.
_ATTRIBUTES_AT = 20
_DUMP, _INTERRUPTED = 0x300, 0x10


class Call(NamedTuple):
    """A system call: the `number`-th of its `kind`, and whether it receives a part of a dump."""

    kind: str
    number: int
    is_dump: bool = False


class Injector:
    """Count the calls, and make one of them fail, or with `stays` also all calls after it.

    `before` is called before each call, with its number among all calls.

    `calls` are the calls made so far, and `struck` is whether the fault was injected.
    """

    def __init__(
        self,
        fault: Fault | None = None,
        number: int = -1,
        before: Callable[[int], None] | None = None,
        stays: bool = False,
    ) -> None:
        self.calls: list[Call] = []
        self.struck = False
        self._fault = fault
        self._number = number
        self._before = before
        self._stays = stays
        self._counts: dict[str, int] = {}
        self._lock = Lock()

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Count the calls of the client in the block."""
        self.install()
        try:
            yield
        finally:
            netlink.socket, sysctl.os = socket, os  # type: ignore[attr-defined]

    def install(self) -> None:
        """Count the calls of the client from now on, in this process."""
        injector = self

        class Socket(_Socket):
            def count(self, kind: str) -> Fault | None:
                return injector.count(kind)

            def note_dump(self) -> None:
                injector.note_dump()

        fake_socket = types.ModuleType("socket")
        vars(fake_socket).update(vars(socket), socket=Socket)
        netlink.socket = fake_socket  # type: ignore[assignment]

        def write(descriptor: int, data: bytes) -> int:
            injector.refuse("write")
            return os.write(descriptor, data)

        fake_os = types.ModuleType("os")
        vars(fake_os).update(vars(os), write=write)
        sysctl.os = fake_os  # type: ignore[assignment]

    def count(self, kind: str) -> Fault | None:
        """Count a call, and return the fault if this call must fail."""
        with self._lock:
            number = self._counts.get(kind, 0)
            self._counts[kind] = number + 1
            self.calls.append(Call(kind, number))
            if self._before is not None:
                self._before(len(self.calls) - 1)
            if self._fault is None or kind != self._fault.call:
                return None
            if number != self._number and not (self._stays and number > self._number):
                return None
            self.struck = True
            return self._fault

    def refuse(self, kind: str) -> None:
        """Count a call, and raise the error if this call must fail."""
        fault = self.count(kind)
        if fault is not None:
            raise OSError(fault.errno, os.strerror(fault.errno))

    def note_dump(self) -> None:
        """Note that the last call received a part of a dump."""
        with self._lock:
            last = max(place for place, call in enumerate(self.calls) if call.kind == "receive")
            self.calls[last] = self.calls[last]._replace(is_dump=True)


class _Socket(socket.socket):
    """A netlink socket whose calls can be counted."""

    def count(self, kind: str) -> Fault | None:
        raise NotImplementedError

    def note_dump(self) -> None:
        raise NotImplementedError

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self._dumps = False
        self._refuse("open")
        super().__init__(*arguments, **more)

    def _refuse(self, kind: str) -> None:
        fault = self.count(kind)
        if fault is not None:
            raise OSError(fault.errno, os.strerror(fault.errno))

    def bind(self, address: Any) -> None:
        self._refuse("bind")
        super().bind(address)

    def setsockopt(self, *arguments: Any) -> None:
        self._refuse("setsockopt")
        if arguments[:2] == (socket.SOL_SOCKET, socket.SO_RCVTIMEO):
            arguments = (*arguments[:2], struct.pack("@ll", 0, int(PATIENCE * 1e6)))
        super().setsockopt(*arguments)

    def getsockopt(self, *arguments: Any) -> Any:
        self._refuse("getsockopt")
        return super().getsockopt(*arguments)

    def send(self, data: Any, *flags: int) -> int:
        self._refuse("send")
        _length, kind, request_flags = _HEADER.unpack_from(data)
        self._dumps = kind & 0xFF != _NEW and request_flags & _DUMP == _DUMP
        return super().send(data, *flags)

    def recvmsg_into(self, buffers: Any, *more: Any) -> Any:
        fault = self.count("receive")
        if fault is not None and fault.how == "refused":
            raise OSError(fault.errno, os.strerror(fault.errno))
        size, ancillary, flags, sender = super().recvmsg_into(buffers, *more)
        view = memoryview(buffers[0])[:size]
        if self._dumps:
            self.note_dump()
        if fault is None:
            return size, ancillary, flags, sender
        if fault.how == "lost":
            self._drain(buffers[0])
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        if fault.how == "overrun":
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        if fault.how == "short":
            return _cut(view), ancillary, flags, sender
        if fault.how == "cut header":
            return _cut(view, _HEADER_SIZE // 2), ancillary, flags, sender
        if fault.how == "too long":
            return _cut(view, 0), ancillary, flags | socket.MSG_TRUNC, sender
        if fault.how == "garbled":
            _garble(view)
        if fault.how == "interrupted":
            _interrupt(view)
        return size, ancillary, flags, sender

    def _drain(self, buffer: Any) -> None:
        """Discard everything that the kernel has sent.

        The kernel does not continue a dump while answers are missing.
        """
        while True:
            try:
                super().recv_into(buffer, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return


def _cut(datagram: memoryview, left: int | None = None) -> int:
    """Return the size of the datagram with its last message cut in half, or cut after `left` bytes."""
    start = end = 0
    while end < len(datagram):
        start, length = end, _HEADER.unpack_from(datagram, end)[0]
        end += length + 3 & ~3
    return start + ((len(datagram) - start) // 2 if left is None else left)


def _garble(datagram: memoryview) -> None:
    """Set the length of the first attribute of the first message beyond the end of the message."""
    length, kind, _flags = _HEADER.unpack_from(datagram)
    if kind >= _HEADER_SIZE and length >= _ATTRIBUTES_AT + 4:
        struct.pack_into("=H", datagram, _ATTRIBUTES_AT, 0xFFF0)


def _interrupt(datagram: memoryview) -> None:
    """Set NLM_F_DUMP_INTR in each message."""
    start = 0
    while start + _HEADER_SIZE <= len(datagram):
        length, kind, flags = _HEADER.unpack_from(datagram, start)
        _HEADER.pack_into(datagram, start, length, kind, flags | _INTERRUPTED)
        start += length + 3 & ~3


def applies(fault: Fault, call: Call) -> bool:
    """Return whether a fault can happen to a call."""
    return fault.call == call.kind and (fault.where != DUMP or call.is_dump)
