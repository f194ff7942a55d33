# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages of ctnetlink about whole tables, without a socket. Requests about single entries are in `requests`.

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from .. import uapi
from ..codec.layout import ENTRY_LAYOUTS
from ..entry.entry import Entry
from ..errors import InvalidValue, MalformedMessage
from ..netlink.message import Message, attributes, frame

if TYPE_CHECKING:
    from ..match.kernel_filter import KernelFilter

_NFGENMSG = struct.Struct(">BBH")


def nfgenmsg(family: int = 0) -> bytes:
    """Return the header of a netfilter message. Only with version 1, a flush is limited to the family."""
    return _NFGENMSG.pack(family, uapi.NFNETLINK_V1, 0)


def dump(family: int = 0, zero: bool = False, kernel_filter: KernelFilter | None = None) -> Message:
    """Return the request to read every entry of a family, or of all families. `zero` resets their counters.

    With a `kernel_filter`, which has its own family, the kernel returns only the entries that pass this filter. A
    kernel that ignores a part of it returns more entries, and a kernel built without marks or zones refuses a filter by
    them. Counters cannot be reset with a filter, because those of other entries would be reset, too. Raises
    `InvalidValue` for a `kernel_filter` with a family or `zero`.
    """
    if kernel_filter is None:
        kind = uapi.IPCTNL_MSG_CT_GET_CTRZERO if zero else uapi.IPCTNL_MSG_CT_GET
        return Message(kind, 0, nfgenmsg(family))
    if family or zero:
        raise InvalidValue("kernel_filter", "cannot be combined with another family or with a reset of counters")
    return Message(uapi.IPCTNL_MSG_CT_GET, 0, nfgenmsg(kernel_filter.family) + kernel_filter.attributes)


def flush(kernel_filter: KernelFilter) -> Message:
    """Return the request to delete every entry that passes a filter. A kernel that does not support it refuses.

    Raises `InvalidValue` for a filter that also passes entries that do not match, or that some kernel would treat as a
    flush of the whole table.
    """
    if not (kernel_filter.exact and kernel_filter.fails_closed):
        raise InvalidValue(
            "where",
            "cannot be expressed in full by the kernel's filter, or some kernels would delete the whole table; delete "
            "the entries that a scan finds",
        )
    return Message(uapi.IPCTNL_MSG_CT_DELETE, 0, nfgenmsg(kernel_filter.family) + kernel_filter.attributes)


#: Requests to read removed entries whose destroy event is not delivered yet, and unconfirmed entries.
DUMP_DYING = Message(uapi.IPCTNL_MSG_CT_GET_DYING, 0, nfgenmsg())
DUMP_UNCONFIRMED = Message(uapi.IPCTNL_MSG_CT_GET_UNCONFIRMED, 0, nfgenmsg())
#: Requests for the number of entries and the maximum number, and for the counters by CPU.
STATISTICS = Message(uapi.IPCTNL_MSG_CT_GET_STATS, 0, nfgenmsg())
DUMP_STATISTICS_PER_CPU = Message(uapi.IPCTNL_MSG_CT_GET_STATS_CPU, 0, nfgenmsg())
DUMP_EXPECTATION_STATISTICS_PER_CPU = Message(uapi.IPCTNL_MSG_EXP_GET_STATS_CPU, 0, nfgenmsg())


def parse_entry(message: Message) -> Entry:
    """Return the entry in a message of the kernel. Raises `MalformedMessage`."""
    payload_of(message)
    framed = frame(message, 0)
    layout = ENTRY_LAYOUTS.of(framed)
    return ENTRY_LAYOUTS.decode(framed) if layout is None else layout.entry(framed)


def payload_of(message: Message) -> tuple[bytes, int]:
    """Return the payload of a message and the offset of its attributes. Raises `MalformedMessage` if too short."""
    if len(message.payload) < _NFGENMSG.size:
        raise MalformedMessage(f"a netfilter message has {len(message.payload)} bytes, too few for its header")
    return message.payload, _NFGENMSG.size


def family_of(message: Message) -> int:
    """Return the family in the header of a message. Raises `MalformedMessage`."""
    return payload_of(message)[0][0]


def parse_count(message: Message) -> int:
    """Return the number of entries in an answer to `STATISTICS`. Raises `MalformedMessage`."""
    data, start = payload_of(message)
    for number, first, last in attributes(data, start, len(data)):
        if number == uapi.CTA_STATS_GLOBAL_ENTRIES:
            return int.from_bytes(data[first:last], "big")
    raise MalformedMessage("a message about the number of entries does not contain it")


def resource(message: Message) -> int:
    """Return the resource id of a message: the CPU of per-CPU statistics. Raises `MalformedMessage`."""
    number: int = _NFGENMSG.unpack_from(payload_of(message)[0])[2]
    return number
