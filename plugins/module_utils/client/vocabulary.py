# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of a match: what one may write for each, and the term that it means.

Nothing that could be taken for "everything" by mistake is a match: no empty dictionary, no empty
list, no null.
"""

from __future__ import annotations

import socket
import time
from typing import Any, Callable, Iterable, Mapping, Tuple

from . import uapi, values
from .entry import Entry
from .errors import InvalidValue
from .labels import LabelMap
from .term import Either, Every, Masked, Not, Term, Told, Within, points
from .values import (
    DCCP_STATES,
    FAMILIES,
    PORT_PROTOCOLS,
    PROTOCOLS,
    SCTP_STATES,
    STATUS,
    TCP_STATES,
    as_list,
    parse_integer,
    parse_integer_range,
    parse_masked,
)

AddressRange = Tuple[bytes, bytes]
Parser = Callable[[Any, str, LabelMap], Term]

_ADDRESSES: dict[str, tuple[str, ...]] = {
    "source": ("original.source",),
    "destination": ("original.destination",),
    "reply_source": ("reply.source",),
    "reply_destination": ("reply.destination",),
}
_ADDRESSES["address"] = tuple(key for keys in _ADDRESSES.values() for key in keys)

_PORTS: dict[str, tuple[str, ...]] = {
    "source_port": ("original.source_port",),
    "destination_port": ("original.destination_port",),
    "reply_source_port": ("reply.source_port",),
    "reply_destination_port": ("reply.destination_port",),
}
_PORTS["port"] = tuple(key for keys in _PORTS.values() for key in keys)

_NUMBERS: dict[str, tuple[str, int]] = {
    "icmp_type": ("original.icmp_type", 0xFF),
    "icmp_code": ("original.icmp_code", 0xFF),
    "icmp_id": ("original.icmp_id", 0xFFFF),
    "source_key": ("original.source_key", 0xFFFF),
    "destination_key": ("original.destination_key", 0xFFFF),
}
_ZONES: dict[str, tuple[str, ...]] = {
    "original_zone": ("original.zone", "zone"),
    "reply_zone": ("reply.zone", "zone"),
}
_STATES: dict[str, dict[str, int]] = {
    "tcp.state": TCP_STATES,
    "sctp.state": SCTP_STATES,
    "dccp.state": DCCP_STATES,
}
_STATE_NAMES = tuple(dict.fromkeys(name for names in _STATES.values() for name in names))
#: What the status bits of each kind of translation are, as values under a mask.
_TRANSLATIONS: dict[str, tuple[tuple[int, int], ...]] = {
    "source": ((uapi.IPS_SRC_NAT, uapi.IPS_SRC_NAT),),
    "destination": ((uapi.IPS_DST_NAT, uapi.IPS_DST_NAT),),
    "any": ((uapi.IPS_SRC_NAT, uapi.IPS_SRC_NAT), (uapi.IPS_DST_NAT, uapi.IPS_DST_NAT)),
    "none": ((0, uapi.IPS_SRC_NAT | uapi.IPS_DST_NAT),),
}
_ZERO = ((0, 0xFFFFFFFF),)

_ICMP = frozenset({uapi.IPPROTO_ICMP, uapi.IPPROTO_ICMPV6})
_GRE = frozenset({uapi.IPPROTO_GRE})
_STATEFUL = frozenset({uapi.IPPROTO_TCP, uapi.IPPROTO_SCTP, uapi.IPPROTO_DCCP})

#: The protocols whose entries can have what a key asks for.
_PROTOCOLS_WITH: dict[str, frozenset[int]] = {
    **dict.fromkeys(_PORTS, PORT_PROTOCOLS),
    **{key: _GRE if key.endswith("_key") else _ICMP for key in _NUMBERS},
    "state": _STATEFUL,
}

_BOUNDS = tuple(f"{what}_{side}" for what in ("timeout", "bytes", "packets", "age") for side in ("below", "above"))

KEYS: tuple[str, ...] = (
    "family",
    "protocol",
    "zone",
    *_ZONES,
    "helper",
    *_ADDRESSES,
    *_PORTS,
    *_NUMBERS,
    "mark",
    "state",
    "nat",
    "status",
    "status_not",
    "labels",
    "labels_not",
    *_BOUNDS,
    "expected",
    "except",
)


def parse_keys(raw: Any, labels: LabelMap, key: str) -> tuple[Term, frozenset[str]]:
    """What one dictionary asks for, but for its `except`, and what the kernel must have recorded for an answer.

    `InvalidValue` names the first fault by its path below `key`.
    """
    if not isinstance(raw, Mapping):
        raise InvalidValue(key, f"{raw!r} is no match; write a dictionary of keys and values")
    for name, value in raw.items():
        path = f"{key}.{name}"
        if name not in KEYS:
            raise InvalidValue(path, f"no such key; write one of {', '.join(sorted(KEYS))}")
        if value is None:
            raise InvalidValue(path, "is null; leave the key out or give it a value")
        if isinstance(value, (list, tuple)) and not value:
            raise InvalidValue(path, "an empty list; leave the key out or give it values")
    if not set(raw) - {"except"}:
        raise InvalidValue(key, "says nothing, so it would match everything; write at least one key")
    _check_protocols(raw, key)
    _check_families(raw, key)

    terms = tuple(parser(raw[name], f"{key}.{name}", labels) for name, parser in _PARSERS.items() if name in raw)
    return Every(terms), frozenset(_NEEDS[name] for name in raw if name in _NEEDS)


def _check_protocols(raw: Mapping[str, Any], key: str) -> None:
    """Keys that no protocol of this match has would make it match nothing, ever."""
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


def _check_families(raw: Mapping[str, Any], key: str) -> None:
    """Addresses of one match that have no family in common would make it match nothing, ever."""
    possible: frozenset[int] = frozenset(FAMILIES.values())
    said_by = ""
    for name in ("family", *_ADDRESSES):
        if name not in raw:
            continue
        path = f"{key}.{name}"
        if name == "family":
            here = frozenset(_families(raw[name], path))
        else:
            here = frozenset(values.family_of(bounds[0]) for bounds in parse_addresses(raw[name], path))
        if not possible & here:
            raise InvalidValue(path, f"is not of the family of {said_by}; write both in one family")
        possible, said_by = possible & here, name


# Addresses


def parse_addresses(raw: Any, key: str) -> list[AddressRange]:
    """Inclusive ranges from addresses, CIDR blocks, `a-b` ranges, or a list of these."""
    return [_address_range(item, key) for item in as_list(raw)]


def _address_range(raw: Any, key: str) -> AddressRange:
    text = raw if isinstance(raw, str) else ""
    address, slash, length = text.partition("/")
    if not slash:
        return values.parse_address_range(raw, key)
    low = values.parse_address(address, key)
    bits = 8 * len(low)
    try:
        host = (1 << bits - parse_integer(length, key, 0, bits)) - 1
    except InvalidValue:
        raise InvalidValue(
            key, f"{raw!r} has no prefix length behind the slash; write a number from 0 to {bits} there"
        ) from None
    number = int.from_bytes(low, "big")
    if number & host:
        network = values.present_address((number & ~host).to_bytes(len(low), "big"))
        raise InvalidValue(key, f"{raw!r} has host bits set; write {network}/{length}, or the address alone")
    return low, (number | host).to_bytes(len(low), "big")


def _address(name: str) -> Parser:
    return lambda raw, key, labels: Within(_ADDRESSES[name], tuple(parse_addresses(raw, key)))


# Ports and other numbers


def parse_ports(raw: Any, key: str) -> list[values.Range]:
    """Inclusive ranges from port numbers, `a-b` ranges, service names, or a list of these."""
    return [port for item in as_list(raw) for port in _port(item, key)]


def _port(raw: Any, key: str) -> list[values.Range]:
    if isinstance(raw, str) and any(letter.isalpha() for letter in raw):
        found = set()
        for protocol in ("tcp", "udp", "sctp", "dccp"):
            try:
                found.add(socket.getservbyname(raw.strip(), protocol))
            except (OSError, ValueError):
                continue
        if not found:
            raise InvalidValue(key, f"{raw!r} is no service of this host; write the port's number")
        return [(port, port) for port in sorted(found)]
    return [parse_integer_range(raw, key, 0, 0xFFFF)]


def _port_of(name: str) -> Parser:
    return lambda raw, key, labels: Within(_PORTS[name], tuple(parse_ports(raw, key)))


def _number(name: str) -> Parser:
    where, highest = _NUMBERS[name]

    def parser(raw: Any, key: str, labels: LabelMap) -> Term:
        return Within((where,), tuple(parse_integer_range(item, key, 0, highest) for item in as_list(raw)))

    return parser


# What an entry is


def _families(raw: Any, key: str) -> list[int]:
    return [FAMILIES[_one_of(FAMILIES, item, key, "family")] for item in as_list(raw)]


def _one_of(names: Iterable[str], raw: Any, key: str, what: str) -> str:
    name = raw.strip().lower() if isinstance(raw, str) else ""
    if name not in names:
        raise InvalidValue(key, f"{raw!r} is no {what}; write one of {', '.join(names)}")
    return name


def _family(raw: Any, key: str, labels: LabelMap) -> Term:
    return Within(("family",), points(_families(raw, key)))


def _protocols(raw: Any, key: str) -> list[int]:
    return [values.PROTOCOL.parse(item, key) for item in as_list(raw)]


def _protocol(raw: Any, key: str, labels: LabelMap) -> Term:
    return Within(("original.protocol",), points(_protocols(raw, key)))


def _zone_set(raw: Any, key: str) -> frozenset[int]:
    return frozenset(parse_integer(item, key, 0, 0xFFFF) for item in as_list(raw))


def _zone(raw: Any, key: str, labels: LabelMap) -> Term:
    """An entry is in a zone if both its directions are."""
    wanted = Within(("zone",), points(_zone_set(raw, key)), 0)
    return Every((wanted, Masked("original.zone", _ZERO), Masked("reply.zone", _ZERO)))


def _zone_of(name: str) -> Parser:
    own, both = _ZONES[name]

    def parser(raw: Any, key: str, labels: LabelMap) -> Term:
        """The zone of one direction is its own, or that of both, or 0."""
        wanted = _zone_set(raw, key)
        terms: list[Term] = [Within((own, both), points(wanted - {0}))]
        if 0 in wanted:
            terms.append(Every((Masked(own, _ZERO), Masked(both, _ZERO))))
        return Either(tuple(terms))

    return parser


def _helper(raw: Any, key: str, labels: LabelMap) -> Term:
    names = [values.HELPER_NAME.parse(item, key) for item in as_list(raw)]
    if "" in names:
        raise InvalidValue(key, "is empty; write the name of a helper")
    return Within(("helper",), points(names))


def _mark(raw: Any, key: str, labels: LabelMap) -> Term:
    wanted = tuple(parse_masked(item, key) for item in as_list(raw))
    if any(mask == 0 for _value, mask in wanted):
        raise InvalidValue(key, "has a mask of 0, so it would match everything; write the bits that count")
    return Masked("mark", wanted)


def _state(raw: Any, key: str, labels: LabelMap) -> Term:
    names = [_one_of(_STATE_NAMES, item, key, "state") for item in as_list(raw)]
    return Either(
        tuple(
            Within((where,), points(states[name] for name in names if name in states))
            for where, states in _STATES.items()
            if any(name in states for name in names)
        )
    )


def _nat(raw: Any, key: str, labels: LabelMap) -> Term:
    wanted = [_one_of(_TRANSLATIONS, item, key, "kind of NAT") for item in as_list(raw)]
    return Masked("status", tuple(value for name in wanted for value in _TRANSLATIONS[name]))


def _all_set(where: str, wanted: int) -> Term:
    return Masked(where, ((wanted, wanted),))


def _none_set(where: str, unwanted: int) -> Term:
    return Masked(where, ((0, unwanted),))


def _label_bits(raw: Any, key: str, labels: LabelMap) -> int:
    return values.LABELS.parse(labels.to_bits(raw, key), key)


def _expected(raw: Any, key: str, labels: LabelMap) -> Term:
    if not isinstance(raw, bool):
        raise InvalidValue(key, f"{raw!r} is neither; write true or false")
    has_master = Either((_all_set("status", uapi.IPS_EXPECTED), Within(("master.protocol",), ((0, 0xFF),))))
    return has_master if raw else Not(has_master)


# Bounds


def _sum(what: str) -> Callable[[Entry, str], int | None]:
    def measure(entry: Entry, key: str) -> int | None:
        try:
            there: int = entry[f"counters.original.{what}"] + entry[f"counters.reply.{what}"]
        except KeyError:
            raise InvalidValue(
                key,
                "cannot be told: an entry has no counters, because accounting was off when it "
                "began; set net.netfilter.nf_conntrack_acct=1 and wait until older flows are gone",
            ) from None
        return there

    return measure


def _age(entry: Entry, key: str) -> int | None:
    try:
        started: int = entry["timestamps.start"]
    except KeyError:
        raise InvalidValue(
            key,
            "cannot be told: an entry has no timestamps, because they were off when it began; "
            "set net.netfilter.nf_conntrack_timestamp=1 and wait until older flows are gone",
        ) from None
    return (time.time_ns() - started) // 1_000_000_000


def _timeout(entry: Entry, key: str) -> int | None:
    return entry.get("timeout")  # an offloaded entry counts down elsewhere and has none


_MEASURES: dict[str, Callable[[Entry, str], int | None]] = {
    "timeout": _timeout,
    "bytes": _sum("bytes"),
    "packets": _sum("packets"),
    "age": _age,
}


def _bound(name: str) -> Parser:
    what, side = name.split("_")
    measure = _MEASURES[what]

    def parser(raw: Any, key: str, labels: LabelMap) -> Term:
        bound = parse_integer(raw, key, 0, (1 << 64) - 1)

        def matches(entry: Entry) -> bool:
            value = measure(entry, key)
            if value is None:
                return False
            return value < bound if side == "below" else value > bound

        return Told(matches)

    return parser


_NEEDS: dict[str, str] = {
    name: "timestamps" if name.startswith("age") else "accounting" for name in _BOUNDS if not name.startswith("timeout")
}

#: How each key is read; in the order of evaluation, so what may be impossible to tell comes last.
_PARSERS: dict[str, Parser] = {
    "family": _family,
    "protocol": _protocol,
    "zone": _zone,
    **{name: _zone_of(name) for name in _ZONES},
    **{name: _port_of(name) for name in _PORTS},
    **{name: _address(name) for name in _ADDRESSES},
    **{name: _number(name) for name in _NUMBERS},
    "mark": _mark,
    "state": _state,
    "status": lambda raw, key, labels: _all_set("status", STATUS.parse(raw, key)),
    "status_not": lambda raw, key, labels: _none_set("status", STATUS.parse(raw, key)),
    "labels": lambda raw, key, labels: _all_set("labels", _label_bits(raw, key, labels)),
    "labels_not": lambda raw, key, labels: _none_set("labels", _label_bits(raw, key, labels)),
    "helper": _helper,
    "nat": _nat,
    "expected": _expected,
    **{name: _bound(name) for name in _BOUNDS},
}
