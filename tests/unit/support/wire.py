# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A second implementation of netlink messages and attributes, with which tests compare the first.

It contains nothing of conntrack: an attribute contains other attributes if it has the kernel's flag for nests.
"""

from __future__ import annotations

import struct
from typing import Any, Iterable, Iterator, Mapping, NamedTuple

NESTED = 0x8000
#: Padding after data whose length has this remainder
PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


class Framed(NamedTuple):
    """One message of a datagram."""

    type: int
    flags: int
    sequence: int
    payload: bytes


def messages(datagram: bytes) -> Iterator[Framed]:
    """Return every message of a datagram."""
    while datagram:
        length, kind, flags, sequence, port = struct.unpack("=LHHLL", datagram[:16])
        assert port == 0 or kind in (2, 3), "requests leave the port to the kernel"
        yield Framed(kind, flags, sequence, datagram[16:length])
        datagram = datagram[-(-length // 4) * 4 :]


def framed(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    """Return one message with its header."""
    return struct.pack("=LHHLL", 16 + len(payload), kind, flags, sequence, 0) + padded(payload)


def unordered(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return entries in a form that is equal for any order of the entries and of their keys."""
    return sorted(repr(sorted(entry.items())) for entry in entries)


def padded(data: bytes) -> bytes:
    return data + PADDING[len(data) % 4] if len(data) % 4 else data


def tree(data: bytes) -> dict[int, Any]:
    """Return attributes by number: bytes, or a dictionary for a nest."""
    found: dict[int, Any] = {}
    while data:
        length, number = struct.unpack("=HH", data[:4])
        payload = data[4:length]
        assert number & 0x3FFF not in found, "an attribute occurs twice"
        found[number & 0x3FFF] = tree(payload) if number & NESTED else payload
        data = data[-(-length // 4) * 4 :]
    return found


def flat(attributes: dict[int, Any], path: tuple[int, ...] = ()) -> dict[tuple[int, ...], bytes]:
    """Return a tree of attributes, each by its whole path."""
    found: dict[tuple[int, ...], bytes] = {}
    for number, value in attributes.items():
        if isinstance(value, dict):
            found.update(flat(value, (*path, number)))
        else:
            found[(*path, number)] = value
    return found


def attribute(path: tuple[int, ...], payload: bytes) -> bytes:
    """Return one attribute inside the nests of its path."""
    *outer, last = path
    data = padded(struct.pack("=HH", 4 + len(payload), last) + payload)
    for number in reversed(outer):
        data = struct.pack("=HH", 4 + len(data), number | NESTED) + data
    return data
