# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages of ctnetlink about whole tables, built and read without a socket; `requests` has those about one entry.

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from .. import uapi
from ..codec.layout import ENTRY_LAYOUTS
from ..entry.entry import Entry
from ..errors import InvalidValue, MalformedMessage
from ..netlink.message import Message, frame

if TYPE_CHECKING:
    from ..match.kernel_filter import KernelFilter

_NFGENMSG = struct.Struct(">BBH")


def nfgenmsg(family: int = 0, resource: int = 0) -> bytes:
    """The header of every netfilter message; version 1, so that a flush heeds the family."""
    return _NFGENMSG.pack(family, uapi.NFNETLINK_V1, resource)


def dump(family: int = 0, zero: bool = False, narrowing: KernelFilter | None = None) -> Message:
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


def flush(narrowing: KernelFilter) -> Message:
    """Delete every entry that the narrowing lets through; a kernel that cannot heed all of it refuses.

    Raises `InvalidValue` for a narrowing that lets others through than match, or that some kernel
    would take for a flush of them all.
    """
    if not (narrowing.exact and narrowing.fails_closed):
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
    """The entry in a message of the kernel's. Raises `MalformedMessage`."""
    payload_of(message)
    framed = frame(message, 0)
    layout = ENTRY_LAYOUTS.of(framed)
    return ENTRY_LAYOUTS.decode(framed) if layout is None else layout.entry(framed)


def payload_of(message: Message) -> tuple[bytes, int]:
    """The bytes of a message and where its attributes start in them. Raises `MalformedMessage` if there are too few."""
    if len(message.payload) < _NFGENMSG.size:
        raise MalformedMessage(f"a netfilter message has {len(message.payload)} bytes, too few for its header")
    return message.payload, _NFGENMSG.size


def family_of(message: Message) -> int:
    """The family that a message is about."""
    return payload_of(message)[0][0]


def resource(message: Message) -> int:
    """The resource id of a message: the CPU of per-CPU statistics."""
    number: int = _NFGENMSG.unpack_from(payload_of(message)[0])[2]
    return number
