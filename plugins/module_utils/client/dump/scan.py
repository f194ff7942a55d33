# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Process the messages of a dump in one pass, and call a visitor for those that match.

The match and the action of the visitor are compiled once for each message layout. A message without a layout is decoded
by the general decoder, and then matched.
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

#: The function for a message. Its arguments are the datagram, the offset of the message in it, and the message as a
#: big-endian integer.
Action = Callable[[bytes, int, int], Any]
#: A known layout: its mask and value, the mask and value of the match, the test, and the action.
_Known = Tuple[int, int, int, int, "Callable[[int], bool] | None", Action]


class Visitor:
    """Processes the matching entries of a dump."""

    def on(self, layout: MessageLayout) -> Action:
        """Return the action for messages of a layout."""
        raise NotImplementedError

    def add(self, entry: Values) -> None:
        """Process an entry that is already decoded."""
        raise NotImplementedError


def _pass(datagram: bytes, start: int, message: int) -> None:
    """Ignore a message that does not match."""


class DumpDecoder:
    """Passes the entries in each datagram, or those for which a term holds, to a visitor."""

    def __init__(self, visitor: Visitor, where: Term | None = None, layouts: LayoutCache = ENTRY_LAYOUTS) -> None:
        self._visitor = visitor
        self._where = None if where is None else prepared(where)
        self._holds = None if self._where is None else self._where.compile()
        self._layouts = layouts
        self._known: dict[int, list[_Known]] = {}
        self._others: list[Message] = []

    def feed(self, datagram: bytes) -> list[Message]:
        """Process a datagram. Return its control messages (such as the end of the dump) and interrupted messages.

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
        """Process a message that fits no known layout, and add its layout if it has one."""
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
    """Passes each matching entry to several visitors."""

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
    """Collects matching entries as mappings in `found`."""

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
    """Collects matching entries as rows of keys and values in `found`, without mappings."""

    def __init__(self) -> None:
        self.found: list[Row] = []

    def on(self, layout: MessageLayout) -> Action:
        keep, values, keys = self.found.append, layout.values, layout.keys
        return lambda datagram, start, message: keep((keys, values(datagram, start)))

    def add(self, entry: Values) -> None:
        self.found.append((tuple(entry), tuple(entry.values())))
