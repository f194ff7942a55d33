# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What changes in a conntrack table while a block runs, told by the kernel itself."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

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


class EventLog(list[dict[str, Any]]):
    """The changes of a block, in order; complete when the block is left.

    Each is an entry as in the module table with one key more, event: new, update or destroy. Changes of
    expectations are new_expectation and destroy_expectation, with the message in hex. There is no waiting:
    the kernel tells a change before the call that made it returns; only what packets on their way cause may
    come later.

    :raises OSError: with ENOBUFS, on leaving the block, when there were more than could be read in time.
    """

    def __init__(self, entered: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        super().__init__()
        self._entered = entered
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
        for datagram in self._datagrams:
            self.extend(_decode(datagram))

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
        return [change["event"] for change in self]


def _decode(datagram: bytes) -> Iterator[dict[str, Any]]:
    while len(datagram) >= HEADER.size:
        length, kind, flags = HEADER.unpack_from(datagram)
        message, datagram = datagram[:length], datagram[(length + 3) & ~3 :]
        event = "destroy" if kind & 0xFF == DELETE else "new" if flags & NLM_F_CREATE else "update"
        if kind >> 8 == CTNETLINK:
            decoded = nfct_msg(message)
            decoded.decode()
            yield {"event": event, **from_message(decoded)}
        else:
            yield {"event": f"{event}_expectation", "message": message.hex()}
