# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Layouts: messages with the same attribute structure, recognised by one comparison and decoded by one `struct`.

The messages of a dump differ in their values, but few of them in their attributes. The parts that are equal in all
messages of a layout, attribute headers and protocols, become a mask and a value. A layout is made from the first
message that has it, with the general decoder, and returns the same values as that decoder for all further messages.
"""

from __future__ import annotations

import struct
from typing import Any, Callable, Collection, Iterable, NamedTuple, Sequence, Tuple

from .. import uapi
from ..netlink.message import attributes
from .codec import ENTRIES, Codec, DecodedAttribute, Values, dotted
from .types import Address, AttributeType, Integer

_FLAGS, _SEQUENCE = 6, 8  # in a netlink header; before them are its length and type

Unpack = Callable[[bytes, int], Tuple[Any, ...]]


class Column(NamedTuple):
    """A value that varies between messages of a layout: `size` bytes at `start`, counted from the netlink header.

    `code` is how a struct reads it; `convert` makes the value of what that gives, unless it is None.
    """

    key: str
    start: int
    size: int
    kind: AttributeType | None
    code: str
    convert: Callable[[bytes], Any] | None


class MessageLayout:
    """The layout of messages with the same attribute structure.

    It fits a message of `size` bytes (with the netlink header) if `message & mask == value`, as big-endian integers.
    `constants` has the values that are equal in all such messages, `columns` the places of all others.
    """

    def __init__(self, message: bytes, decoded: Iterable[DecodedAttribute]) -> None:
        self.size = len(message)
        self.constants: Values = {"family": message[uapi.NLMSG_HDRLEN]}
        columns = []
        mask = bytearray(b"\xff" * self.size)
        mask[_FLAGS : uapi.NFNL_HDRLEN] = bytes(uapi.NFNL_HDRLEN - _FLAGS)
        mask[_FLAGS:_SEQUENCE] = struct.pack("=H", uapi.NLM_F_DUMP_INTR)
        mask[uapi.NLMSG_HDRLEN] = 0xFF
        for found in decoded:
            filled = found.end + 3 & ~3
            mask[found.start : filled] = bytes(len(mask[found.start : filled]))
            if found.row is not None and found.row.key.endswith(".protocol"):
                mask[found.start : found.end] = b"\xff" * (found.end - found.start)
                self.constants[found.row.key] = found.row.kind.decode(message[found.start : found.end])
            else:
                columns.append(_column(found))
        self.mask = int.from_bytes(mask, "big")
        self.value = int.from_bytes(message, "big") & self.mask
        self.columns = tuple(columns)
        #: The slice of each attribute by number, with its header and padding.
        self.attributes = {
            number: slice(start - 4, end + 3 & ~3)
            for number, start, end in attributes(message, uapi.NFNL_HDRLEN, self.size)
        }
        #: The keys of the values that `values` returns, in the same order.
        self.keys = (*self.constants, *(column.key for column in columns))
        self._constant = tuple(self.constants.values())
        self._unpack = _unpacker(columns)
        self._converted = [
            (index, column.convert) for index, column in enumerate(columns, len(self._constant)) if column.convert
        ]
        self._has_extra = any(column.kind is None for column in columns)

    def values(self, data: bytes, start: int = 0) -> tuple[Any, ...]:
        """Return the values of the message at `start`, in the order of `keys`."""
        values = self._constant + self._unpack(data, start)
        if self._converted:
            converted = list(values)
            for index, convert in self._converted:
                converted[index] = convert(converted[index])
            return tuple(converted)
        return values

    def entry(self, data: bytes, start: int = 0) -> Values:
        """Return the entry in a message as a mapping, as the general decoder does."""
        entry: Values = dict(zip(self.keys, self.values(data, start)))
        if self._has_extra:
            unknown = [column.key for column in self.columns if column.kind is None]
            entry["extra"] = {key.partition(".")[2]: entry.pop(key) for key in dict.fromkeys(unknown)}
        return entry

    def part(self, keys: Collection[str]) -> tuple[tuple[str, ...], Unpack]:
        """Return those of `keys` that vary in this layout, each once, and a function that reads only their values."""
        last = {column.key: column for column in self.columns if column.key in keys}
        columns = sorted(last.values(), key=lambda column: column.start)
        return tuple(column.key for column in columns), _reader(columns)

    def column(self, key: str) -> Column | None:
        """Return the column of a key. If there are several, the last one counts."""
        return next((column for column in reversed(self.columns) if column.key == key), None)


def _column(found: DecodedAttribute) -> Column:
    size = found.end - found.start
    if found.row is None:
        return Column("extra." + dotted(found.path), found.start, size, None, f"{size}s", None)
    kind = found.row.kind
    code, convert = f"{size}s", kind.decode
    if isinstance(kind, Address):
        return Column(found.row.key, found.start, size, kind, code, None)
    if isinstance(kind, Integer) and struct.calcsize(">" + kind.format) == size:
        return Column(found.row.key, found.start, size, kind, kind.format, None)
    return Column(found.row.key, found.start, size, kind, code, convert)


def _unpacker(columns: Iterable[Column]) -> Unpack:
    code, position = ">", 0
    for column in columns:
        code += f"{column.start - position}x{column.code}"
        position = column.start + column.size
    return struct.Struct(code).unpack_from


def _reader(columns: Sequence[Column]) -> Unpack:
    """Return a function that reads columns, also those to be converted, such as numbers of an unusual size."""
    unpack = _unpacker(columns)
    converts = [(place, column.convert) for place, column in enumerate(columns) if column.convert]
    if not converts:
        return unpack

    def read(data: bytes, start: int = 0) -> tuple[Any, ...]:
        values = list(unpack(data, start))
        for place, convert in converts:
            values[place] = convert(values[place])
        return tuple(values)

    return read


class LayoutCache:
    """The layouts of the messages that a codec has decoded so far."""

    #: The maximum number of layouts. Messages of further layouts go through the general decoder.
    most = 512

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._by_size: dict[int, list[MessageLayout]] = {}
        self._count = 0

    def decode(self, message: bytes) -> Values:
        """Decode a message with the general decoder. Raises `MalformedMessage`."""
        entry = self._codec.decode(message, uapi.NFNL_HDRLEN)
        entry["family"] = message[uapi.NLMSG_HDRLEN]
        return entry

    def of(self, message: bytes) -> MessageLayout | None:
        """Return the layout of a message, a new one if needed, or None if only the general decoder can read the
        message.

        Raises `MalformedMessage`.
        """
        number = int.from_bytes(message, "big")
        known = self._by_size.setdefault(len(message), [])
        for layout in known:
            if number & layout.mask == layout.value:
                return layout
        decoded = list(self._codec.decode_each(message, uapi.NFNL_HDRLEN, len(message)))
        if self._count >= self.most or any(found.malformed for found in decoded):
            return None
        layout = MessageLayout(message, decoded)
        known.append(layout)
        self._count += 1
        return layout


#: Layouts of messages about conntrack entries.
ENTRY_LAYOUTS = LayoutCache(ENTRIES)
