# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Conntrack entries: their keys, their identity, and what a request to create one contains.

An entry is a flat mapping. An absent key is unset or unknown. `*` stands for a direction, `original` or `reply`.

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
    master.…                                  tuple of the connection that announced this one; keys as in `original.…`
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

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Mapping, Sequence, Tuple

from .. import uapi
from ..codec.attributes import ENTRY, INSEPARABLE, Change
from ..codec.codec import Values
from ..codec.types import AF_INET6, DCCP_ROLES, DCCP_STATES, SCTP_STATES, TCP_STATES, listing
from ..errors import InvalidValue
from .tuple import ENDPOINT_KEYS, default_reply, describe_tuple, reversed_tuple, tuple_of, with_tuple
from .zone import ZONE_KEYS, zone_keys_of

if TYPE_CHECKING:
    from .labels import LabelMap
    from .nested import Document

Entry = Values
Identity = Tuple[Any, ...]

#: Status bits that a request can set. The kernel ignores or refuses all others.
SETTABLE_STATUS = uapi.IPS_SEEN_REPLY | uapi.IPS_ASSURED | uapi.IPS_FIXED_TIMEOUT
#: Timeout in seconds of an entry that is declared without one.
DEFAULT_TIMEOUT = 120
OFFLOADED = uapi.IPS_OFFLOAD | uapi.IPS_HW_OFFLOAD
#: The keys of the TCP flags of each direction.
TCP_FLAGS = ("tcp.original.flags", "tcp.reply.flags")
_NAT_KEYS = frozenset(row.key for row in ENTRY if row.key.startswith("nat."))
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


def creation(declared: Mapping[str, Any]) -> Entry:
    """Return a complete entry, as a request to create it must have it.

    The kernel requires both tuples and a timeout. The default reply is the reversed original. With `nat`, the reply is
    always the reversed original: the kernel computes the NATed one. If the request contained that, the kernel would
    store it and translate nothing. A direction of TCP without flags gets those of `assumed_flags`.

    Raises `InvalidValue` for a timeout of 0, an unknown state, and a group of keys of which one is missing.
    """
    entry = {**default_reply(declared), **declared}
    if not _NAT_KEYS.isdisjoint(declared):
        entry.update(default_reply(declared))
    entry.setdefault("timeout", DEFAULT_TIMEOUT)
    if entry["timeout"] == 0:
        raise InvalidValue("timeout", "0 would be gone at once; write 1 or more seconds")
    if "status" in entry:
        entry["status"] = sent_status(entry["status"])
    if not entry.get("helper"):
        entry.pop("helper", None)
    if entry.get("original.protocol") == uapi.IPPROTO_TCP:
        for key in TCP_FLAGS:
            entry.setdefault(key, assumed_flags(entry.get("tcp.state", 0)))
    check_states(entry)
    _check_whole(entry)
    return entry


def assumed_flags(state: int) -> int:
    """Return the flags for a TCP connection in this state whose handshake the kernel has not seen.

    The window scales of such a connection are unknown. Without `be_liberal`, the kernel assumes that there is none, and
    every packet beyond the unscaled window is invalid. The kernel sets the same flags when it picks up an established
    connection (tcp_new in nf_conntrack_proto_tcp.c). `close_init` lets a new connection replace one that has ended.
    """
    flags = uapi.IP_CT_TCP_FLAG_SACK_PERM | uapi.IP_CT_TCP_FLAG_BE_LIBERAL
    return flags | uapi.IP_CT_TCP_FLAG_CLOSE_INIT if state >= TCP_STATES["time_wait"] else flags


def sent_status(status: int) -> int:
    """Return the status bits for a request to create an entry. The kernel requires `confirmed`."""
    return status & (SETTABLE_STATUS | uapi.IPS_HELPER) | uapi.IPS_CONFIRMED


#: Keys that accept only numbers with a name, and the names.
STATE_NAMES: dict[str, Mapping[str, int]] = {
    "tcp.state": TCP_STATES,
    "sctp.state": SCTP_STATES,
    "dccp.state": DCCP_STATES,
    "dccp.role": DCCP_ROLES,
}


def check_states(entry: Mapping[str, Any]) -> None:
    """Raise `InvalidValue` for a state without a name: old kernels accept any number and index tables by it."""
    for key, names in STATE_NAMES.items():
        if key in entry and entry[key] > max(names.values()):
            raise InvalidValue(key, f"{entry[key]} is no state to set; write one of {listing(names)}")


def check_timeout_min(timeout_min: int, declared: Mapping[str, Any], parent: str = "") -> None:
    """Raise `InvalidValue` for a `timeout_min` without a timeout, or above it. `parent` is the path of the timeout."""
    if timeout_min and "timeout" not in declared:
        raise InvalidValue("timeout_min", f"there is no timeout to set; write {parent}timeout too")
    if timeout_min and timeout_min > declared["timeout"]:
        raise InvalidValue(
            "timeout_min",
            f"{timeout_min} is above {parent or 'the '}timeout, which would be set on every run; "
            f"write {declared['timeout']} or less",
        )


def timeout_changes(
    declared: Mapping[str, Any], actual: Mapping[str, Any], timeout_min: int, shorten: bool = False
) -> list[Change]:
    """Set the declared timeout if fewer seconds than `timeout_min` remain, or with `shorten`, more than it.

    An offloaded entry shows no timeout and uses none.
    """
    timeout, remaining = declared.get("timeout"), actual.get("timeout")
    if timeout is None or remaining is None or timeout_min <= remaining <= (timeout if shorten else remaining):
        return []
    return [Change("timeout", remaining, timeout)]


@lru_cache(maxsize=None)
def inseparable_groups() -> list[list[str]]:
    """Return the groups of keys that the kernel accepts only as a whole."""
    return [[row.key for row in ENTRY if row.key.startswith(group)] for group in INSEPARABLE]


@lru_cache(maxsize=None)
def _inseparable_keys() -> frozenset[str]:
    return frozenset(key for members in inseparable_groups() for key in members)


def _check_whole(entry: Mapping[str, Any]) -> None:
    """Raise `InvalidValue` if a group of keys is incomplete that the kernel accepts only as a whole."""
    if entry.keys().isdisjoint(_inseparable_keys()):
        return
    for members in inseparable_groups():
        missing = [key for key in members if key not in entry]
        if missing and len(missing) < len(members):
            raise InvalidValue(missing[0], f"is missing; all of {', '.join(members)} go together")


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
        raise InvalidValue("protocol", "icmp is of IPv4, the addresses are IPv6; write icmpv6")
    if protocol == uapi.IPPROTO_ICMPV6 and family != AF_INET6:
        raise InvalidValue("protocol", "icmpv6 is of IPv6, the addresses are IPv4; write icmp")
