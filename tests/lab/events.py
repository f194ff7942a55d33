# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What changes in a conntrack table while a block runs, told by the kernel itself."""

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

# Numbers of linux/netfilter/nfnetlink_compat.h, as the bits that bind(2) takes.
NEW, UPDATE, DESTROY, EXPECTATION_NEW, EXPECTATION_DESTROY = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 5


class EventLog(Sequence[dict[str, Any]]):
    """The changes of a block, in order; complete when the block is left.

    Only the changes that are read are decoded, which is slow: their number and kinds are in the headers.
    Each is an entry as in the module table with one key more, event: new, update or destroy. Changes of
    expectations are new_expectation and destroy_expectation, with the message in hex. There is no waiting:
    the kernel tells a change before the call that made it returns; only what packets on their way cause may
    come later.

    :raises OSError: with ENOBUFS, on leaving the block, when there were more than could be read in time.
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
        with contextlib.suppress(PermissionError):  # in a user namespace of one's own
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
        """Take messages off the socket, whose buffer is small, until the block is left and none is there."""
        while True:
            ready = select.select([self._socket, self._stopped], [], [])[0]
            # One may have come after the socket was looked at and before the end was
            if self._socket not in ready and not select.select([self._socket], [], [], 0)[0]:
                return
            try:
                self._datagrams.append(self._socket.recv(1 << 16))
            except OSError as failure:  # ENOBUFS: some are lost
                self._failure = failure

    def kinds(self) -> list[str]:
        """Only what happened, in order: ["new", "update", "destroy"]."""
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
