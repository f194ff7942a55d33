# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests about entries, each kind of entry from a template, and many of them in windows ready to send.

Entries that have the same keys, family and protocols make messages that differ in their values alone.
A template holds what is constant, and one `struct` for the rest. As the struct leaves zeros where the
constants go, these are put in by one `|` over all messages of a window.
"""

from __future__ import annotations

import struct
from typing import Any, Callable, Collection, Iterable, Iterator, Mapping, NamedTuple, Sequence

from . import uapi
from .attributes import ENTRY, Attribute
from .codec import ENTRIES
from .columns import Bulk, Columns, Unusual, batches
from .entry import STATES, check_states
from .errors import InvalidValue
from .messages import nfgenmsg
from .netlink import WINDOW, Message, Window, frame
from .values import Address, Bits

#: NLM_F_ACK in the flags of a header, as a little-endian number.
_ACK = int.from_bytes(bytes(6) + struct.pack("=H", uapi.NLM_F_ACK), "little")

#: Values that have a part in what a template is.
_DECISIVE = (
    "family",
    *(row.key for row in ENTRY if row.key.endswith(".protocol") or (row.use and not row.kind.format)),
)

#: There are few layouts; but helpers may have any name, and they are part of one.
_MOST_TEMPLATES = 512

_KEYLESS = "the original tuple is missing: such a message would be about the whole table"


class Template:
    """What requests of one sort about entries of one layout have in common."""

    def __init__(self, kind: int, flags: int, family: int, pieces: Iterable[bytes | Attribute]) -> None:
        code, constant = ">8xI8x", nfgenmsg(family)
        #: The keys of the values in their order, with the size that addresses have, and how labels are encoded.
        self._fields: list[tuple[str, int, Callable[[Any], bytes] | None]] = []
        for piece in pieces:
            if isinstance(piece, bytes):
                code += f"{len(piece)}x"
                constant += piece
            else:
                value = piece.kind
                size = struct.calcsize(">" + value.format)
                address = isinstance(value, Address)
                code += value.format
                constant += bytes(size) if address else value.encode(0)
                encode = value.encode if isinstance(value, Bits) else None
                self._fields.append((piece.key, size if address else 0, encode))
        self.constant = frame(Message(kind, flags, constant), 0)
        self._struct = struct.Struct(code)
        self._constants = (1, int.from_bytes(self.constant, "little"))

    def pack(self, numbers: Iterable[int], columns: Mapping[str, Sequence[Any]]) -> list[bytes]:
        """Messages without what is constant; `numbers` are the sequence numbers, big-endian."""
        wire: list[Iterable[Any]] = [numbers]
        for key, size, encode in self._fields:
            column = columns[key]
            if size and set(map(len, column)) != {size}:
                raise Unusual(key)
            if encode:
                if set(map(type, column)) != {int}:
                    raise Unusual(key)
                column = list(map({value: encode(value) for value in set(column)}.__getitem__, column))
            wire.append(column)
        return list(map(self._struct.pack, *wire))

    def constants(self, count: int) -> int:
        """What is constant in `count` messages one behind the other, as a little-endian number."""
        if self._constants[0] != count:
            self._constants = (count, int.from_bytes(self.constant * count, "little"))
        return self._constants[1]


class Request:
    """One sort of request about one entry: its message and flags, and the keys of an entry that it carries.

    Where `state_is_set`, the states in there must have a name (`entry.check_states`).
    """

    def __init__(self, kind: int, flags: int, keys: Collection[str], state_is_set: bool = False) -> None:
        self.type = kind
        self.flags = flags
        self.keys = frozenset(keys)
        self._state_is_set = state_is_set
        self._templates: dict[tuple[Any, ...], Template] = {}

    def message(self, entry: Mapping[str, Any]) -> Message:
        """The request about this entry; `InvalidValue` where it has no original tuple."""
        try:
            columns = {key: (value,) for key, value in entry.items()}
            template = self.template(columns)
            (packed,) = template.pack((0,), columns)
        except Exception:
            return self.encoded(entry)
        whole = int.from_bytes(packed, "little") | template.constants(1)
        return Message(self.type, self.flags, whole.to_bytes(len(packed), "little")[uapi.NLMSG_HDRLEN :])

    def encoded(self, entry: Mapping[str, Any]) -> Message:
        """The same without a template: what is done with any unusual entry, and refuses what cannot be sent."""
        if self._state_is_set:
            check_states(entry)
        if "original.source" not in entry or "original.protocol" not in entry:
            raise InvalidValue("original", _KEYLESS)
        return Message(self.type, self.flags, nfgenmsg(entry["family"]) + ENTRIES.encode(entry, self.keys))

    def template(self, columns: Mapping[str, Sequence[Any]]) -> Template:
        """The template for entries that have these keys, and the same values of those that are decisive.

        Raises whatever shows that these are no entries that can be sent.
        """
        if self._state_is_set:
            check_states({key: max(columns[key]) for key in STATES if key in columns})
        layout = (tuple(columns), *[columns[key][0] for key in _DECISIVE if key in columns])
        template = self._templates.get(layout)
        if template is None:
            if not {"original.source", "original.protocol"} <= set(columns):
                raise Unusual(_KEYLESS)
            if len(self._templates) >= _MOST_TEMPLATES:
                self._templates.clear()
            first = {key: column[0] for key, column in columns.items()}
            pieces = ENTRIES.pieces(first, self.keys)
            template = self._templates[layout] = Template(self.type, self.flags, first["family"], pieces)
        return template


def _decisive(columns: Columns) -> list[Sequence[Any]]:
    return [columns[key] for key in _DECISIVE if key in columns]


#: Entries that are sent as they are.
PREPARED = Bulk(dict, dict, _decisive)


def windows(
    things: Iterable[Any],
    request: Request,
    numbers: Callable[[int], int],
    size: int = WINDOW,
    bulk: Bulk = PREPARED,
) -> Iterator[Window]:
    """Requests about entries, as many to a window as `size` says, in their order.

    `things` are entries, or what `bulk` makes entries of. `numbers` reserves as many sequence numbers as
    it is given and returns the first. Some thousand things are read ahead. An error of one of them is
    raised when it is its turn, after the windows before its own.
    """
    for batch in batches(things):
        first = numbers(len(batch))
        yield from _Batch(batch, request, first, bulk).windows(size)


class _Batch(NamedTuple):
    things: list[Any]
    request: Request
    first: int
    bulk: Bulk

    def windows(self, size: int) -> Iterator[Window]:
        count = len(self.things)
        packed: list[bytes | None] = [None] * count
        templates: list[Template | None] = [None] * count
        numbers = struct.unpack(f">{count}I", struct.pack(f"={count}I", *range(self.first, self.first + count)))
        for places, columns in self.bulk.groups(self.things):
            try:
                template = self.request.template(columns)
                messages = template.pack(map(numbers.__getitem__, places), columns)
            except Exception:
                continue
            if len(messages) == count:
                packed[:], templates[:] = messages, [template] * count
            else:
                for place, message in zip(places, messages):
                    packed[place], templates[place] = message, template
        for start in range(0, count, size):
            yield self._window(start, packed[start : start + size], templates[start : start + size])

    def _window(self, start: int, packed: Sequence[bytes | None], templates: list[Template | None]) -> Window:
        count = len(packed)
        whole = [self._framed(start + place) if part is None else part for place, part in enumerate(packed)]
        template = templates[0]
        if template is not None and templates.count(template) == count:
            constants = template.constants(count)
        else:
            each = (bytes(len(part)) if used is None else used.constant for part, used in zip(whole, templates))
            constants = int.from_bytes(b"".join(each), "little")
        frames = b"".join(whole)
        last = _ACK << 8 * (len(frames) - len(whole[-1]))
        frames = (int.from_bytes(frames, "little") | constants | last).to_bytes(len(frames), "little")
        return Window(frames, self.first + start, count)

    def _framed(self, place: int) -> bytes:
        return frame(self.request.message(self.bulk.one(self.things[place])), self.first + place)
