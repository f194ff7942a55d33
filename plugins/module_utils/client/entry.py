# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a conntrack entry is: its tuples, its identity, its address translation.

An entry is a plain mapping from the keys of `attributes.ENTRY` to values, plus `family`
(AF_INET or AF_INET6) and, for what this version does not know, `extra`. An absent key is
unknown or unset.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Mapping, NamedTuple, Tuple

from . import uapi
from .attributes import ENTRY, INSEPARABLE
from .codec import Values
from .errors import InvalidValue
from .values import (
    AF_INET6,
    DCCP_ROLES,
    DCCP_STATES,
    PORT_PROTOCOLS,
    PROTOCOL,
    SCTP_STATES,
    TCP_STATES,
    listing,
    present_address,
)

Entry = Values
Identity = Tuple[Any, ...]

#: Status bits that a request can set; the kernel keeps all others to itself.
SETTABLE_STATUS = uapi.IPS_SEEN_REPLY | uapi.IPS_ASSURED | uapi.IPS_FIXED_TIMEOUT
#: Seconds an entry lives that is declared without a timeout.
DEFAULT_TIMEOUT = 120
OFFLOADED = uapi.IPS_OFFLOAD | uapi.IPS_HW_OFFLOAD
#: Protocols whose entries have no ports where the kernel has given up tracking them: DCCP since
#: Linux 6.17, UDP-Lite since 7.1.
UNTRACKED = frozenset({uapi.IPPROTO_DCCP, uapi.IPPROTO_UDPLITE})

_PORTS = ("source_port", "destination_port")
_KEYS = ("source_key", "destination_key")
_ICMP = ("icmp_type", "icmp_code", "icmp_id")

#: What a tuple is made of.
_TUPLE = ("source", "destination", "protocol", *_PORTS, *_KEYS, *_ICMP)

_IDENTITY = (
    "family",
    "original.protocol",
    "original.source",
    "original.destination",
    *(f"original.{name}" for name in _PORTS + _KEYS + _ICMP),
)
_ZONES = ("zone", "original.zone", "reply.zone")

#: Types of ICMP messages that ask, and those that answer them (RFC 792, 950, 4443, 4620).
_ICMP_ANSWERS = {8: 0, 13: 14, 15: 16, 17: 18}
_ICMPV6_ANSWERS = {128: 129, 139: 140}


def protocol_keys(protocol: int) -> tuple[str, ...]:
    """The keys that tell flows of `protocol` apart, besides the addresses."""
    if protocol in PORT_PROTOCOLS:
        return _PORTS
    if protocol == uapi.IPPROTO_GRE:
        return _KEYS
    if protocol in (uapi.IPPROTO_ICMP, uapi.IPPROTO_ICMPV6):
        return _ICMP
    return ()


def identity(entry: Mapping[str, Any]) -> Identity:
    """What makes it this entry and no other: zones, family, protocol and original tuple."""
    get = entry.get
    return (*[get(key) or 0 for key in _ZONES], *map(get, _IDENTITY))


def tuple_of(entry: Mapping[str, Any], direction: str) -> dict[str, Any]:
    """The tuple of one direction without its zone: `{"source": …, "source_port": …}`."""
    return {name: entry[key] for name, key in _keys_of(direction) if key in entry}


@lru_cache(maxsize=None)
def _keys_of(direction: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, f"{direction}.{name}") for name in _TUPLE)


def with_tuple(direction: str, values: Mapping[str, Any]) -> Entry:
    """The keys of a tuple under those of its direction."""
    return {f"{direction}.{name}": value for name, value in values.items()}


def asking(entry: Mapping[str, Any], direction: str) -> Entry:
    """By what the entry is found that has the tuple of a direction of this one, or of its `master`."""
    others = {key: value for key, value in entry.items() if not key.startswith("original.") or key == "original.zone"}
    return {**others, **with_tuple("original", tuple_of(entry, direction))}


def answered_type(protocol: int, icmp_type: int) -> int | None:
    """The ICMP type of the other direction, or None for a type that has none."""
    asked = _ICMP_ANSWERS if protocol == uapi.IPPROTO_ICMP else _ICMPV6_ANSWERS
    if icmp_type in asked:
        return asked[icmp_type]
    return next((ask for ask, answer in asked.items() if answer == icmp_type), None)


def turned(values: Mapping[str, Any]) -> dict[str, Any]:
    """A tuple as the packets of the other direction carry it, without translation.

    Raises `InvalidValue` for an ICMP type that no packet answers: it cannot be tracked.
    """
    other = dict(values)
    for one, two in (("source", "destination"), _PORTS, _KEYS):
        if one in values and two in values:
            other[one], other[two] = values[two], values[one]
    if "icmp_type" in values:
        answer = answered_type(values.get("protocol", uapi.IPPROTO_ICMP), values["icmp_type"])
        if answer is None:
            raise InvalidValue(
                "icmp_type",
                f"{values['icmp_type']} is neither a request nor an answer to one, so it starts "
                "no connection; write the type of an echo (8, or 128 for ICMPv6), timestamp, "
                "information or address mask request",
            )
        other["icmp_type"] = answer
    return other


