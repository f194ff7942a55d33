# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The changes in a conntrack table during a block, as the kernel reports them."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

from pyroute2.netlink.nfnetlink.nfctsocket import nfct_msg

from .table import from_message

NETLINK_NETFILTER = 12
SO_RCVBUFFORCE = 33
BUFFER = 32 << 20
NLM_F_CREATE = 0x400
HEADER = struct.Struct("=IHH8x")  # nlmsghdr: length, type, flags
CTNETLINK = 1
DELETE = 2

# Group numbers of linux/netfilter/nfnetlink_compat.h, as the bits for bind(2).
NEW, UPDATE, DESTROY, EXPECTATION_NEW, EXPECTATION_DESTROY = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 5


class EventLog(Sequence[dict[str, Any]]):
    """The changes during a block, in order. The list is complete after the block.

    Decoding is slow, so an event is decoded when it is read. The headers are enough for the number and the kinds.
    An event is an entry as in the module table, with the additional key `event`: new, update or destroy. Events of
    expectations are new_expectation and destroy_expectation, with the message in hex.

    The block does not wait for events. The kernel reports a change before the call that makes the change returns.
    Only events of packets in transit may come later.

    :raises OSError: with ENOBUFS, at the end of the block, if more events came than could be read in time.
    """

    def __init__(self, entered: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        self._entered = entered
        self._messages: list[bytes] = []
        self._datagrams: list[bytes] = []
        self._failure: OSError | None = None

    def __enter__(self) -> EventLog:
        with self._entered():
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        with contextlib.suppress(PermissionError):  # in an unprivileged user namespace
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        self._socket.bind((0, NEW | UPDATE | DESTROY | EXPECTATION_NEW | EXPECTATION_DESTROY))
        self._stop, self._stopped = socket.socketpair()
        self._reader = threading.Thread(target=self._read, name="events", daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._socket, self._stop, self._stopped:
            self._stop.send(b"stop")
            self._reader.join()
        if self._failure:
            raise self._failure
        self._messages = [message for datagram in self._datagrams for message in _split(datagram)]

    def __len__(self) -> int:
        return len(self._messages)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [_decode(message) for message in self._messages[index]]
        return _decode(self._messages[index])

    def _read(self) -> None:
        """Read messages until the block ends and the socket is empty, because its buffer is small."""
        while True:
            ready = select.select([self._socket, self._stopped], [], [])[0]
            # A message may arrive after the check of the socket and before the check for the end
            if self._socket not in ready and not select.select([self._socket], [], [], 0)[0]:
                return
            try:
                self._datagrams.append(self._socket.recv(1 << 16))
            except OSError as failure:  # ENOBUFS: some messages are lost
                self._failure = failure

    def kinds(self) -> list[str]:
        """Return the kinds of the events in order: ["new", "update", "destroy"]."""
        return [_kind(message) for message in self._messages]


def _split(datagram: bytes) -> Iterator[bytes]:
    while len(datagram) >= HEADER.size:
        (length, *_unused) = HEADER.unpack_from(datagram)
        yield datagram[:length]
        datagram = datagram[(length + 3) & ~3 :]


def _kind(message: bytes) -> str:
    _length, kind, flags = HEADER.unpack_from(message)
    event = "destroy" if kind & 0xFF == DELETE else "new" if flags & NLM_F_CREATE else "update"
    return event if kind >> 8 == CTNETLINK else f"{event}_expectation"


def _decode(message: bytes) -> dict[str, Any]:
    event = _kind(message)
    if event.endswith("_expectation"):
        return {"event": event, "message": message.hex()}
    decoded = nfct_msg(message)
    decoded.decode()
    return {"event": event, **from_message(decoded)}
