# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attribute tables made into encoders and decoders of netlink attributes. Knows no socket.

A `Codec` is compiled from the rows of a table. It decodes attributes into a flat mapping from key
to value and encodes such a mapping again. What a table does not name is kept under `extra`, as
bytes by the dotted numbers of its path (`{"4.1.9": b"…"}`), so that a newer kernel's attributes
are seen and not lost.
"""

from __future__ import annotations

import struct
from typing import Any, Collection, Dict, Iterable, Iterator, Mapping

from . import uapi
from .attributes import ENTRY, Attribute, Path
from .errors import ConntrackError

#: An entry, or another thing of the kernel's, as a flat mapping from key to value.
Values = Dict[str, Any]

_HEADER = struct.Struct("=HH")


class MalformedMessage(ConntrackError):
    """Bytes that are no netlink attributes; carries what could not be read."""


def attributes(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, start, end) of each attribute's payload in `data[start:end]`."""
    while start + 4 <= end:
        length, number = _HEADER.unpack_from(data, start)
        if length < 4 or start + length > end:
            raise MalformedMessage(
                f"attribute {number & uapi.NLA_TYPE_MASK} at byte {start} claims {length} bytes, {end - start} are left"
            )
        yield number & uapi.NLA_TYPE_MASK, start + 4, start + length
        start += length + 3 & ~3


def attribute(number: int, payload: bytes) -> bytes:
    """One attribute with its header and padding."""
    return _HEADER.pack(len(payload) + 4, number) + payload + b"\0" * (-len(payload) % 4)


def nested(number: int, payload: bytes) -> bytes:
    """One attribute that holds others."""
    return attribute(number | uapi.NLA_F_NESTED, payload)


class _Nest:
    """The members of one nest, by number; several rows of one number differ by restriction."""

    def __init__(self) -> None:
        self.rows: dict[int, list[Attribute]] = {}
        self.nests: dict[int, _Nest] = {}
        self.protocol_key: str | None = None

    def add(self, row: Attribute, path: Path) -> None:
        if len(path) > 1:
            self.nests.setdefault(path[0], _Nest()).add(row, path[1:])
            return
        self.rows.setdefault(path[0], []).append(row)
        if row.key.endswith(".protocol"):
            self.protocol_key = row.key

    def chosen(self, keys: frozenset[str] | None, family: int) -> _Nest:
        """The same nest with the rows alone that are for these keys and this family."""
        few = _Nest()
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
    """Encoder and decoder of one attribute table."""

    def __init__(self, table: Iterable[Attribute]) -> None:
        self._root = _Nest()
        self._chosen: dict[tuple[frozenset[str] | None, int], _Nest] = {}
        for row in table:
            self._root.add(row, row.path)

    def decode(self, data: bytes, start: int = 0, end: int | None = None) -> Values:
        """The values in `data[start:end]`; `MalformedMessage` if these are no attributes."""
        values: Values = {}
        self._decode(self._root, data, start, len(data) if end is None else end, values, ())
        return values

    def _decode(self, nest: _Nest, data: bytes, start: int, end: int, values: Values, path: Path) -> None:
        for number, first, last in attributes(data, start, end):
            inner = nest.nests.get(number)
            if inner is not None:
                try:
                    self._decode(inner, data, first, last, values, (*path, number))
                except MalformedMessage:
                    _keep(values, (*path, number), data[first:last])
                continue
            rows = nest.rows.get(number)
            if rows is None:
                _keep(values, (*path, number), data[first:last])
                continue
            row = rows[0]
            if len(rows) > 1 and nest.protocol_key is not None:
                protocol = values.get(nest.protocol_key)
                row = next((r for r in rows if r.protocol == protocol), row)
            values[row.key] = row.kind.decode(data[first:last])

    def encode(self, values: Mapping[str, Any], keys: Collection[str] | None = None) -> bytes:
        """The attributes of `values`, or of those of its keys that are in `keys`."""
        wanted = (None if keys is None else frozenset(keys), values.get("family", 0))
        nest = self._chosen.get(wanted)
        if nest is None:
            nest = self._chosen[wanted] = self._root.chosen(*wanted)
        return _encode(nest, values)


def _encode(nest: _Nest, values: Mapping[str, Any]) -> bytes:
    parts: list[bytes] = []
    for number, rows in nest.rows.items():
        parts.extend(
            attribute(number, row.kind.encode(values[row.key]))
            for row in rows
            if row.key in values and row.protocol in (None, values.get(nest.protocol_key or ""))
        )
    for number, inner in nest.nests.items():
        payload = _encode(inner, values)
        if payload:
            parts.append(nested(number, payload))
    return b"".join(parts)


def _keep(values: Values, path: Path, payload: bytes) -> None:
    values.setdefault("extra", {})[".".join(map(str, path))] = bytes(payload)


#: Codec of conntrack entries.
ENTRIES = Codec(ENTRY)
