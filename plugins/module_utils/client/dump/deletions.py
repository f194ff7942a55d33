# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to delete entries, built from the messages of a dump.

A request contains the original tuple, the zone and the id, which are the same bytes in a dump and in a request. Because
of the zone and the id, an entry that has replaced another one meanwhile is not deleted.
"""

from __future__ import annotations

import struct
from typing import Callable

from .. import uapi
from ..codec.codec import Values
from ..codec.layout import MessageLayout
from ..ctnetlink.messages import nfgenmsg
from ..ctnetlink.requests import DELETE
from ..netlink.message import Message, RequestBatch, frame, request_batch
from ..netlink.socket import BATCH_SIZE
from .scan import Action, Visitor

_NUMBER = struct.Struct("=I")
_KEY = (uapi.CTA_TUPLE_ORIG, uapi.CTA_ZONE, uapi.CTA_ID)
#: The keys that a request must contain. Without a tuple, it would delete the whole table.
_TUPLE = ("original.source", "original.destination")


class DeleteRequests(Visitor):
    """Builds a request for each matching entry. `drain` returns the requests in batches.

    `numbers` reserves the given number of sequence numbers and returns the first.
    """

    def __init__(self, numbers: Callable[[int], int], size: int = BATCH_SIZE) -> None:
        self._numbers = numbers
        self._size = size
        self._frames: list[bytes] = []
        self._first = numbers(size)
        self._batches: list[RequestBatch] = []

    def on(self, layout: MessageLayout) -> Action:
        if not all(layout.column(key) for key in _TUPLE):
            return lambda datagram, start, message: self.add(layout.entry(datagram, start))
        parts = [layout.attributes[number] for number in _KEY if number in layout.attributes]
        key = bytes(sum(part.stop - part.start for part in parts))
        header = frame(Message(uapi.IPCTNL_MSG_CT_DELETE, 0, nfgenmsg(layout.constants["family"]) + key), 0)
        before, after = header[:8], header[12 : uapi.NFNL_HDRLEN]
        frames, number, full = self._frames, _NUMBER.pack, self._size
        (tuple_start, tuple_stop), *others = [(part.start, part.stop) for part in parts]
        (next_start, next_stop), *rest = others or [(0, 0)]

        def act(datagram: bytes, start: int, message: int) -> None:
            request = (
                before
                + number(self._first + len(frames))
                + after
                + datagram[start + tuple_start : start + tuple_stop]
                + datagram[start + next_start : start + next_stop]
            )
            for begin, end in rest:
                request += datagram[start + begin : start + end]
            frames.append(request)
            if len(frames) == full:
                self._close_batch()

        return act

    def add(self, entry: Values) -> None:
        self._frames.append(frame(DELETE.message(entry), self._first + len(self._frames)))
        if len(self._frames) == self._size:
            self._close_batch()

    def drain(self, last: bool = False) -> list[RequestBatch]:
        """Return the full batches, with `last` also the incomplete one."""
        if last and self._frames:
            self._close_batch()
        batches, self._batches = self._batches, []
        return batches

    def _close_batch(self) -> None:
        self._batches.append(request_batch(self._frames, self._first))
        self._frames.clear()
        self._first = self._numbers(self._size)
