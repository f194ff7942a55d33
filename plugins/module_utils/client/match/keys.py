# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of a match: how the values of each are parsed, and the term that results.

An empty dictionary, an empty list and null are errors, so that a match never selects everything by mistake.

Source: ct expressions in nft(8), conntrack(8); the documentation of the option `match` describes each key.
"""

from __future__ import annotations

import re
import socket
import time
from functools import partial
from typing import Any, Callable, Collection, Iterable, Mapping, Tuple, cast

from .. import uapi
from ..codec import types
from ..codec.types import (
    DCCP_STATES,
    FAMILIES,
    OLDER_TCP_STATES,
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
from ..entry.entry import Entry
from ..entry.labels import LabelMap
from ..errors import InvalidValue, quoted
from .expression import And, InRanges, MaskEquals, Not, Or, Predicate, Term, points

AddressRange = Tuple[bytes, bytes]
Parser = Callable[[Any, str, LabelMap], Term]

#: The address of each direction and end.
_ENDS: dict[str, str] = {
    "source": "original.source",
    "destination": "original.destination",
    "reply_source": "reply.source",
    "reply_destination": "reply.destination",
}
_ADDRESSES: dict[str, tuple[str, ...]] = {
    **{name: (key,) for name, key in _ENDS.items()},
    "address": tuple(_ENDS.values()),
    "reply_address": ("reply.source", "reply.destination"),
}
#: The keys in which entries can have the unspecified address: a DHCP client sends from 0.0.0.0.
_UNSPECIFIED = ("source", "reply_destination")

_PORTS: dict[str, tuple[str, ...]] = {
    **{f"{name}_port": (f"{key}_port",) for name, key in _ENDS.items()},
    "port": tuple(f"{key}_port" for key in _ENDS.values()),
}
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
    "tcp.state": {**TCP_STATES, **OLDER_TCP_STATES},
    "sctp.state": SCTP_STATES,
    "dccp.state": DCCP_STATES,
}
_STATE_NAMES = tuple(dict.fromkeys(name for names in _STATES.values() for name in names))
#: States of firewall rules that entries do not have, and what to write instead.
_RULE_STATES: dict[str, str] = {
    "new": "write status_not: seen_reply for connections without a reply",
    "related": "write expected: true for connections that another one has announced",
    "untracked": "leave it out, because untracked packets have no entry",
    "assured": "write status: assured",
    "unreplied": "write status_not: seen_reply",
}
#: The status bits of each kind of NAT, as values under a mask.
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

#: The protocols whose entries have the attribute of a key.
_PROTOCOLS_WITH: dict[str, frozenset[int]] = {
    **dict.fromkeys(_PORTS, PORT_PROTOCOLS),
    **{key: _GRE if key.endswith("_key") else _ICMP for key in _NUMBERS},
    "state": _STATEFUL,
}

_BOUNDS = tuple(f"{what}_{side}" for what in ("timeout", "bytes", "packets", "age") for side in ("below", "above"))

#: The keys of a master, about its original tuple.
MASTER_KEYS = ("protocol", "source", "destination", "address", "source_port", "destination_port", "port", *_NUMBERS)

KEYS: tuple[str, ...] = (
    *("family", "protocol", "zone", *_ZONES, "helper", *_ADDRESSES, *_PORTS, *_NUMBERS),
    *("mark", "state", "nat", "status", "status_not", "labels", "labels_not", *_BOUNDS),
    *("expected", "master", "except"),
)


def parse_keys(raw: Any, labels: LabelMap, key: str) -> tuple[Term, frozenset[str]]:
    """Convert one dictionary without its `except` to a term, and return also what the kernel must record for it.

    That is a set of `accounting` and `timestamps`. Raises `InvalidValue` with the path of the first fault below `key`.
    """
    if not isinstance(raw, Mapping):
        raise InvalidValue(key, f"{quoted(raw)} is not a match; write a dictionary of keys and values")
    if not set(raw) - {"except"}:
        raise InvalidValue(
            key, f"says nothing, so it would match everything; write at least one key{_or_leave_out(key)}"
        )
    _check_keys(raw, key, KEYS)
    _check_protocols(raw, key)
    _check_families(raw, key)

    terms = tuple(parser(raw[name], f"{key}.{name}", labels) for name, parser in _PARSERS.items() if name in raw)
    return And(terms), frozenset(_NEEDS[name] for name in raw if name in _NEEDS)


def _check_keys(raw: Mapping[str, Any], key: str, known: Collection[str]) -> None:
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
    return f"write a value{_or_leave_out(key)}"


def _or_leave_out(key: str) -> str:
    """Return the advice to leave out the match at `key`, if that does not make a list empty."""
    return ", or leave out except" if key.rpartition(".")[2] == "except" else ""


def _check_protocols(raw: Mapping[str, Any], key: str) -> None:
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


def _check_families(raw: Mapping[str, Any], key: str) -> frozenset[int]:
    """Return the possible families. Raises `InvalidValue` if there is none: nothing would ever match."""
    possible: frozenset[int] = frozenset(FAMILIES.values())
    said_by = ""
    for name in ("family", *_ADDRESSES, "master"):
        if name not in raw:
            continue
        path = f"{key}.{name}"
        if name == "family":
            here = frozenset(_families(raw[name], path))
        elif name == "master":
            masters = _masters(raw[name], path)
            here = frozenset().union(*(_check_families(one, where) for where, one in masters))
        else:
            here = frozenset(types.family_of(bounds[0]) for bounds in parse_addresses(raw[name], path))
        if not possible & here:
            raise InvalidValue(path, f"is not of the family of {said_by}; write both in one family")
        possible, said_by = possible & here, name
    return possible


# Addresses


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
            key, f"{quoted(raw)} has no prefix length behind the slash; write a number from 0 to {bits} there"
        ) from None
    number = int.from_bytes(low, "big")
    if number & host:
        network = types.present_address((number & ~host).to_bytes(len(low), "big"))
        raise InvalidValue(key, f"{quoted(raw)} has host bits set; write {network}/{length}, or the address alone")
    return low, (number | host).to_bytes(len(low), "big")


def _address(name: str, raw: Any, key: str, labels: LabelMap) -> Term:
    if name not in _UNSPECIFIED:
        _check_specified(raw, key)
    return InRanges(_ADDRESSES[name], tuple(parse_addresses(raw, key)))


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


# Ports and other numbers


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
            raise InvalidValue(key, f"{quoted(raw)} is no service of this host; write the port's number")
        return [(port, port) for port in sorted(found)]
    return [parse_integer_range(raw, key, 0, 0xFFFF)]


def _ports(name: str, raw: Any, key: str, labels: LabelMap) -> Term:
    return InRanges(_PORTS[name], tuple(port for item in as_list(raw) for port in _port(item, key)))


def _number(name: str, raw: Any, key: str, labels: LabelMap) -> Term:
    where, highest = _NUMBERS[name]
    return InRanges((where,), tuple(parse_integer_range(item, key, 0, highest) for item in as_list(raw)))


# What an entry is


def _families(raw: Any, key: str) -> list[int]:
    return [FAMILIES[_one_of(FAMILIES, item, key, "family")] for item in as_list(raw)]


def _one_of(names: Collection[str], raw: Any, key: str, what: str) -> str:
    name = raw.strip().lower().replace("-", "_") if isinstance(raw, str) else ""
    if name not in names:
        from difflib import get_close_matches

        close = get_close_matches(name, names, 1)
        cure = f"did you mean {close[0]}" if close else "write one of " + ", ".join(names)
        raise InvalidValue(key, f"{quoted(raw)} is not a {what}" + (f" ({cure}?)" if close else f"; {cure}"))
    return name


def _family(raw: Any, key: str, labels: LabelMap) -> Term:
    return InRanges(("family",), points(_families(raw, key)))


def _protocols(raw: Any, key: str) -> list[int]:
    return [types.PROTOCOL.parse(item, key) for item in as_list(raw)]


def _protocol(raw: Any, key: str, labels: LabelMap) -> Term:
    return InRanges(("original.protocol",), points(_protocols(raw, key)))


def _zone_set(raw: Any, key: str) -> frozenset[int]:
    return frozenset(parse_integer(item, key, 0, 0xFFFF) for item in as_list(raw))


def _zone(raw: Any, key: str, labels: LabelMap) -> Term:
    """An entry is in a zone if both its directions are."""
    wanted = InRanges(("zone",), points(_zone_set(raw, key)), 0)
    return And((wanted, MaskEquals("original.zone", _ZERO), MaskEquals("reply.zone", _ZERO)))


def _zone_of(name: str, raw: Any, key: str, labels: LabelMap) -> Term:
    """The zone of one direction is its own, or that of both, or 0."""
    own, both = _ZONES[name]
    wanted = _zone_set(raw, key)
    terms: list[Term] = [InRanges((own, both), points(wanted - {0}))]
    if 0 in wanted:
        terms.append(And((MaskEquals(own, _ZERO), MaskEquals(both, _ZERO))))
    return Or(tuple(terms))


def _helper(raw: Any, key: str, labels: LabelMap) -> Term:
    names = [types.HELPER_NAME.parse(item, key) for item in as_list(raw)]
    if "" in names:
        raise InvalidValue(key, "is empty; write the name of a helper")
    return InRanges(("helper",), points(names))


def _masked(items: Iterable[Any], key: str, bits: int = 32) -> tuple[tuple[int, int], ...]:
    """Parse each `value/mask`. Raises `InvalidValue` for a mask of 0."""
    wanted = tuple(parse_masked(item, key, bits) for item in items)
    if any(mask == 0 for _value, mask in wanted):
        raise InvalidValue(key, "has a mask of 0, so it would match everything; write the bits that count")
    return wanted


def _mark(raw: Any, key: str, labels: LabelMap) -> Term:
    return MaskEquals("mark", _masked(as_list(raw), key))


def _state(raw: Any, key: str, labels: LabelMap) -> Term:
    for item in as_list(raw):
        cure = _RULE_STATES.get(item.strip().lower()) if isinstance(item, str) else None
        if cure is not None:
            raise InvalidValue(key, f"{quoted(item)} is a state of rules (ct state), not of entries; {cure}")
    names = [_one_of(_STATE_NAMES, item, key, "state") for item in as_list(raw)]
    return Or(
        tuple(
            InRanges((where,), points(states[name] for name in names if name in states))
            for where, states in _STATES.items()
            if any(name in states for name in names)
        )
    )


def _nat(raw: Any, key: str, labels: LabelMap) -> Term:
    wanted = [_one_of(_TRANSLATIONS, item, key, "kind of NAT") for item in as_list(raw)]
    return MaskEquals("status", tuple(value for name in wanted for value in _TRANSLATIONS[name]))


def _status(raw: Any, key: str, labels: LabelMap) -> Term:
    wanted = STATUS.parse(raw, key)
    return MaskEquals("status", ((wanted, wanted),))


_UNDER_MASK = re.compile(r"\s*(0[xX][0-9a-fA-F]+|[0-9]+)\s*/\s*(0[xX][0-9a-fA-F]+|[0-9]+)\s*")


def _label_values(raw: Any, key: str, labels: LabelMap) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Return the bits of names and numbers, and each `value/mask` of all 128 bits."""
    items = as_list(raw)
    # Names of labels may have a slash
    masked = [
        item for item in items if isinstance(item, str) and _UNDER_MASK.fullmatch(item) and item not in labels.bits
    ]
    found = _masked(masked, key, types.LABEL_BITS)
    bits = labels.to_bits([item for item in items if item not in masked], key)
    return types.LABELS.parse(bits, key), found


