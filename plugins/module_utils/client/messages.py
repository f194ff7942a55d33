# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ctnetlink's messages, built and read without a socket.

A request for one entry always carries its tuple and its zone: without the tuple the kernel takes
a deletion for a flush of the whole table, and without the zone it looks in zone 0.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Mapping

from . import attributes, uapi
from .attributes import ENTRY
from .entry import Entry
from .errors import InvalidValue
from .layout import ENTRY_LAYOUTS
from .netlink import Message, frame

if TYPE_CHECKING:
    from .narrowing import Narrowing
    from .template import Request

_NFGENMSG = struct.Struct(">BBH")

# A zone of the reply direction is not in here: the original tuple of such an entry is in zone 0,
# and a reply tuple of nothing but a zone would make an update invalid.
_KEYS = frozenset(row.key for row in ENTRY if row.use & attributes.KEY)
_CREATED = frozenset(row.key for row in ENTRY if row.use & attributes.CREATE)
_UPDATED = _KEYS | {row.key for row in ENTRY if row.use & attributes.UPDATE}

#: The requests about one entry, by what they ask for. `put` creates an entry or updates the one that is there:
#: masks mean something to an update only.
_REQUESTS: dict[str, tuple[int, int, frozenset[str]]] = {
    "create": (uapi.IPCTNL_MSG_CT_NEW, uapi.NLM_F_CREATE | uapi.NLM_F_EXCL, _CREATED),
    "put": (uapi.IPCTNL_MSG_CT_NEW, uapi.NLM_F_CREATE, _CREATED | _UPDATED),
    "update": (uapi.IPCTNL_MSG_CT_NEW, 0, _UPDATED),
    "get": (uapi.IPCTNL_MSG_CT_GET, 0, _KEYS),
    "zero": (uapi.IPCTNL_MSG_CT_GET_CTRZERO, 0, _KEYS),
    "delete": (uapi.IPCTNL_MSG_CT_DELETE, 0, _KEYS | {"id"}),
}


@lru_cache(maxsize=None)
def request(what: str) -> Request:
    """The sort of request that creates, puts, updates, gets, zeroes or deletes (`"create"` …) one entry."""
    from .template import Request  # who only reads a table needs none

    return Request(*_REQUESTS[what], state_is_set=what == "update")


def nfgenmsg(family: int = 0, resource: int = 0) -> bytes:
    """The header of every netfilter message; version 1, so that a flush heeds the family."""
    return _NFGENMSG.pack(family, uapi.NFNETLINK_V1, resource)


def create(entry: Mapping[str, Any], exclusive: bool = True) -> Message:
    """Create an entry (see `entry.creation`); refused with EEXIST if there is one and `exclusive`,
    else the one that is there is updated."""
    return request("create" if exclusive else "put").message(entry)


def update(entry: Mapping[str, Any]) -> Message:
    """Change what the entry has besides its original tuple and zone.

    Its reply tuple, `nat` and `master` are set when it is created; they are not sent.
    """
    return request("update").message(entry)


def get(entry: Mapping[str, Any], zero: bool = False) -> Message:
    """Read the entry that has this tuple in either direction; `zero` resets its counters."""
    return request("zero" if zero else "get").message(entry)


def delete(entry: Mapping[str, Any]) -> Message:
    """Delete one entry; with `id`, only if it is still the one that was read."""
    return request("delete").message(entry)


def dump(family: int = 0, zero: bool = False, narrowing: Narrowing | None = None) -> Message:
    """Read every entry of a family, or of all; `zero` resets their counters.

    With a `narrowing`, which has a family of its own, those that it lets through; a kernel that
    passes over a part of it reads more, and one built without marks or zones refuses theirs. So
    counters cannot be reset with one: those of others would be, too.
    """
    if narrowing is None:
        kind = uapi.IPCTNL_MSG_CT_GET_CTRZERO if zero else uapi.IPCTNL_MSG_CT_GET
        return Message(kind, 0, nfgenmsg(family))
    if family or zero:
        raise InvalidValue("narrowing", "goes with no other family, and never with resetting counters")
    return Message(uapi.IPCTNL_MSG_CT_GET, 0, nfgenmsg(narrowing.family) + narrowing.attributes)


def flush(narrowing: Narrowing) -> Message:
    """Delete every entry that the narrowing lets through; a kernel that cannot heed all of it refuses.

    Raises `InvalidValue` for a narrowing that lets others through than match, or that some kernel
    would take for a flush of them all.
    """
    if not (narrowing.exact and narrowing.closed):
        raise InvalidValue("narrowing", "is not all that the match says, or not heeded by every kernel that takes it")
    return Message(uapi.IPCTNL_MSG_CT_DELETE, 0, nfgenmsg(narrowing.family) + narrowing.attributes)


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
    framed = frame(message, 0)
    layout = ENTRY_LAYOUTS.of(framed)
    return ENTRY_LAYOUTS.decode(framed) if layout is None else layout.entry(framed)


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
