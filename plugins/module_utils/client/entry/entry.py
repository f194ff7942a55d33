# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Conntrack entries: their keys and their identity. `creation.py` has what a request to create one contains.

An entry is a flat mapping. An absent key is unset or unknown. `*` stands for a direction, `original` or `reply`::

    key                                       value
    family                                    int: AF_INET (2) or AF_INET6 (10)
    *.source, *.destination                   bytes: address in network order, 4 or 16 bytes
    *.protocol                                int: IPPROTO_* of netinet/in.h
    *.source_port, *.destination_port         int: TCP, UDP, SCTP, DCCP and UDP-Lite
    *.source_key, *.destination_key           int: GRE
    *.icmp_type, *.icmp_code, *.icmp_id       int: ICMP and ICMPv6
    zone, *.zone                              int: see zone.py
    status                                    int: IPS_* bits of nf_conntrack_common.h
    tcp.state                                 int: see codec/types.py, as for all states
    tcp.*.window_scale                        int: 0 to 14
    tcp.*.flags                               int: IP_CT_TCP_FLAG_* bits of nf_conntrack_tcp.h
    sctp.state, sctp.*_vtag                   int
    dccp.state, dccp.role                     int: before Linux 6.17
    dccp.handshake_sequence                   int: before Linux 6.17
    helper                                    str: its name
    nat.…                                     a request for NAT, which the kernel does not report: see nat.py
    timeout                                   int: seconds that are left; an offloaded entry has none
    mark                                      int: 32 bits
    master.…                                  tuple of the connection that announced this one; keys as in original.…
    sequence_adjustment.*.position            int: a TCP sequence number
    sequence_adjustment.*.before, .after      int: bytes, may be negative
    labels                                    int: 128 bits, bit n is label n
    synproxy.isn, synproxy.its, .tsoff        int
    counters.*.packets, counters.*.bytes      int: with nf_conntrack_acct=1 only
    timestamps.start, timestamps.stop         int: nanoseconds since 1970, with nf_conntrack_timestamp=1 only
    timestamps.event                          int: nanoseconds since 1970, in events, since Linux 6.14
    security_context                          str: with SELinux or Smack
    id, use                                   int: the kernel's id and reference count of the entry
    extra                                     dict of bytes by attribute path ("4.1.9"): what this version does not know
    mark_mask, labels_mask, status_mask       int: in requests only, the bits to change or to compare

All keys exist since Linux 5.10 if nothing else is said. `codec/attributes.py` has the attribute number of each.

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping, Sequence, Tuple

from .. import uapi
from ..codec.codec import Values
from ..codec.types import AF_INET6
from ..errors import InvalidValue
from .tuple import ENDPOINT_KEYS, describe_tuple, reversed_tuple, tuple_of, with_tuple
from .zone import ZONE_KEYS, zone_keys_of

if TYPE_CHECKING:
    from .labels import LabelMap
    from .nested import Document

Entry = Values
Identity = Tuple[Any, ...]

OFFLOADED = uapi.IPS_OFFLOAD | uapi.IPS_HW_OFFLOAD
#: Protocols whose entries have no ports if the kernel no longer tracks them: DCCP since Linux 6.17, UDP-Lite since 7.1.
UNTRACKED = frozenset({uapi.IPPROTO_DCCP, uapi.IPPROTO_UDPLITE})


_IDENTITY = (
    "family",
    "original.protocol",
    "original.source",
    "original.destination",
    *(f"original.{name}" for name in ENDPOINT_KEYS),
)


def identity(entry: Mapping[str, Any]) -> Identity:
    """Return the hashable identity of an entry: its zones, family, protocol and original tuple."""
    get = entry.get
    return (*[get(key) or 0 for key in ZONE_KEYS], *map(get, _IDENTITY))


def lookup_key(entry: Mapping[str, Any], direction: str) -> Entry:
    """Return an entry whose original tuple is that of a direction of this entry, or that of its `master`."""
    if direction == "original":
        return dict(entry)
    others = {key: value for key, value in entry.items() if not key.startswith("original.") or key == "original.zone"}
    return {**others, **with_tuple("original", tuple_of(entry, direction))}


def has_reply_alone(entry: Mapping[str, Any]) -> bool:
    """Whether this declares, by its reply tuple alone, an entry that must not exist."""
    return "original.source" not in entry and "reply.source" in entry


def by_reply(entry: Mapping[str, Any]) -> Entry:
    """Return an entry by which the kernel finds the reply tuple of this one, in the zone of that direction."""
    asked = lookup_key(entry, "reply")
    zone = asked.pop("reply.zone", None) or asked.get("zone")
    asked.pop("original.zone", None)
    return {**asked, "zone": zone} if zone else asked


def describe(entry: Mapping[str, Any]) -> str:
    """Return one line that names an entry: `tcp 10.0.0.1:4000 -> 192.0.2.1:443 (zone 5)`."""
    alone = has_reply_alone(entry)
    line = describe_tuple(tuple_of(entry, "reply" if alone else "original"))
    zones = [f"{key.replace('.', ' ')} {entry[key]}" for key in zone_keys_of(entry)]
    if alone:
        zones.insert(0, "reply")
    elif "reply.source" in entry:
        reply = tuple_of(entry, "reply")
        try:
            plain = reversed_tuple(tuple_of(entry, "original")) == reply
        except InvalidValue:
            plain = False
        if not plain:
            zones.append("reply " + describe_tuple(reply).partition(" ")[2])
    return f"{line} ({', '.join(zones)})" if zones else line


def to_documents(entries: Sequence[Mapping[str, Any]], labels: LabelMap) -> list[Document]:
    """Return the documents of entries (see `document.to_document`). Without entries, nothing is imported for it."""
    if not entries:
        return []
    from .document import to_document

    return [to_document(entry, labels) for entry in entries]


def check_family(protocol: int, family: int) -> None:
    """Raise `InvalidValue` if the protocol exists only in the other family."""
    if protocol == uapi.IPPROTO_ICMP and family == AF_INET6:
        raise InvalidValue("protocol", "icmp is for IPv4, and the addresses are IPv6; write icmpv6")
    if protocol == uapi.IPPROTO_ICMPV6 and family != AF_INET6:
        raise InvalidValue("protocol", "icmpv6 is for IPv6, and the addresses are IPv4; write icmp")
