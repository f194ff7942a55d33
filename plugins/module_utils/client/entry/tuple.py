# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tuples: protocol, addresses, ports, ICMP ids and GRE keys of one direction.

In an entry, the keys of a tuple begin with its direction (`original.source`). On its own, a tuple is a mapping without
that prefix: `{"protocol": 6, "source": b"…", "destination": b"…", "source_port": 4000, "destination_port": 443}`.

Source: include/net/netfilter/nf_conntrack_tuple.h.
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
    """Return the keys that a tuple of `protocol` has besides the addresses and the protocol. May be empty."""
    if protocol in PORT_PROTOCOLS:
        return _PORTS
    if protocol == uapi.IPPROTO_GRE:
        return _KEYS
    if protocol in (uapi.IPPROTO_ICMP, uapi.IPPROTO_ICMPV6):
        return _ICMP
    return ()


def tuple_of(entry: Mapping[str, Any], direction: str) -> dict[str, Any]:
    """Return the tuple of a direction or of the `master`, without its zone: `{"source": …, "source_port": …}`."""
    return {name: entry[key] for name, key in _keys_of(direction) if key in entry}


@lru_cache(maxsize=None)
def _keys_of(direction: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, f"{direction}.{name}") for name in _TUPLE)


def with_tuple(direction: str, values: Mapping[str, Any]) -> Values:
    """Return a tuple with the keys that it has in an entry: `{"original.source": …}`."""
    return {f"{direction}.{name}": value for name, value in values.items()}


def answered_type(protocol: int, icmp_type: int) -> int | None:
    """Return the ICMP type of the other direction, or None for a type that has none."""
    asked = _ICMP_ANSWERS if protocol == uapi.IPPROTO_ICMP else _ICMPV6_ANSWERS
    if icmp_type in asked:
        return asked[icmp_type]
    return next((ask for ask, answer in asked.items() if answer == icmp_type), None)


def reversed_tuple(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tuple of the other direction, without NAT.

    Raises `InvalidValue` for an ICMP type that has no answer: the kernel does not track it.
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


def tuple_key(entry: Mapping[str, Any], direction: str) -> Hashable:
    """Return the tuple of a direction, or of the `master`, with its family and without its zone, as a key."""
    return (entry["family"], *[entry.get(key) for _name, key in _keys_of(direction)])


def describe_tuple(values: Mapping[str, Any]) -> str:
    """Return a tuple in one line: `tcp 10.0.0.1:4000 -> 192.0.2.1:443`. A missing address is `?`."""
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
    """Return the reply tuple without NAT, which is the reversed original, with the keys that it has in an entry."""
    return with_tuple("reply", reversed_tuple(tuple_of(entry, "original")))
