# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Layouts: messages with the same attribute structure, recognised by one comparison and decoded by one `struct`.

The messages of a dump differ in their values, but few of them in their attributes. The parts that are equal in all
messages of a layout, attribute headers and protocols, become a mask and a value. A layout is made from the first
message that has it, with the general decoder, and returns the same values as that decoder for all further messages.

A layout processes a group of messages at a time, by loops inside the interpreter. The messages of a group are joined,
each with its netlink header. A single message is a group of one.
"""

from __future__ import annotations

import struct
from itertools import chain, compress, repeat
from typing import Any, Callable, Collection, Iterable, Iterator, NamedTuple, Sequence, Tuple

from .. import uapi
from ..netlink.message import attributes
from .codec import ENTRIES, Codec, DecodedAttribute, Values, dotted
from .types import Address, AttributeType, Integer

_FLAGS, _SEQUENCE = 6, 8  # in a netlink header; before them are its length and type

#: How a struct reads numbers, by their size.
_NUMBER_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}

#: Reads the values of each message of a group.
Read = Callable[[bytes], Iterator[Tuple[Any, ...]]]


class Column(NamedTuple):
    """A value in messages of a layout: `size` bytes at `start`, counted from the netlink header.

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

    #: The maximum number of messages in a group. It limits the size of the masks that a layout keeps.
    most_messages = 128

    def __init__(self, message: bytes, decoded: Iterable[DecodedAttribute]) -> None:
        self.size = len(message)
        self.constants: Values = {"family": message[uapi.NLMSG_HDRLEN]}
        columns, fields = [], [Column("family", uapi.NLMSG_HDRLEN, 1, None, "B", None)]
        mask = bytearray(b"\xff" * self.size)
        mask[_FLAGS : uapi.NFNL_HDRLEN] = bytes(uapi.NFNL_HDRLEN - _FLAGS)
        mask[_FLAGS:_SEQUENCE] = struct.pack("=H", uapi.NLM_F_DUMP_INTR)
        mask[uapi.NLMSG_HDRLEN] = 0xFF
        for found in decoded:
            filled = found.end + 3 & ~3
            mask[found.start : filled] = bytes(len(mask[found.start : filled]))
            fields.append(_column(found))
            if found.row is not None and found.row.key.endswith(".protocol"):
                mask[found.start : found.end] = b"\xff" * (found.end - found.start)
                self.constants[found.row.key] = found.row.kind.decode(message[found.start : found.end])
            else:
                columns.append(fields[-1])
        self.mask = int.from_bytes(mask, "big")
        self.value = int.from_bytes(message, "big") & self.mask
        self.columns = tuple(columns)
        #: The slice of each attribute by number, with its header and padding.
        self.attributes = {
            number: slice(start - 4, end + 3 & ~3)
            for number, start, end in attributes(message, uapi.NFNL_HDRLEN, self.size)
        }
        #: The keys of the values that `rows` returns, in the same order.
        self.keys = tuple(field.key for field in fields)
        #: Return the values of each message of a group, in the order of `keys`.
        self.rows = _reader(fields, self.size)
        self._read, self._converts = _compiled(fields, self.size)
        self._extra = [column.key for column in columns if column.kind is None]
        self._read_messages = self.slices([slice(0, self.size)])
        #: A number of messages, and the mask and the value of as many joined messages.
        self._repeated = 1, self.mask, self.value

    def entries(self, data: bytes) -> Iterator[Values]:
        """Return the entries in a group of messages as mappings, as the general decoder does."""
        entries: Iterator[Values] = map(dict, map(zip, repeat(self.keys), self.rows(data)))
        return map(self._with_extra, entries) if self._extra else entries

    def entry(self, message: bytes) -> Values:
        """Return the entry in a single message."""
        values = list(self._read.unpack(message))
        for place, convert in self._converts:
            values[place] = convert(values[place])
        entry = dict(zip(self.keys, values))
        return self._with_extra(entry) if self._extra else entry

    def _with_extra(self, entry: Values) -> Values:
        entry["extra"] = {key.partition(".")[2]: entry.pop(key) for key in dict.fromkeys(self._extra)}
        return entry

    def part(self, keys: Collection[str]) -> tuple[tuple[str, ...], Read]:
        """Return those of `keys` that vary in this layout, each once, and a function that reads only their values."""
        last = {column.key: column for column in self.columns if column.key in keys}
        columns = sorted(last.values(), key=lambda column: column.start)
        return tuple(column.key for column in columns), _reader(columns, self.size)

    def column(self, key: str) -> Column | None:
        """Return the column of a key. If there are several, the last one counts."""
        return next((column for column in reversed(self.columns) if column.key == key), None)

    def slices(self, parts: Iterable[slice]) -> Read:
        """Return a function that reads these parts of each message, in ascending order, as bytes."""
        sizes = [(part.start, part.stop - part.start) for part in parts]
        return _reader([Column("", start, size, None, f"{size}s", None) for start, size in sizes], self.size)

    def numbers(self, column: Column) -> Callable[[bytes], Iterator[int]]:
        """Return a function that reads the bytes of a column as numbers in network order."""
        code = _NUMBER_CODES.get(column.size)
        read = _reader([column._replace(code=code or f"{column.size}s", convert=None)], self.size)
        if code is not None:
            return lambda data: chain.from_iterable(read(data))
        return lambda data: (int.from_bytes(value, "big") for (value,) in read(data))

    # groups of messages

    def difference(self, data: bytes) -> int | None:
        """Compare messages of this size with the layout. Return an offset at which one differs, or None."""
        count = len(data) // self.size
        repeated, mask, value = self._repeated
        if repeated < count:
            repeated, mask, value = self._repeat(max(count, self.most_messages))
        spare = (repeated - count) * self.size * 8
        if spare:
            mask >>= spare
            value >>= spare
        masked = int.from_bytes(data, "big") & mask
        if masked == value:
            return None
        return (len(data) - ((masked ^ value).bit_length() + 7) // 8) % self.size

    def _repeat(self, count: int) -> tuple[int, int, int]:
        mask, value = (number.to_bytes(self.size, "big") * count for number in (self.mask, self.value))
        self._repeated = count, int.from_bytes(mask, "big"), int.from_bytes(value, "big")
        return self._repeated

    def messages(self, data: bytes) -> Iterator[bytes]:
        """Return the messages of a group, one by one."""
        return chain.from_iterable(self._read_messages(data))

    def choose(self, data: bytes, flags: bytes) -> bytes:
        """Return the messages of a group whose flag is 1. There is a byte for each message, 0 or 1."""
        if 0 not in flags:
            return data
        return b"".join(compress(self.messages(data), flags)) if 1 in flags else b""


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


def _compiled(columns: Sequence[Column], size: int) -> tuple[struct.Struct, list[tuple[int, Callable[[bytes], Any]]]]:
    """Return what unpacks columns of a message of this size, and the conversion of values by their place."""
    code, position = ">", 0
    for column in columns:
        code += f"{column.start - position}x{column.code}"
        position = column.start + column.size
    converts = [(place, column.convert) for place, column in enumerate(columns) if column.convert]
    return struct.Struct(f"{code}{size - position}x"), converts


def _reader(columns: Sequence[Column], size: int) -> Read:
    """Return a function that reads columns of messages of this size."""
    compiled, converts = _compiled(columns, size)
    read = compiled.iter_unpack
    if not converts:
        return read

    def convert_each(data: bytes) -> Iterator[tuple[Any, ...]]:
        found = list(zip(*read(data)))
        for place, convert in converts if found else ():
            found[place] = tuple(map({value: convert(value) for value in set(found[place])}.__getitem__, found[place]))
        return zip(*found)

    return convert_each


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
