# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tuples: protocol, addresses, ports, ICMP ids and GRE keys of one direction, and the zone that keeps them apart.

Source: include/net/netfilter/nf_conntrack_tuple.h, include/net/netfilter/nf_conntrack_zones.h.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Hashable, Mapping

from .. import uapi
from ..codec.codec import Values
from ..codec.types import PORT_PROTOCOLS, PROTOCOL, present_address
from ..errors import InvalidValue

_PORTS = ("source_port", "destination_port")
_KEYS = ("source_key", "destination_key")
_ICMP = ("icmp_type", "icmp_code", "icmp_id")
#: The keys of a tuple besides its addresses and protocol.
ENDPOINT_KEYS = (*_PORTS, *_KEYS, *_ICMP)
_TUPLE = ("source", "destination", "protocol", *ENDPOINT_KEYS)

#: ICMP types of requests and of their replies (RFC 792, 950, 4443, 4620).
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


def tuple_of(entry: Mapping[str, Any], direction: str) -> dict[str, Any]:
    """The tuple of one direction without its zone: `{"source": …, "source_port": …}`."""
    return {name: entry[key] for name, key in _keys_of(direction) if key in entry}


@lru_cache(maxsize=None)
def _keys_of(direction: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, f"{direction}.{name}") for name in _TUPLE)


def with_tuple(direction: str, values: Mapping[str, Any]) -> Values:
    """The keys of a tuple under those of its direction."""
    return {f"{direction}.{name}": value for name, value in values.items()}


def answered_type(protocol: int, icmp_type: int) -> int | None:
    """The ICMP type of the other direction, or None for a type that has none."""
    asked = _ICMP_ANSWERS if protocol == uapi.IPPROTO_ICMP else _ICMPV6_ANSWERS
    if icmp_type in asked:
        return asked[icmp_type]
    return next((ask for ask, answer in asked.items() if answer == icmp_type), None)


def reversed_tuple(values: Mapping[str, Any]) -> dict[str, Any]:
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


def zone_of(entry: Mapping[str, Any], direction: str) -> int:
    """Return the zone in which the kernel keeps the tuple of a direction: `original` or `reply`."""
    zone: int = entry.get(f"{direction}.zone") or entry.get("zone") or 0
    return zone


def any_zone(entry: Mapping[str, Any]) -> int:
    """Return the zone of an entry, whether it has one for both directions or for one of them."""
    return next((entry[key] for key in ("zone", "original.zone", "reply.zone") if entry.get(key)), 0)


def tuple_key(entry: Mapping[str, Any], direction: str) -> Hashable:
    """Return the tuple of a direction, or of the `master`, with its family and without its zone, as a key."""
    return (entry["family"], *[entry.get(key) for _name, key in _keys_of(direction)])


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


def default_reply(entry: Mapping[str, Any]) -> Values:
    """The reply tuple as it was before any translation: the original turned round."""
    return with_tuple("reply", reversed_tuple(tuple_of(entry, "original")))
