# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Encode and decode netlink attributes by attribute tables. Independent of sockets.

A `Codec` is compiled from the rows of a table. It decodes attributes to a flat mapping from key to value, and encodes
such a mapping. Attributes that the table lacks are kept under `extra`, as bytes by the dotted numbers of their path
(`{"4.1.9": b"…"}`), so that attributes of newer kernels are visible.
"""

from __future__ import annotations

import struct
from typing import Any, Collection, Dict, Iterable, Iterator, Mapping, NamedTuple

from .. import uapi
from ..errors import MalformedMessage
from ..netlink.message import ATTRIBUTE, attribute, attributes
from .attributes import ENTRY, PADDING, Attribute, Path

#: An entry or another object of the kernel, as a flat mapping from key to value.
Values = Dict[str, Any]


class DecodedAttribute(NamedTuple):
    """A value in a message: its row (None if the table has none), its path, and its start and end.

    `malformed` is a nest that cannot be read.
    """

    row: Attribute | None
    path: Path
    start: int
    end: int
    malformed: bool = False


class _AttributeTree:
    """The members of a nest by number. Rows with the same number have different restrictions."""

    def __init__(self) -> None:
        self.rows: dict[int, list[Attribute]] = {}
        self.nests: dict[int, _AttributeTree] = {}
        self.protocol_key: str | None = None
        self.padding: set[int] = set()

    def add(self, row: Attribute, path: Path) -> None:
        if len(path) > 1:
            self.nests.setdefault(path[0], _AttributeTree()).add(row, path[1:])
            return
        self.rows.setdefault(path[0], []).append(row)
        if row.key.endswith(".protocol"):
            self.protocol_key = row.key

    def chosen(self, keys: frozenset[str] | None, family: int) -> _AttributeTree:
        """Return the nest with only the rows of these keys and this family."""
        few = _AttributeTree()
        few.protocol_key = self.protocol_key
        for number, rows in self.rows.items():
            kept = [row for row in rows if (keys is None or row.key in keys) and row.family in (None, family)]
            if kept:
                few.rows[number] = kept
        for number, nest in self.nests.items():
            inner = nest.chosen(keys, family)
            if inner.rows or inner.nests:
                few.nests[number] = inner
        return few


class Codec:
    """Encoder and decoder of an attribute table. Empty attributes at the paths of `padding` are ignored."""

    def __init__(self, table: Iterable[Attribute], padding: Iterable[Path] = ()) -> None:
        self._root = _AttributeTree()
        self._chosen: dict[tuple[frozenset[str] | None, int], _AttributeTree] = {}
        for row in table:
            self._root.add(row, row.path)
        for *nests, number in padding:
            nest = self._root
            for outer in nests:
                nest = nest.nests[outer]
            nest.padding.add(number)

    def decode(self, data: bytes, start: int = 0, end: int | None = None) -> Values:
        """Return the values in `data[start:end]`. Raises `MalformedMessage`."""
        values: Values = {}
        for found in self.decode_each(data, start, len(data) if end is None else end):
            payload = data[found.start : found.end]
            if found.row is None:
                values.setdefault("extra", {})[dotted(found.path)] = bytes(payload)
            else:
                values[found.row.key] = found.row.kind.decode(payload)
        return values

    def decode_each(self, data: bytes, start: int, end: int) -> Iterator[DecodedAttribute]:
        """Yield every value in `data[start:end]` with its place and row. Raises `MalformedMessage`.

        A malformed nest is yielded as a value without a row, after the values in it that can be read.
        """
        return _decode_each(self._root, data, start, end, ())

    def encode(self, values: Mapping[str, Any], keys: Collection[str] | None = None) -> bytes:
        """Return the attributes of `values`, or of those of its keys that are in `keys`."""
        parts = _template_parts(self._nest(values, keys), values)
        return b"".join(part if isinstance(part, bytes) else part.kind.encode(values[part.key]) for part in parts)

    def template_parts(self, values: Mapping[str, Any], keys: Collection[str]) -> list[bytes | Attribute]:
        """Return the parts of what `encode` returns: constant bytes, and the row of each value of constant size.

        The parts are the same for all values with these keys, family, protocols and texts.
        """
        return _template_parts(self._nest(values, keys), values)

    def _nest(self, values: Mapping[str, Any], keys: Collection[str] | None) -> _AttributeTree:
        wanted = (None if keys is None else frozenset(keys), values.get("family", 0))
        nest = self._chosen.get(wanted)
        if nest is None:
            nest = self._chosen[wanted] = self._root.chosen(*wanted)
        return nest


def _decode_each(nest: _AttributeTree, data: bytes, start: int, end: int, path: Path) -> Iterator[DecodedAttribute]:
    protocol: int | None = None
    for number, first, last in attributes(data, start, end):
        here = (*path, number)
        inner = nest.nests.get(number)
        if inner is not None:
            try:
                yield from _decode_each(inner, data, first, last, here)
            except MalformedMessage:
                yield DecodedAttribute(None, here, first, last, malformed=True)
            continue
        if first == last and number in nest.padding:
            continue
        row: Attribute | None = None
        rows = nest.rows.get(number)
        if rows is not None:
            row = rows[0]
            if len(rows) > 1 and nest.protocol_key is not None:
                row = next((r for r in rows if r.protocol == protocol), row)
            if row.key == nest.protocol_key:
                protocol = row.kind.decode(data[first:last])
        yield DecodedAttribute(row, here, first, last)


def _template_parts(nest: _AttributeTree, values: Mapping[str, Any]) -> list[bytes | Attribute]:
    parts: list[bytes | Attribute] = []
    for number, rows in nest.rows.items():
        for row in rows:
            if row.key not in values or row.protocol not in (None, values.get(nest.protocol_key or "")):
                continue
            size = _size_of(row)
            if size:
                parts += [ATTRIBUTE.pack(size + 4, number), row, b"\0" * (-size % 4)]
            else:
                parts.append(attribute(number, row.kind.encode(values[row.key])))
    for number, inner in nest.nests.items():
        within = _template_parts(inner, values)
        if within:
            size = sum(len(part) if isinstance(part, bytes) else _size_of(part) for part in within)
            parts += [ATTRIBUTE.pack(size + 4, number | uapi.NLA_F_NESTED), *within]
    return parts


def _size_of(row: Attribute) -> int:
    """Return the bytes of a value on the wire, 0 if they vary."""
    return struct.calcsize(">" + row.kind.format)


def dotted(path: Path) -> str:
    """Return the name of a value without a row under `extra`."""
    return ".".join(map(str, path))


#: Codec of conntrack entries.
ENTRIES = Codec(ENTRY, PADDING)
