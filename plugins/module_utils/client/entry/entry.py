# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a conntrack entry is: its tuples, its identity, its address translation.

An entry is a plain mapping from the keys of `attributes.ENTRY` to values, plus `family`
(AF_INET or AF_INET6) and, for what this version does not know, `extra`. An absent key is
unknown or unset.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Mapping, Tuple

from .. import uapi
from ..codec.attributes import ENTRY, INSEPARABLE
from ..codec.codec import Values
from ..codec.types import (
    AF_INET6,
    DCCP_ROLES,
    DCCP_STATES,
    SCTP_STATES,
    TCP_STATES,
    listing,
)
from ..errors import InvalidValue
from .tuple import ENDPOINT_KEYS, default_reply, describe_tuple, reversed_tuple, tuple_of, with_tuple

Entry = Values
Identity = Tuple[Any, ...]

#: Status bits that a request can set; the kernel keeps all others to itself.
SETTABLE_STATUS = uapi.IPS_SEEN_REPLY | uapi.IPS_ASSURED | uapi.IPS_FIXED_TIMEOUT
#: Seconds an entry lives that is declared without a timeout.
DEFAULT_TIMEOUT = 120
OFFLOADED = uapi.IPS_OFFLOAD | uapi.IPS_HW_OFFLOAD
#: What each direction of a TCP connection has as flags.
TCP_FLAGS = ("tcp.original.flags", "tcp.reply.flags")
#: Protocols whose entries have no ports where the kernel has given up tracking them: DCCP since
#: Linux 6.17, UDP-Lite since 7.1.
UNTRACKED = frozenset({uapi.IPPROTO_DCCP, uapi.IPPROTO_UDPLITE})


_IDENTITY = (
    "family",
    "original.protocol",
    "original.source",
    "original.destination",
    *(f"original.{name}" for name in ENDPOINT_KEYS),
)
_ZONES = ("zone", "original.zone", "reply.zone")


def identity(entry: Mapping[str, Any]) -> Identity:
    """What makes it this entry and no other: zones, family, protocol and original tuple."""
    get = entry.get
    return (*[get(key) or 0 for key in _ZONES], *map(get, _IDENTITY))


def lookup_key(entry: Mapping[str, Any], direction: str) -> Entry:
    """By what the entry is found that has the tuple of a direction of this one, or of its `master`."""
    if direction == "original":
        return dict(entry)
    others = {key: value for key, value in entry.items() if not key.startswith("original.") or key == "original.zone"}
    return {**others, **with_tuple("original", tuple_of(entry, direction))}


def has_reply_alone(entry: Mapping[str, Any]) -> bool:
    """Whether this is the declaration of an entry that must not exist, by its reply tuple and no original one."""
    return "original.source" not in entry and "reply.source" in entry


def by_reply(entry: Mapping[str, Any]) -> Entry:
    """What a request asks for that looks for the reply tuple of this entry in the zone of that direction."""
    asked = lookup_key(entry, "reply")
    zone = asked.pop("reply.zone", None) or asked.get("zone")
    asked.pop("original.zone", None)
    return {**asked, "zone": zone} if zone else asked


def creation(declared: Mapping[str, Any]) -> Entry:
    """All that a request to create `declared` has to say.

    The kernel wants both tuples and a timeout. A reply that was not declared is the original
    turned round; with `nat` it must be so too, since the kernel itself works out the translated
    one (given a translated reply, it would store it and translate nothing). A direction of TCP for
    which no flags are declared gets those of `assumed_flags`.
    """
    entry = {**default_reply(declared), **declared}
    if any(key.startswith("nat.") for key in declared):
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
    """The flags of a TCP connection of which the kernel has seen no handshake.

    The window scales of such a connection are unknown. Without `be_liberal` the kernel assumes that there is
    none, and every packet beyond the unscaled window is invalid. The kernel sets the same flags when it picks
    up a connection in the middle (tcp_new in nf_conntrack_proto_tcp.c). `close_init` lets a new connection
    replace one that has ended.
    """
    flags = uapi.IP_CT_TCP_FLAG_SACK_PERM | uapi.IP_CT_TCP_FLAG_BE_LIBERAL
    return flags | uapi.IP_CT_TCP_FLAG_CLOSE_INIT if state >= TCP_STATES["time_wait"] else flags


def sent_status(status: int) -> int:
    """What of a status a request to create says: the kernel wants `confirmed`."""
    return status & (SETTABLE_STATUS | uapi.IPS_HELPER) | uapi.IPS_CONFIRMED


#: Keys whose value must have a name to be sent, and the names.
STATES: dict[str, Mapping[str, int]] = {
    "tcp.state": TCP_STATES,
    "sctp.state": SCTP_STATES,
    "dccp.state": DCCP_STATES,
    "dccp.role": DCCP_ROLES,
}


def check_states(entry: Mapping[str, Any]) -> None:
    """`InvalidValue` for a state without a name: old kernels take any number and index tables by it."""
    for key, names in STATES.items():
        if key in entry and entry[key] > max(names.values()):
            raise InvalidValue(key, f"{entry[key]} is no state to set; write one of {listing(names)}")


@lru_cache(maxsize=None)
def _inseparable() -> list[list[str]]:
    return [[row.key for row in ENTRY if row.key.startswith(group)] for group in INSEPARABLE]


def _check_whole(entry: Mapping[str, Any]) -> None:
    """Some groups of keys the kernel takes together or not at all."""
    for members in _inseparable():
        missing = [key for key in members if key not in entry]
        if missing and len(missing) < len(members):
            raise InvalidValue(missing[0], f"is missing; all of {', '.join(members)} go together")


def describe(entry: Mapping[str, Any]) -> str:
    """One line that names the entry: `tcp 10.0.0.1:4000 -> 192.0.2.1:443 (zone 5)`."""
    alone = has_reply_alone(entry)
    line = describe_tuple(tuple_of(entry, "reply" if alone else "original"))
    zones = [f"{key.replace('.', ' ')} {entry[key]}" for key in _ZONES if entry.get(key)]
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


def check_family(protocol: int, family: int) -> None:
    """`InvalidValue` where the protocol exists in the other family only."""
    if protocol == uapi.IPPROTO_ICMP and family == AF_INET6:
        raise InvalidValue("protocol", "icmp is of IPv4, the addresses are IPv6; write icmpv6")
    if protocol == uapi.IPPROTO_ICMPV6 and family != AF_INET6:
        raise InvalidValue("protocol", "icmpv6 is of IPv6, the addresses are IPv4; write icmp")
