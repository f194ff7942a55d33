# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to delete entries, built from the messages of a dump.

A request contains the original tuple, the zone and the id, which are the same bytes in a dump and in a request. Because
of the zone and the id, an entry that has replaced another one meanwhile is not deleted, unless it has the same memory
in the kernel and therefore the same id.
"""

from __future__ import annotations

import struct
from typing import Callable, Sequence

from .. import uapi
from ..codec.codec import Values
from ..codec.layout import MessageLayout
from ..ctnetlink.messages import nfgenmsg
from ..ctnetlink.requests import DELETE
from ..netlink.message import FLAGS, FLAGS_AT, Message, RequestBatch, frame
from ..netlink.socket import BATCH_SIZE
from .scan import Action, Visitor

_KEY = (uapi.CTA_TUPLE_ORIG, uapi.CTA_ZONE, uapi.CTA_ID)
#: The keys that a request must contain. Without a tuple, it would delete the whole table.
_TUPLE = ("original.source", "original.destination")

#: The size of a word, which is a unit of the alignment of attributes, and the index of the sequence number.
_WORD, _SEQUENCE = 4, 2
#: The mask of a word that is equal in all messages of a layout.
_CONSTANT = b"\xff" * _WORD


class DeleteRequests(Visitor):
    """Builds a request for each matching entry. `drain` returns the requests in batches.

    `numbers` reserves the given number of sequence numbers and returns the first.
    """

    def __init__(self, numbers: Callable[[int], int], size: int = BATCH_SIZE) -> None:
        self._numbers = numbers
        self._size = size
        #: The requests of the next batch, in pieces, their number, and the size of the last one.
        self._requests: list[bytearray] = []
        self._count = self._last_size = 0
        self._first = numbers(size)
        self._batches: list[RequestBatch] = []

    def on(self, layout: MessageLayout) -> Action:
        if not all(layout.column(key) for key in _TUPLE):
            return lambda data: self.add_all(layout.entries(data))
        parts = sorted(
            (layout.attributes[number] for number in _KEY if number in layout.attributes), key=lambda part: part.start
        )
        if parts[-1].stop > layout.size or layout.size % _WORD:  # the last attribute is not padded
            return lambda data: self.add_all(layout.entries(data))
        template, places = _template(layout, parts)
        width, step = len(template) // _WORD, layout.size // _WORD

        def act(data: bytes) -> None:
            words, done, count = memoryview(data).cast("I"), 0, len(data) // layout.size
            while done < count:
                number = self._first + self._count
                some = min(count - done, self._first + self._size - number)
                requests = bytearray(template * some)
                into = memoryview(requests).cast("I")
                into[_SEQUENCE::width] = memoryview(struct.pack(f"={some}I", *range(number, number + some))).cast("I")
                of = words[done * step : (done + some) * step]
                for place, source in places:
                    into[place::width] = of[source::step]
                self._queue(requests, len(template), some)
                done += some

        return act

    def add(self, entry: Values) -> None:
        request = frame(DELETE.message(entry), self._first + self._count)
        self._queue(bytearray(request), len(request), 1)

    def drain(self, last: bool = False) -> list[RequestBatch]:
        """Return the full batches, with `last` also the incomplete one."""
        if last and self._count:
            self._close_batch()
        batches, self._batches = self._batches, []
        return batches

    def _queue(self, requests: bytearray, size: int, count: int) -> None:
        """Add requests of this size, which fit into the batch, and close the batch if it is full."""
        self._requests.append(requests)
        self._last_size = size
        self._count += count
        if self._count == self._size:
            self._close_batch()

    def _close_batch(self) -> None:
        """Join the requests to a batch. The last one requests an acknowledgement."""
        last = self._requests[-1]
        FLAGS.pack_into(last, len(last) - self._last_size + FLAGS_AT, uapi.NLM_F_REQUEST | uapi.NLM_F_ACK)
        self._batches.append(RequestBatch(b"".join(self._requests), self._first, self._count))
        self._requests.clear()
        self._count = 0
        self._first = self._numbers(self._size)


def _template(layout: MessageLayout, parts: Sequence[slice]) -> tuple[bytes, list[tuple[int, int]]]:
    """Return a request with the constants of a layout, and the places of its words that vary.

    Each is the index of a word of four bytes in the request, and its index in the message.
    """
    head = Message(uapi.IPCTNL_MSG_CT_DELETE, 0, nfgenmsg(layout.constants["family"]))
    constants, varies = layout.value.to_bytes(layout.size, "big"), layout.mask.to_bytes(layout.size, "big")
    payload, places = bytearray(head.payload), []
    for part in parts:
        for start in range(part.start, part.stop, _WORD):
            if varies[start : start + _WORD] != _CONSTANT:
                places.append(((uapi.NLMSG_HDRLEN + len(payload)) // _WORD, start // _WORD))
            payload += constants[start : start + _WORD]
    return frame(head._replace(payload=bytes(payload)), 0), places
