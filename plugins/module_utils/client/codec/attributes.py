# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The attribute table: every key of an entry, its place in a message, and the requests that contain it.

Encoder, decoder, comparison and the smallest update follow from these rows. A new attribute of the kernel is a new row.
A key is the path in the document (`original.source_port`). A path has the numbers of the nested attributes that contain
the value.

Source: ctattr_type in include/uapi/linux/netfilter/nfnetlink_conntrack.h, and what
net/netfilter/nf_conntrack_netlink.c does with each.
"""

from __future__ import annotations

from typing import Any, Iterable, Iterator, NamedTuple, Tuple

from .. import uapi
from . import types
from .types import AF_INET, AF_INET6, AttributeType

#: Sent when an entry is created.
CREATE = 1
#: Sent when an entry is changed in place, and compared with a declaration.
UPDATE = 2
#: Compared with a declaration. The kernel cannot change it in place, so the entry must be replaced.
FIXED = 4
#: Identifies the entry.
KEY = 8

Path = Tuple[int, ...]


class Attribute(NamedTuple):
    """A row of the table. `family` and `protocol` restrict it to entries of that family or protocol."""

    key: str
    path: Path
    kind: AttributeType
    use: int = 0
    family: int | None = None
    protocol: int | None = None


class Change(NamedTuple):
    """One key that differs: as it is (None if unset) and as declared, in the form of a document."""

    key: str
    before: Any
    after: Any

    def as_document(self) -> dict[str, Any]:
        return {"key": self.key, "before": self.before, "after": self.after}


def tuple_rows(prefix: str, number: int, use: int) -> Iterator[Attribute]:
    """Yield the rows of a tuple: addresses, keys of protocols, and the zone of the direction."""

    def address(name: str, ipv4: int, ipv6: int) -> Iterator[Attribute]:
        for family, kind, last in ((AF_INET, types.IPV4_ADDRESS, ipv4), (AF_INET6, types.IPV6_ADDRESS, ipv6)):
            path = (number, uapi.CTA_TUPLE_IP, last)
            yield Attribute(f"{prefix}.{name}", path, kind, use, family)

    def protocol(name: str, last: int, kind: AttributeType, only: int | None = None) -> Attribute:
        path = (number, uapi.CTA_TUPLE_PROTO, last)
        return Attribute(f"{prefix}.{name}", path, kind, use, None, only)

    yield from address("source", uapi.CTA_IP_V4_SRC, uapi.CTA_IP_V6_SRC)
    yield from address("destination", uapi.CTA_IP_V4_DST, uapi.CTA_IP_V6_DST)
    yield protocol("protocol", uapi.CTA_PROTO_NUM, types.PROTOCOL)
    yield protocol("source_port", uapi.CTA_PROTO_SRC_PORT, types.U16)
    yield protocol("destination_port", uapi.CTA_PROTO_DST_PORT, types.U16)
    yield protocol("source_key", uapi.CTA_PROTO_SRC_PORT, types.U16, uapi.IPPROTO_GRE)
    yield protocol("destination_key", uapi.CTA_PROTO_DST_PORT, types.U16, uapi.IPPROTO_GRE)
    yield protocol("icmp_id", uapi.CTA_PROTO_ICMP_ID, types.U16, uapi.IPPROTO_ICMP)
    yield protocol("icmp_type", uapi.CTA_PROTO_ICMP_TYPE, types.U8, uapi.IPPROTO_ICMP)
    yield protocol("icmp_code", uapi.CTA_PROTO_ICMP_CODE, types.U8, uapi.IPPROTO_ICMP)
    yield protocol("icmp_id", uapi.CTA_PROTO_ICMPV6_ID, types.U16, uapi.IPPROTO_ICMPV6)
    yield protocol("icmp_type", uapi.CTA_PROTO_ICMPV6_TYPE, types.U8, uapi.IPPROTO_ICMPV6)
    yield protocol("icmp_code", uapi.CTA_PROTO_ICMPV6_CODE, types.U8, uapi.IPPROTO_ICMPV6)
    yield Attribute(f"{prefix}.zone", (number, uapi.CTA_TUPLE_ZONE), types.U16, use)


def _nat(prefix: str, number: int) -> Iterator[Attribute]:
    """Yield the rows of a request for NAT: ranges of addresses and of ports."""
    for family, kind, low, high in (
        (AF_INET, types.IPV4_ADDRESS, uapi.CTA_NAT_V4_MINIP, uapi.CTA_NAT_V4_MAXIP),
        (AF_INET6, types.IPV6_ADDRESS, uapi.CTA_NAT_V6_MINIP, uapi.CTA_NAT_V6_MAXIP),
    ):
        yield Attribute(f"{prefix}.address_min", (number, low), kind, CREATE, family)
        yield Attribute(f"{prefix}.address_max", (number, high), kind, CREATE, family)
    ports = (number, uapi.CTA_NAT_PROTO)
    yield Attribute(f"{prefix}.port_min", (*ports, uapi.CTA_PROTONAT_PORT_MIN), types.U16, CREATE)
    yield Attribute(f"{prefix}.port_max", (*ports, uapi.CTA_PROTONAT_PORT_MAX), types.U16, CREATE)


def _numbers(
    prefix: str, path: Path, kind: AttributeType, use: int, members: Iterable[tuple[str, int]]
) -> Iterator[Attribute]:
    """Yield rows of one nest and one type."""
    for name, number in members:
        yield Attribute(f"{prefix}.{name}", (*path, number), kind, use)


def _entry() -> Iterator[Attribute]:
    both = CREATE | UPDATE
    tcp = (uapi.CTA_PROTOINFO, uapi.CTA_PROTOINFO_TCP)
    dccp = (uapi.CTA_PROTOINFO, uapi.CTA_PROTOINFO_DCCP)
    sctp = (uapi.CTA_PROTOINFO, uapi.CTA_PROTOINFO_SCTP)
    counters = (("packets", uapi.CTA_COUNTERS_PACKETS), ("bytes", uapi.CTA_COUNTERS_BYTES))

    yield from tuple_rows("original", uapi.CTA_TUPLE_ORIG, KEY | CREATE)
    yield from tuple_rows("reply", uapi.CTA_TUPLE_REPLY, CREATE | FIXED)
    yield Attribute("zone", (uapi.CTA_ZONE,), types.U16, KEY | CREATE)
    yield Attribute("status", (uapi.CTA_STATUS,), types.STATUS, both)
    yield Attribute("status_mask", (uapi.CTA_STATUS_MASK,), types.U32)

    yield Attribute("tcp.state", (*tcp, uapi.CTA_PROTOINFO_TCP_STATE), types.TCP_STATE, both)
    for direction, scale, flags in (
        ("original", uapi.CTA_PROTOINFO_TCP_WSCALE_ORIGINAL, uapi.CTA_PROTOINFO_TCP_FLAGS_ORIGINAL),
        ("reply", uapi.CTA_PROTOINFO_TCP_WSCALE_REPLY, uapi.CTA_PROTOINFO_TCP_FLAGS_REPLY),
    ):
        yield Attribute(f"tcp.{direction}.window_scale", (*tcp, scale), types.WINDOW_SCALE, both)
        yield Attribute(f"tcp.{direction}.flags", (*tcp, flags), types.TCP_FLAG_SET, both)
    yield Attribute("dccp.state", (*dccp, uapi.CTA_PROTOINFO_DCCP_STATE), types.DCCP_STATE, both)
    yield Attribute("dccp.role", (*dccp, uapi.CTA_PROTOINFO_DCCP_ROLE), types.DCCP_ROLE, both)
    handshake = (*dccp, uapi.CTA_PROTOINFO_DCCP_HANDSHAKE_SEQ)
    yield Attribute("dccp.handshake_sequence", handshake, types.U64, both)
    yield Attribute("sctp.state", (*sctp, uapi.CTA_PROTOINFO_SCTP_STATE), types.SCTP_STATE, both)
    for direction, number in (
        ("original", uapi.CTA_PROTOINFO_SCTP_VTAG_ORIGINAL),
        ("reply", uapi.CTA_PROTOINFO_SCTP_VTAG_REPLY),
    ):
        yield Attribute(f"sctp.{direction}_vtag", (*sctp, number), types.U32, both)

    helper = (uapi.CTA_HELP, uapi.CTA_HELP_NAME)
    yield Attribute("helper", helper, types.HELPER_NAME, both)
    yield from _nat("nat.source", uapi.CTA_NAT_SRC)
    yield from _nat("nat.destination", uapi.CTA_NAT_DST)
    yield Attribute("timeout", (uapi.CTA_TIMEOUT,), types.U32, both)
    yield Attribute("mark", (uapi.CTA_MARK,), types.U32, both)
    yield Attribute("mark_mask", (uapi.CTA_MARK_MASK,), types.U32, UPDATE)
    yield from tuple_rows("master", uapi.CTA_TUPLE_MASTER, CREATE | FIXED)
    for direction, number in (("original", uapi.CTA_SEQ_ADJ_ORIG), ("reply", uapi.CTA_SEQ_ADJ_REPLY)):
        prefix = f"sequence_adjustment.{direction}"
        position = (number, uapi.CTA_SEQADJ_CORRECTION_POS)
        yield Attribute(f"{prefix}.position", position, types.U32, both)
        offsets = (("before", uapi.CTA_SEQADJ_OFFSET_BEFORE), ("after", uapi.CTA_SEQADJ_OFFSET_AFTER))
        yield from _numbers(prefix, (number,), types.S32, both, offsets)
    yield Attribute("labels", (uapi.CTA_LABELS,), types.LABELS, both)
    yield Attribute("labels_mask", (uapi.CTA_LABELS_MASK,), types.LABELS, UPDATE)
    synproxy = (("isn", uapi.CTA_SYNPROXY_ISN), ("its", uapi.CTA_SYNPROXY_ITS), ("tsoff", uapi.CTA_SYNPROXY_TSOFF))
    yield from _numbers("synproxy", (uapi.CTA_SYNPROXY,), types.U32, both, synproxy)

    yield from _numbers("counters.original", (uapi.CTA_COUNTERS_ORIG,), types.U64, 0, counters)
    yield from _numbers("counters.reply", (uapi.CTA_COUNTERS_REPLY,), types.U64, 0, counters)
    times = (("start", uapi.CTA_TIMESTAMP_START), ("stop", uapi.CTA_TIMESTAMP_STOP))
    yield from _numbers("timestamps", (uapi.CTA_TIMESTAMP,), types.TIME, 0, times)
    yield Attribute("timestamps.event", (uapi.CTA_TIMESTAMP_EVENT,), types.TIME)
    context = (uapi.CTA_SECCTX, uapi.CTA_SECCTX_NAME)
    yield Attribute("security_context", context, types.SECURITY_CONTEXT)
    yield Attribute("id", (uapi.CTA_ID,), types.U32)
    yield Attribute("use", (uapi.CTA_USE,), types.U32)


#: Every row, in the order in which an entry is presented.
ENTRY: tuple[Attribute, ...] = tuple(_entry())

#: Where kernels without cheap unaligned access put an empty attribute in front of a 64-bit number. That of the time of
#: an event has the number of the status (Linux 6.14).
PADDING: tuple[Path, ...] = (
    (uapi.CTA_COUNTERS_ORIG, uapi.CTA_COUNTERS_PAD),
    (uapi.CTA_COUNTERS_REPLY, uapi.CTA_COUNTERS_PAD),
    (uapi.CTA_TIMESTAMP, uapi.CTA_TIMESTAMP_PAD),
    (uapi.CTA_PROTOINFO, uapi.CTA_PROTOINFO_DCCP, uapi.CTA_PROTOINFO_DCCP_PAD),
    (uapi.CTA_TIMESTAMP_PAD,),
)

#: Prefixes of groups of keys that the kernel accepts only as a whole.
INSEPARABLE: tuple[str, ...] = (
    "sctp.",
    "sequence_adjustment.original.",
    "sequence_adjustment.reply.",
    "synproxy.",
)
