# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One pass over the messages of a dump: find those that match, and do with each what is wanted.

What is wanted is worked out once for each layout. A message that has none goes through the general
decoder and the match itself.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Callable, Sequence, Tuple

from .. import uapi
from ..codec.codec import Values
from ..codec.layout import ENTRY_LAYOUTS, LayoutCache, MessageLayout
from ..errors import MalformedMessage
from ..match.expression import prepared
from ..netlink.message import HEADER, Message

if TYPE_CHECKING:
    from ..match.expression import Term

_LENGTH = struct.Struct("=I")

#: What is done with a message, given the datagram, where in it the message begins, and the message as a
#: big-endian integer.
Action = Callable[[bytes, int, int], Any]
#: mask, value, mask and value of the match, the test, what to do
_Known = Tuple[int, int, int, int, "Callable[[int], bool] | None", Action]


class Visitor:
    """What to do with the entries that match."""

    def on(self, layout: MessageLayout) -> Action:
        """What to do with messages of a layout."""
        raise NotImplementedError

    def add(self, entry: Values) -> None:
        """The same with an entry that is decoded already."""
        raise NotImplementedError


def _pass(datagram: bytes, start: int, message: int) -> None:
    """What is done with what does not match."""


class DumpDecoder:
    """`visitor` is shown the entries in each datagram given to `feed`, or those for which a term holds."""

    def __init__(self, visitor: Visitor, where: Term | None = None, layouts: LayoutCache = ENTRY_LAYOUTS) -> None:
        self._visitor = visitor
        self._where = None if where is None else prepared(where)
        self._holds = None if self._where is None else self._where.compile()
        self._layouts = layouts
        self._known: dict[int, list[_Known]] = {}
        self._others: list[Message] = []

    def feed(self, datagram: bytes) -> list[Message]:
        """Go through a datagram; give back what in there is no entry, such as the end of the dump.

        Raises `MalformedMessage`.
        """
        position, end = 0, len(datagram)
        known, length_at, number_of = self._known.get, _LENGTH.unpack_from, int.from_bytes
        while position + 4 <= end:
            (length,) = length_at(datagram, position)
            message = number_of(datagram[position : position + length], "big")
            for mask, value, must, be, test, act in known(length, ()):
                if message & mask == value:
                    if message & must == be and (test is None or test(message)):
                        act(datagram, position, message)
                    break
            else:
                self._learn_layout(datagram, position, length)
            position += length + 3 & ~3
        if position < end:
            raise MalformedMessage(f"a netlink message has {end - position} bytes, too few for its header")
        others, self._others = self._others, []
        return others

    def _learn_layout(self, datagram: bytes, start: int, length: int) -> None:
        """A message that none of the known layouts fits."""
        if length < HEADER.size or start + length > len(datagram):
            raise MalformedMessage(f"a netlink message claims {length} of {len(datagram) - start} bytes")
        message = datagram[start : start + length]
        _length, kind, flags, _sequence, _port = HEADER.unpack_from(message)
        is_entry = kind >= uapi.NLMSG_MIN_TYPE and length >= uapi.NFNL_HDRLEN
        if not is_entry or flags & uapi.NLM_F_DUMP_INTR:
            self._others.append(Message(kind, flags, message[HEADER.size :]))
        if not is_entry:
            return
        layout = None if flags & uapi.NLM_F_DUMP_INTR else self._layouts.of(message)
        if layout is None:
            entry = self._layouts.decode(message)
            if self._holds is None or self._holds(entry):
                self._visitor.add(entry)
            return
        known = self._compile_for(layout)
        self._known.setdefault(layout.size, []).append(known)
        number = int.from_bytes(message, "big")
        _mask, _value, must, be, test, act = known
        if number & must == be and (test is None or test(number)):
            act(message, 0, number)

    def _compile_for(self, layout: MessageLayout) -> _Known:
        if self._where is None:
            return (layout.mask, layout.value, 0, 0, None, self._visitor.on(layout))
        from ..match.message_filter import compile_for_layout

        sifted = compile_for_layout(self._where, layout)
        act = _pass if sifted.never else self._visitor.on(layout)
        holds = sifted.predicate
        if holds is None or sifted.never:
            return (layout.mask, layout.value, *sifted.bits, sifted.test, act)
        predicate, chosen = holds, act

        def ask(datagram: bytes, start: int, message: int) -> None:
            if predicate(layout.entry(datagram, start)):
                chosen(datagram, start, message)

        return (layout.mask, layout.value, *sifted.bits, sifted.test, ask)


class VisitorGroup(Visitor):
    """What matches is shown to all of them."""

    def __init__(self, visitors: Sequence[Visitor]) -> None:
        self._visitors = visitors

    def on(self, layout: MessageLayout) -> Action:
        actions = [visitor.on(layout) for visitor in self._visitors]
        if len(actions) == 1:
            return actions[0]

        def act(datagram: bytes, start: int, message: int) -> None:
            for action in actions:
                action(datagram, start, message)

        return act

    def add(self, entry: Values) -> None:
        for visitor in self._visitors:
            visitor.add(entry)


class Entries(Visitor):
    """Makes entries of what matches, and leaves them in `found`."""

    def __init__(self) -> None:
        self.found: list[Values] = []

    def on(self, layout: MessageLayout) -> Action:
        keep, entry = self.found.append, layout.entry
        return lambda datagram, start, message: keep(entry(datagram, start))

    def add(self, entry: Values) -> None:
        self.found.append(entry)


#: The keys of an entry and their values, in the same order.
Row = Tuple[Tuple[str, ...], Tuple[Any, ...]]


class Rows(Visitor):
    """Makes of what matches no mappings, only rows of keys and values, and leaves them in `found`."""

    def __init__(self) -> None:
        self.found: list[Row] = []

    def on(self, layout: MessageLayout) -> Action:
        keep, values, keys = self.found.append, layout.values, layout.keys
        return lambda datagram, start, message: keep((keys, values(datagram, start)))

    def add(self, entry: Values) -> None:
        self.found.append((tuple(entry), tuple(entry.values())))
