# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Netlink messages, batches of requests and attributes as bytes, independent of conntrack.

Source: include/uapi/linux/netlink.h, net/netlink/af_netlink.c.
"""

from __future__ import annotations

import struct
from typing import Iterator, NamedTuple

from .. import uapi
from ..errors import MalformedMessage

#: struct nlmsghdr: length, type, flags, sequence, port.
HEADER = struct.Struct("=IHHII")
#: The first field of a netlink header.
LENGTH = struct.Struct("=I")
#: The flags of a netlink header, and their offset in it.
FLAGS, FLAGS_AT = struct.Struct("=H"), 6
#: struct nlattr: length, type.
ATTRIBUTE = struct.Struct("=HH")


class Message(NamedTuple):
    """A netlink message without its length and sequence number, sent or received.

    `port` is the port id in the header of a received message. Messages that are sent have port id 0.
    """

    type: int
    flags: int
    payload: bytes
    port: int = 0


class RequestBatch(NamedTuple):
    """`count` requests in one datagram, numbered from `first` on. Only the last one requests an acknowledgement."""

    frames: bytes
    first: int
    count: int  # type: ignore[assignment]  # of requests; hides the method of tuples


def frame(message: Message, sequence: int, flags: int = 0) -> bytes:
    """Return the message with its netlink header, padded to a multiple of 4 bytes."""
    payload = message.payload
    header = HEADER.pack(
        HEADER.size + len(payload),
        message.type,
        message.flags | flags | uapi.NLM_F_REQUEST,
        sequence,
        0,
    )
    return header + payload + b"\0" * (-len(payload) % 4)


def request_batch(frames: list[bytes], first: int) -> RequestBatch:
    """Join framed requests to a batch. Only the last one requests an acknowledgement."""
    last = bytearray(frames[-1])
    FLAGS.pack_into(last, FLAGS_AT, FLAGS.unpack_from(last, FLAGS_AT)[0] | uapi.NLM_F_ACK)
    return RequestBatch(b"".join((*frames[:-1], last)), first, len(frames))


def split(datagram: bytes) -> Iterator[bytes]:
    """Yield each message in a datagram, with its header. Raises `MalformedMessage`."""
    start, end = 0, len(datagram)
    while start + HEADER.size <= end:
        (length,) = LENGTH.unpack_from(datagram, start)
        if length < HEADER.size or start + length > end:
            raise MalformedMessage(f"a netlink message claims {length} of {end - start} bytes")
        yield datagram[start : start + length]
        start += length + 3 & ~3
    if start < end:
        raise MalformedMessage(f"a netlink message has {end - start} bytes, too few for its header")


def parse(datagram: bytes) -> Iterator[tuple[int, Message]]:
    """Yield (sequence, message) for each message in a datagram. Raises `MalformedMessage`."""
    for message in split(datagram):
        _length, kind, flags, sequence, port = HEADER.unpack_from(message)
        yield sequence, Message(kind, flags, message[HEADER.size :], port)


def attributes(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (number, start, end) of each attribute's payload in `data[start:end]`. Raises `MalformedMessage`."""
    while start + 4 <= end:
        length, number = ATTRIBUTE.unpack_from(data, start)
        if length < 4 or start + length > end:
            raise MalformedMessage(
                f"attribute {number & uapi.NLA_TYPE_MASK} at byte {start} claims {length} bytes, {end - start} are left"
            )
        yield number & uapi.NLA_TYPE_MASK, start + 4, start + length
        start += length + 3 & ~3


def attribute(number: int, payload: bytes) -> bytes:
    """Return an attribute with its header and padding."""
    return ATTRIBUTE.pack(len(payload) + 4, number) + payload + b"\0" * (-len(payload) % 4)


def nested(number: int, payload: bytes) -> bytes:
    """Return an attribute that contains other attributes."""
    return attribute(number | uapi.NLA_F_NESTED, payload)


def is_control(message: Message) -> bool:
    """Return whether a message is a netlink control message, or has the flag of an inconsistent dump."""
    return message.type < uapi.NLMSG_MIN_TYPE or bool(message.flags & uapi.NLM_F_DUMP_INTR)