def _labels(raw: Any, key: str, labels: LabelMap) -> Term:
    bits, masked = _label_values(raw, key, labels)
    value = mask = bits
    for one, under in masked:
        if (value ^ one) & mask & under:
            raise InvalidValue(key, "asks for a bit that is both set and not set; leave one of the values out")
        value, mask = value | one, mask | under
    return MaskEquals("labels", ((value, mask),))


def _labels_not(raw: Any, key: str, labels: LabelMap) -> Term:
    bits, masked = _label_values(raw, key, labels)
    terms: list[Term] = [MaskEquals("labels", ((0, bits),))] if bits else []
    terms.extend(Not(MaskEquals("labels", (value,))) for value in masked)
    return terms[0] if len(terms) == 1 else And(tuple(terms))


def _expected(raw: Any, key: str, labels: LabelMap) -> Term:
    if not isinstance(raw, bool):
        raise InvalidValue(key, f"{quoted(raw)} is neither; write true or false")
    is_expected = MaskEquals("status", ((uapi.IPS_EXPECTED, uapi.IPS_EXPECTED),))
    has_master = Or((is_expected, InRanges(("master.protocol",), ((0, 0xFF),))))
    return has_master if raw else Not(has_master)


# The master


def _masters(raw: Any, key: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Return each dictionary of keys of a master, with its path."""
    if not isinstance(raw, (list, tuple)):
        return [(key, _checked_master(raw, key))]
    return [(f"{key}[{at}]", _checked_master(one, f"{key}[{at}]")) for at, one in enumerate(raw)]


def _checked_master(raw: Any, key: str) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise InvalidValue(
            key, f"{quoted(raw)} is not a dictionary; write keys of the master, such as destination_port: 21"
        )
    if not raw:
        raise InvalidValue(key, "says nothing; write at least one key, or expected: true for those of any master")
    _check_keys(raw, key, MASTER_KEYS)
    _check_protocols(raw, key)
    return raw


def _master(raw: Any, key: str, labels: LabelMap) -> Term:
    several = [
        And(
            tuple(
                _of_master(cast(InRanges, parser(one[name], f"{path}.{name}", labels)))
                for name, parser in _PARSERS.items()
                if name in one
            )
        )
        for path, one in _masters(raw, key)
    ]
    return several[0] if len(several) == 1 else Or(tuple(several))


def _of_master(term: InRanges) -> Term:
    """Return the term for the master's tuple that corresponds to a term for the original tuple."""
    before, after = "original.", "master."
    return term._replace(keys=tuple(after + key[len(before) :] for key in term.keys if key.startswith(before)))


# Bounds


def _sum(what: str) -> Callable[[Entry, str], int | None]:
    def measure(entry: Entry, key: str) -> int | None:
        try:
            there: int = entry[f"counters.original.{what}"] + entry[f"counters.reply.{what}"]
        except KeyError:
            raise _not_recorded(key, "counters", "accounting was", "acct") from None
        return there

    return measure


def _age(entry: Entry, key: str) -> int | None:
    try:
        started: int = entry["timestamps.start"]
    except KeyError:
        raise _not_recorded(key, "timestamps", "they were", "timestamp") from None
    return (time.time_ns() - started) // 1_000_000_000


def _not_recorded(key: str, what: str, were: str, sysctl: str) -> InvalidValue:
    return InvalidValue(
        key,
        f"cannot be evaluated: an entry has no {what}, because {were} off when it began; set "
        f"net.netfilter.nf_conntrack_{sysctl}=1 and wait until older flows are gone",
    )


def _timeout(entry: Entry, key: str) -> int | None:
    return entry.get("timeout")  # an offloaded entry counts down elsewhere and has none


_MEASURES: dict[str, Callable[[Entry, str], int | None]] = {
    "timeout": _timeout,
    "bytes": _sum("bytes"),
    "packets": _sum("packets"),
    "age": _age,
}


def _bound(name: str, raw: Any, key: str, labels: LabelMap) -> Term:
    what, side = name.split("_")
    measure = _MEASURES[what]
    bound = parse_integer(raw, key, 0, (1 << 64) - 1)

    def matches(entry: Entry) -> bool:
        value = measure(entry, key)
        if value is None:
            return False
        return value < bound if side == "below" else value > bound

    return Predicate(matches)


_NEEDS: dict[str, str] = {
    name: "timestamps" if name.startswith("age") else "accounting" for name in _BOUNDS if not name.startswith("timeout")
}

#: The parser of each key, in the order of evaluation: conditions that may raise come last.
_PARSERS: dict[str, Parser] = {
    "family": _family,
    "protocol": _protocol,
    "zone": _zone,
    **{name: partial(_zone_of, name) for name in _ZONES},
    **{name: partial(_ports, name) for name in _PORTS},
    **{name: partial(_address, name) for name in _ADDRESSES},
    **{name: partial(_number, name) for name in _NUMBERS},
    "mark": _mark,
    "state": _state,
    "status": _status,
    "status_not": lambda raw, key, labels: MaskEquals("status", ((0, STATUS.parse(raw, key)),)),
    "labels": _labels,
    "labels_not": _labels_not,
    "helper": _helper,
    "nat": _nat,
    "expected": _expected,
    "master": _master,
    **{name: partial(_bound, name) for name in _BOUNDS},
}
