# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ctnetlink's messages, built and read without a socket.

A request for one entry always carries its tuple and its zone: without the tuple the kernel takes
a deletion for a flush of the whole table, and without the zone it looks in zone 0.
"""

from __future__ import annotations

import struct
from typing import Any, Mapping

from . import uapi
from .attributes import CREATE, ENTRY, KEY, UPDATE
from .codec import ENTRIES
from .entry import Entry, check_states
from .errors import InvalidValue
from .netlink import Message

_NFGENMSG = struct.Struct(">BBH")

# A zone of the reply direction is not in here: the original tuple of such an entry is in zone 0,
# and a reply tuple of nothing but a zone would make an update invalid.
_KEYS = frozenset(row.key for row in ENTRY if row.use & KEY)
_CREATED = frozenset(row.key for row in ENTRY if row.use & CREATE)
_UPDATED = _KEYS | {row.key for row in ENTRY if row.use & UPDATE}
_DELETED = _KEYS | {"id"}

_KEYLESS = "the original tuple is missing: such a message would be about the whole table"


def nfgenmsg(family: int = 0, resource: int = 0) -> bytes:
    """The header of every netfilter message; version 1, so that a flush heeds the family."""
    return _NFGENMSG.pack(family, uapi.NFNETLINK_V1, resource)


def _about(entry: Mapping[str, Any], keys: Any) -> bytes:
    if "original.source" not in entry or "original.protocol" not in entry:
        raise InvalidValue("original", _KEYLESS)
    return nfgenmsg(entry["family"]) + ENTRIES.encode(entry, keys)


def create(entry: Mapping[str, Any], exclusive: bool = True) -> Message:
    """Create an entry (see `entry.creation`); refused with EEXIST if there is one and `exclusive`,
    else the one that is there is updated."""
    flags = uapi.NLM_F_CREATE | (uapi.NLM_F_EXCL if exclusive else 0)
    keys = _CREATED if exclusive else _CREATED | _UPDATED  # masks mean something to an update only
    return Message(uapi.IPCTNL_MSG_CT_NEW, flags, _about(entry, keys))


def update(entry: Mapping[str, Any]) -> Message:
    """Change what the entry has besides its original tuple and zone.

    Its reply tuple, `nat` and `master` are set when it is created; they are not sent.
    """
    check_states(entry)
    return Message(uapi.IPCTNL_MSG_CT_NEW, 0, _about(entry, _UPDATED))


def get(entry: Mapping[str, Any], zero: bool = False) -> Message:
    """Read the entry that has this tuple in either direction; `zero` resets its counters."""
    kind = uapi.IPCTNL_MSG_CT_GET_CTRZERO if zero else uapi.IPCTNL_MSG_CT_GET
    return Message(kind, 0, _about(entry, _KEYS))


def delete(entry: Mapping[str, Any]) -> Message:
    """Delete one entry; with `id`, only if it is still the one that was read."""
    return Message(uapi.IPCTNL_MSG_CT_DELETE, 0, _about(entry, _DELETED))


def dump(family: int = 0, zero: bool = False) -> Message:
    """Read every entry of a family, or of all; `zero` resets their counters."""
    kind = uapi.IPCTNL_MSG_CT_GET_CTRZERO if zero else uapi.IPCTNL_MSG_CT_GET
    return Message(kind, 0, nfgenmsg(family))


def dump_dying() -> Message:
    """Read the entries that are gone but whose destroy event could not be delivered."""
    return Message(uapi.IPCTNL_MSG_CT_GET_DYING, 0, nfgenmsg())


def dump_unconfirmed() -> Message:
    """Read the entries of packets still on their way; always empty since Linux 5.19."""
    return Message(uapi.IPCTNL_MSG_CT_GET_UNCONFIRMED, 0, nfgenmsg())


def statistics() -> Message:
    """Ask for the number of entries and the largest number there may be."""
    return Message(uapi.IPCTNL_MSG_CT_GET_STATS, 0, nfgenmsg())


def dump_statistics_per_cpu() -> Message:
    """Ask for the counters of every CPU."""
    return Message(uapi.IPCTNL_MSG_CT_GET_STATS_CPU, 0, nfgenmsg())


def dump_expectation_statistics_per_cpu() -> Message:
    """Ask for the counters of expectations of every CPU."""
    return Message(uapi.IPCTNL_MSG_EXP_GET_STATS_CPU, 0, nfgenmsg())


def parse_entry(message: Message) -> Entry:
    """The entry in a message of the kernel's."""
    entry = ENTRIES.decode(*payload_of(message))
    entry["family"] = family_of(message)
    return entry


def payload_of(message: Message) -> tuple[bytes, int]:
    """The bytes of a message and where its attributes start in them."""
    return message.payload, _NFGENMSG.size


def family_of(message: Message) -> int:
    """The family that a message is about."""
    return message.payload[0]


def resource(message: Message) -> int:
    """The resource id of a message: the CPU of per-CPU statistics."""
    number: int = _NFGENMSG.unpack_from(message.payload)[2]
    return number
