# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to delete entries, built from the messages of a dump.

A request contains the original tuple, the zone and the id, which are the same bytes in a dump and in a request. Because
of the zone and the id, an entry that has replaced another one meanwhile is not deleted.
"""

from __future__ import annotations

import struct
from itertools import repeat
from typing import Callable

from .. import uapi
from ..codec.codec import Values
from ..codec.layout import MessageLayout
from ..ctnetlink.messages import nfgenmsg
from ..ctnetlink.requests import DELETE
from ..netlink.message import Message, RequestBatch, frame, request_batch
from ..netlink.socket import BATCH_SIZE
from .scan import Action, Visitor

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
            return lambda data: self.add_all(layout.entries(data))
        parts = sorted(
            (layout.attributes[number] for number in _KEY if number in layout.attributes), key=lambda part: part.start
        )
        if parts[-1].stop > layout.size:  # the last attribute is not padded
            return lambda data: self.add_all(layout.entries(data))
        sizes = [part.stop - part.start for part in parts]
        header = frame(
            Message(uapi.IPCTNL_MSG_CT_DELETE, 0, nfgenmsg(layout.constants["family"]) + bytes(sum(sizes))), 0
        )
        before, after = header[:8], header[12 : uapi.NFNL_HDRLEN]
        read = layout.slices(parts)
        write = struct.Struct(f"={len(before)}sI{len(after)}s" + "".join(f"{size}s" for size in sizes)).pack

        def act(data: bytes) -> None:
            keys = list(zip(*read(data)))
            done, count = 0, len(keys[0])
            while done < count:
                number = self._first + len(self._frames)
                some = [key[done : done + self._first + self._size - number] for key in keys]
                self._frames += map(write, repeat(before), range(number, number + len(some[0])), repeat(after), *some)
                done += len(some[0])
                self._close_full_batch()

        return act

    def add(self, entry: Values) -> None:
        self._frames.append(frame(DELETE.message(entry), self._first + len(self._frames)))
        self._close_full_batch()

    def drain(self, last: bool = False) -> list[RequestBatch]:
        """Return the full batches, with `last` also the incomplete one."""
        if last and self._frames:
            self._close_batch()
        batches, self._batches = self._batches, []
        return batches

    def _close_full_batch(self) -> None:
        if len(self._frames) == self._size:
            self._close_batch()

    def _close_batch(self) -> None:
        self._batches.append(request_batch(self._frames, self._first))
        self._frames.clear()
        self._first = self._numbers(self._size)