def creation(declared: Mapping[str, Any]) -> Entry:
    """All that a request to create `declared` has to say.

    The kernel wants both tuples and a timeout. A reply that was not declared is the original
    turned round; with `nat` it must be so too, since the kernel itself works out the translated
    one (given a translated reply, it would store it and translate nothing).
    """
    entry = {**untranslated(declared), **declared}
    if any(key.startswith("nat.") for key in declared):
        entry.update(untranslated(declared))
    entry.setdefault("timeout", DEFAULT_TIMEOUT)
    if entry["timeout"] == 0:
        raise InvalidValue("timeout", "0 would be gone at once; write 1 or more seconds")
    if "status" in entry:
        entry["status"] = sent_status(entry["status"])
    if not entry.get("helper"):
        entry.pop("helper", None)
    check_states(entry)
    _check_whole(entry)
    return entry


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


class Translation(NamedTuple):
    """What one end of a connection is translated to; None is unchanged."""

    address: bytes | None
    port: int | None


def translations(entry: Mapping[str, Any]) -> dict[str, Translation]:
    """The address translation in force, by `source` and `destination`.

    The kernel never says it; it follows from the status bits and from what the reply tuple has
    in place of the turned original. `port` stands for the ICMP id or the GRE key as well, there
    only where it was changed.
    """
    status = entry.get("status", 0)
    found: dict[str, Translation] = {}
    for end, bit, answered_by in (
        ("source", uapi.IPS_SRC_NAT, "destination"),
        ("destination", uapi.IPS_DST_NAT, "source"),
    ):
        if not status & bit or f"reply.{answered_by}" not in entry:
            continue
        port = entry.get(f"reply.{answered_by}_port")
        if port is None:
            was, port = entry.get(f"original.{end}_key"), entry.get(f"reply.{answered_by}_key")
            if "reply.icmp_id" in entry and "source" not in found:  # one id serves both ends
                was, port = entry.get("original.icmp_id"), entry["reply.icmp_id"]
            port = None if port == was else port
        found[end] = Translation(entry[f"reply.{answered_by}"], port)
    return found


def untranslated(entry: Mapping[str, Any]) -> Entry:
    """The reply tuple as it was before any translation: the original turned round."""
    return with_tuple("reply", turned(tuple_of(entry, "original")))


def describe(entry: Mapping[str, Any]) -> str:
    """One line that names the entry: `tcp 10.0.0.1:4000 -> 192.0.2.1:443 (zone 5)`."""
    line = describe_tuple(tuple_of(entry, "original"))
    zones = [f"{key.replace('.', ' ')} {entry[key]}" for key in _ZONES if entry.get(key)]
    if "reply.source" in entry and "original.source" in entry:
        reply = tuple_of(entry, "reply")
        try:
            plain = turned(tuple_of(entry, "original")) == reply
        except InvalidValue:
            plain = False
        if not plain:
            zones.append("reply " + describe_tuple(reply).partition(" ")[2])
    return f"{line} ({', '.join(zones)})" if zones else line


def describe_tuple(values: Mapping[str, Any]) -> str:
    """A tuple in one line: `tcp 10.0.0.1:4000 -> 192.0.2.1:443`; an address that it lacks is `?`."""
    protocol = values.get("protocol")
    name = PROTOCOL.present(protocol) if protocol is not None else "unknown protocol"

    def end(which: str) -> str:
        address = values.get(which)
        if address is None:
            return "?"
        text = present_address(address)
        port = values.get(f"{which}_port", values.get(f"{which}_key"))
        if port is None:
            return text
        return f"[{text}]:{port}" if len(address) == 16 else f"{text}:{port}"

    icmp = ""
    if "icmp_type" in values:
        icmp = " type {icmp_type} code {icmp_code} id {icmp_id}".format_map({**dict.fromkeys(_ICMP, "?"), **values})
    return f"{name} {end('source')} -> {end('destination')}{icmp}"


def check_family(protocol: int, family: int) -> None:
    """`InvalidValue` where the protocol exists in the other family only."""
    if protocol == uapi.IPPROTO_ICMP and family == AF_INET6:
        raise InvalidValue("protocol", "icmp is of IPv4, the addresses are IPv6; write icmpv6")
    if protocol == uapi.IPPROTO_ICMPV6 and family != AF_INET6:
        raise InvalidValue("protocol", "icmpv6 is of IPv6, the addresses are IPv4; write icmp")
