# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of a match about the tuples of an entry: how their values are parsed, and the term that results.

Source: ct expressions in nft(8), conntrack(8); the documentation of the option `match` describes each key.
"""

from __future__ import annotations

import socket
from functools import partial
from typing import Any, Callable, Collection, Mapping, Tuple

from .. import uapi
from ..codec import types
from ..codec.types import FAMILIES, PORT_PROTOCOLS, PROTOCOLS, as_list, parse_integer, parse_integer_range
from ..entry.labels import LabelMap
from ..errors import InvalidValue, quoted
from .expression import InRanges, Term, points

AddressRange = Tuple[bytes, bytes]
Parser = Callable[[Any, str, LabelMap], Term]
#: The address of each direction and end.
_ENDS: dict[str, str] = {
    "source": "original.source",
    "destination": "original.destination",
    "reply_source": "reply.source",
    "reply_destination": "reply.destination",
}
ADDRESSES: dict[str, tuple[str, ...]] = {
    **{name: (key,) for name, key in _ENDS.items()},
    "address": tuple(_ENDS.values()),
    "reply_address": ("reply.source", "reply.destination"),
}
#: The keys in which entries can have the unspecified address: a DHCP client sends from 0.0.0.0.
_UNSPECIFIED = ("source", "reply_destination")
PORTS: dict[str, tuple[str, ...]] = {
    **{f"{name}_port": (f"{key}_port",) for name, key in _ENDS.items()},
    "port": tuple(f"{key}_port" for key in _ENDS.values()),
}
NUMBERS: dict[str, tuple[str, int]] = {
    "icmp_type": ("original.icmp_type", 0xFF),
    "icmp_code": ("original.icmp_code", 0xFF),
    "icmp_id": ("original.icmp_id", 0xFFFF),
    "source_key": ("original.source_key", 0xFFFF),
    "destination_key": ("original.destination_key", 0xFFFF),
}
_ICMP = frozenset({uapi.IPPROTO_ICMP, uapi.IPPROTO_ICMPV6})
_GRE = frozenset({uapi.IPPROTO_GRE})
_STATEFUL = frozenset({uapi.IPPROTO_TCP, uapi.IPPROTO_SCTP, uapi.IPPROTO_DCCP})
#: The protocols whose entries have the attribute of a key.
_PROTOCOLS_WITH: dict[str, frozenset[int]] = {
    **dict.fromkeys(PORTS, PORT_PROTOCOLS),
    **{key: _GRE if key.endswith("_key") else _ICMP for key in NUMBERS},
    "state": _STATEFUL,
}
#: The keys of a master, about its original tuple.
MASTER_KEYS = ("protocol", "source", "destination", "address", "source_port", "destination_port", "port", *NUMBERS)


def check_keys(raw: Mapping[str, Any], key: str, known: Collection[str]) -> None:
    """Raise `InvalidValue` for a key that does not exist or has no value."""
    for name, value in raw.items():
        if name not in known:
            from ..entry.nested import no_such_key

            raise no_such_key(key, name, known)
        path = f"{key}.{name}"
        if value is None:
            raise InvalidValue(path, f"is null; {_cure_of_nothing(raw, name, key)}")
        if isinstance(value, (list, tuple)) and not value:
            raise InvalidValue(path, f"an empty list; {_cure_of_nothing(raw, name, key)}")


def _cure_of_nothing(raw: Mapping[str, Any], name: str, key: str) -> str:
    """Return what to write instead of a key without a value. The only key of a match cannot be left out."""
    if name == "except" or set(raw) - {name, "except"}:
        return "leave the key out or give it a value"
    return f"write a value{or_leave_out(key)}"


def or_leave_out(key: str) -> str:
    """Return the advice to leave out the match at `key`, if that does not make a list empty."""
    return ", or leave out except" if key.rpartition(".")[2] == "except" else ""


def check_protocols(raw: Mapping[str, Any], key: str) -> None:
    """Raise `InvalidValue` for a key that no protocol of this match has: nothing would ever match."""
    possible: frozenset[int] | None = None
    said_by = ""
    if "protocol" in raw:
        possible = frozenset(_protocols(raw["protocol"], f"{key}.protocol"))
        said_by = f"protocol {raw['protocol']}"
    for name in raw:
        having = _PROTOCOLS_WITH.get(name)
        if having is None:
            continue
        both = having if possible is None else possible & having
        if not both:
            names = [protocol for protocol, number in PROTOCOLS.items() if number in having]
            raise InvalidValue(
                f"{key}.{name}",
                f"only {', '.join(names)} have it, not {said_by}; leave one of them out",
            )
        possible, said_by = both, said_by or name


def parse_addresses(raw: Any, key: str) -> list[AddressRange]:
    """Parse addresses, CIDR blocks, `a-b` ranges, or a list of these to inclusive ranges."""
    return [_address_range(item, key) for item in as_list(raw)]


def _address_range(raw: Any, key: str) -> AddressRange:
    text = raw if isinstance(raw, str) else ""
    address, slash, length = text.partition("/")
    if not slash:
        return types.parse_address_range(raw, key)
    low = types.parse_address(address, key)
    bits = 8 * len(low)
    try:
        host = (1 << bits - parse_integer(length, key, 0, bits)) - 1
    except InvalidValue:
        raise InvalidValue(
            key, f"{quoted(raw)} has no prefix length after the slash; write a number from 0 to {bits} there"
        ) from None
    number = int.from_bytes(low, "big")
    if number & host:
        network = types.present_address((number & ~host).to_bytes(len(low), "big"))
        raise InvalidValue(key, f"{quoted(raw)} has host bits set; write {network}/{length}, or the address alone")
    return low, (number | host).to_bytes(len(low), "big")


def _address(name: str, raw: Any, key: str, labels: LabelMap) -> Term:
    if name not in _UNSPECIFIED:
        _check_specified(raw, key)
    return InRanges(ADDRESSES[name], tuple(parse_addresses(raw, key)))


def _check_specified(raw: Any, key: str) -> None:
    """Refuse 0.0.0.0 and ::, which container engines print for "all addresses"."""
    for item in as_list(raw):
        if not isinstance(item, str) or "/" in item or types.as_range(item):
            continue
        address = types.parse_address(item, key)
        if not any(address):
            text, bits = types.present_address(address), 8 * len(address)
            raise InvalidValue(
                key,
                f"{text} is not an address of a connection; leave {key.rpartition('.')[2]} out for any address, or "
                f"write {text}/0 for any address of this family, {text}/{bits} for this address alone",
            )


def _port(raw: Any, key: str) -> list[types.Range]:
    """Parse a port number, an `a-b` range or a service name to inclusive ranges."""
    if isinstance(raw, str) and any(letter.isalpha() for letter in raw):
        found = set()
        for protocol in ("tcp", "udp", "sctp", "dccp"):
            try:
                found.add(socket.getservbyname(raw.strip(), protocol))
            except (OSError, ValueError):
                continue
        if not found:
            raise InvalidValue(key, f"{quoted(raw)} is not the name of a service on this host; write the port's number")
        return [(port, port) for port in sorted(found)]
    return [parse_integer_range(raw, key, 0, 0xFFFF)]


def _ports(name: str, raw: Any, key: str, labels: LabelMap) -> Term:
    return InRanges(PORTS[name], tuple(port for item in as_list(raw) for port in _port(item, key)))


def _number(name: str, raw: Any, key: str, labels: LabelMap) -> Term:
    where, highest = NUMBERS[name]
    return InRanges((where,), tuple(parse_integer_range(item, key, 0, highest) for item in as_list(raw)))


def parse_families(raw: Any, key: str) -> list[int]:
    return [FAMILIES[one_of(FAMILIES, item, key, "family")] for item in as_list(raw)]


def one_of(names: Collection[str], raw: Any, key: str, what: str) -> str:
    name = raw.strip().lower().replace("-", "_") if isinstance(raw, str) else ""
    if name not in names:
        from difflib import get_close_matches

        close = get_close_matches(name, names, 1)
        cure = f"did you mean {close[0]}" if close else "write one of " + ", ".join(names)
        raise InvalidValue(key, f"{quoted(raw)} is not a {what}" + (f" ({cure}?)" if close else f"; {cure}"))
    return name


def _family(raw: Any, key: str, labels: LabelMap) -> Term:
    return InRanges(("family",), points(parse_families(raw, key)))


def _protocols(raw: Any, key: str) -> list[int]:
    return [types.PROTOCOL.parse(item, key) for item in as_list(raw)]


def _protocol(raw: Any, key: str, labels: LabelMap) -> Term:
    return InRanges(("original.protocol",), points(_protocols(raw, key)))


#: The parser of each key.
PARSERS: dict[str, Parser] = {
    "family": _family,
    "protocol": _protocol,
    **{name: partial(_ports, name) for name in PORTS},
    **{name: partial(_address, name) for name in ADDRESSES},
    **{name: partial(_number, name) for name in NUMBERS},
}
