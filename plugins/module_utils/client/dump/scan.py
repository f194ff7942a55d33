# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Process the messages of a dump in one pass, and call a visitor for those that match.

The messages of a datagram are grouped by length and family, and then by layout. The match and the action of the visitor
are compiled once for each message layout, and process a group at a time. A message without a layout is decoded by the
general decoder, and then matched.
"""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import compress, repeat
from typing import TYPE_CHECKING, Any, Callable, Iterable, NamedTuple, Sequence, Tuple

from .. import uapi
from ..codec.codec import Values
from ..codec.layout import ENTRY_LAYOUTS, LayoutCache, MessageLayout
from ..match.expression import prepared
from ..netlink.message import HEADER, LENGTH, Message, split

if TYPE_CHECKING:
    from ..match.expression import Term

#: A netlink header and the family after it. Messages of a dump with the same ones are processed together.
_HEAD = HEADER.size + 1
#: The maximum number of lengths of messages that are found by one regular expression.
_MOST_LENGTHS = 64
#: The maximum number of places by which messages of one size are separated before they are compared with a layout.
_MOST_PLACES = 8

#: The function for a group of messages of one layout, which are joined.
Action = Callable[[bytes], Any]


class Visitor:
    """Processes the matching entries of a dump.

    The order of the entries in a datagram is not kept: those of one layout are processed together.
    """

    def on(self, layout: MessageLayout) -> Action:
        """Return the action for groups of messages of a layout."""
        raise NotImplementedError

    def add(self, entry: Values) -> None:
        """Process an entry that is already decoded."""
        raise NotImplementedError

    def add_all(self, entries: Iterable[Values]) -> None:
        """Process entries that are already decoded."""
        for entry in entries:
            self.add(entry)


class MessageSplitter:
    """Splits datagrams into messages, by a regular expression if their lengths are known: a third of the time."""

    def __init__(self) -> None:
        self._lengths: dict[bytes, None] = {}
        self._find: Callable[[bytes], list[bytes]] | None = None

    def split(self, datagram: bytes) -> list[bytes]:
        """Return the messages in a datagram, with their headers. Raises `MalformedMessage`."""
        if self._find is None:
            alternatives = (
                re.escape(each) + b".{%d}" % (LENGTH.unpack(each)[0] - LENGTH.size) for each in self._lengths
            )
            self._find = re.compile(b"|".join(alternatives) or b"(?!)", re.DOTALL).findall
        messages = self._find(datagram)
        if sum(map(len, messages)) == len(datagram):
            return messages
        messages = list(split(datagram))
        lengths = {message[: LENGTH.size] for message in messages if not len(message) & 3} - self._lengths.keys()
        if lengths and len(self._lengths) + len(lengths) <= _MOST_LENGTHS:
            self._lengths.update(dict.fromkeys(lengths))
            self._find = None
        return messages


class _Known(NamedTuple):
    """A layout, the function that returns the flags of matching messages (None if all match), and the action."""

    layout: MessageLayout
    flags: Callable[[bytes], bytes] | None
    act: Action


class DumpDecoder:
    """Passes the entries in each datagram, or those for which a term holds, to a visitor."""

    def __init__(self, visitor: Visitor, where: Term | None = None, layouts: LayoutCache = ENTRY_LAYOUTS) -> None:
        self._visitor = visitor
        self._where = None if where is None else prepared(where)
        self._holds = None if self._where is None else self._where.compile()
        self._layouts = layouts
        self._split = MessageSplitter().split
        #: By size: the layouts, and the offsets at which messages of different layouts differ.
        self._known: defaultdict[int, list[_Known]] = defaultdict(list)
        self._places: defaultdict[int, list[int]] = defaultdict(list)
        self._others: list[Message] = []

    def feed(self, datagram: bytes) -> list[Message]:
        """Process a datagram. Return its control messages (such as the end of the dump) and interrupted messages.

        Raises `MalformedMessage`.
        """
        groups: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for message in self._split(datagram):
            groups[message[:_HEAD]].append(message)
        most = MessageLayout.most_messages
        for messages in groups.values():
            for start in range(0, len(messages), most):
                self._process(messages[start : start + most])
        others, self._others = self._others, []
        return others

    def _process(self, messages: list[bytes]) -> None:
        """Process messages of the same size. Messages that differ in a place are processed apart."""
        data, size = b"".join(messages), len(messages[0])
        places = self._places[size]
        for place in places:
            column = data[place::size]
            if column.count(column[0]) < len(column):
                break
        else:
            found = self._find_layout(messages[0])
            if found is None:
                if len(messages) > 1:
                    self._process(messages[1:])
                return
            difference = found.layout.difference(data)
            if difference is None:
                flags = b"" if found.flags is None else found.flags(data)
                chosen = b"".join(compress(messages, flags)) if 0 in flags else data
                if chosen:
                    found.act(chosen)
                return
            if len(places) < _MOST_PLACES:
                places.append(difference)
            column = data[difference::size]
        for byte in dict.fromkeys(column):
            self._process(list(compress(messages, map(byte.__eq__, column))))

    def _find_layout(self, message: bytes) -> _Known | None:
        """Return the layout of a message. Process a message that has no layout, and return None."""
        number = int.from_bytes(message, "big")
        known = self._known[len(message)]
        for found in known:
            if number & found.layout.mask == found.layout.value:
                return found
        _length, kind, flags, _sequence, _port = HEADER.unpack_from(message)
        is_entry = kind >= uapi.NLMSG_MIN_TYPE and len(message) >= uapi.NFNL_HDRLEN
        is_interrupted = bool(flags & uapi.NLM_F_DUMP_INTR)
        if not is_entry or is_interrupted:
            self._others.append(Message(kind, flags, message[HEADER.size :]))
        if not is_entry:
            return None
        layout = None if is_interrupted else self._layouts.of(message)
        if layout is not None:
            known.append(self._compile_for(layout))
            return known[-1]
        entry = self._layouts.decode(message)
        if self._holds is None or self._holds(entry):
            self._visitor.add(entry)
        return None

    def _compile_for(self, layout: MessageLayout) -> _Known:
        if self._where is None:
            return _Known(layout, None, self._visitor.on(layout))
        from ..match.message_filter import compile_for_layout

        compiled = compile_for_layout(self._where, layout)
        return _Known(layout, compiled.flags, _ignore if compiled.never else self._visitor.on(layout))


def _ignore(data: bytes) -> None:
    """Ignore messages that do not match."""


class VisitorGroup(Visitor):
    """Passes each matching entry to several visitors."""

    def __init__(self, visitors: Sequence[Visitor]) -> None:
        self._visitors = visitors

    def on(self, layout: MessageLayout) -> Action:
        actions = [visitor.on(layout) for visitor in self._visitors]
        if len(actions) == 1:
            return actions[0]

        def act(data: bytes) -> None:
            for action in actions:
                action(data)

        return act

    def add(self, entry: Values) -> None:
        for visitor in self._visitors:
            visitor.add(entry)


class Entries(Visitor):
    """Collects matching entries as mappings in `found`."""

    def __init__(self) -> None:
        self.found: list[Values] = []

    def on(self, layout: MessageLayout) -> Action:
        keep, entries = self.found.extend, layout.entries
        return lambda data: keep(entries(data))

    def add(self, entry: Values) -> None:
        self.found.append(entry)


#: The keys of an entry and their values, in the same order.
Row = Tuple[Tuple[str, ...], Tuple[Any, ...]]


class Rows(Visitor):
    """Collects matching entries as rows of keys and values in `found`, without mappings."""

    def __init__(self) -> None:
        self.found: list[Row] = []

    def on(self, layout: MessageLayout) -> Action:
        keep, rows, keys = self.found.extend, layout.rows, layout.keys
        return lambda data: keep(zip(repeat(keys), rows(data)))

    def add(self, entry: Values) -> None:
        self.found.append((tuple(entry), tuple(entry.values())))
