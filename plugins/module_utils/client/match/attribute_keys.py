# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The other keys of a match: how their values are parsed, and the term that results.

Most matches are about tuples only, so tasks import this module only for the keys that it has.
"""

from __future__ import annotations

import re
import time
from functools import partial
from typing import Any, Callable, Iterable, Mapping, cast

from .. import uapi
from ..codec import types
from ..codec.types import (
    DCCP_STATES,
    OLDER_TCP_STATES,
    SCTP_STATES,
    STATUS,
    TCP_STATES,
    as_list,
    parse_integer,
    parse_masked,
)
from ..entry.entry import Entry
from ..entry.labels import LabelMap
from ..errors import InvalidValue, quoted
from . import tuple_keys
from .expression import And, InRanges, MaskEquals, Not, Or, Predicate, Term, points
from .tuple_keys import MASTER_KEYS, Parser, check_keys, check_protocols, one_of

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
    names = [one_of(_STATE_NAMES, item, key, "state") for item in as_list(raw)]
    return Or(
        tuple(
            InRanges((where,), points(states[name] for name in names if name in states))
            for where, states in _STATES.items()
            if any(name in states for name in names)
        )
    )


def _nat(raw: Any, key: str, labels: LabelMap) -> Term:
    wanted = [one_of(_TRANSLATIONS, item, key, "kind of NAT") for item in as_list(raw)]
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
            raise InvalidValue(key, "requires a bit to be both set and not set; leave one of the values out")
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


def masters(raw: Any, key: str) -> list[tuple[str, Mapping[str, Any]]]:
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
        raise InvalidValue(key, "specifies nothing; write at least one key, or expected: true for those of any master")
    check_keys(raw, key, MASTER_KEYS)
    check_protocols(raw, key)
    return raw


def _master(raw: Any, key: str, labels: LabelMap) -> Term:
    several = [
        And(
            tuple(
                _of_master(cast(InRanges, parser(one[name], f"{path}.{name}", labels)))
                for name, parser in tuple_keys.PARSERS.items()
                if name in one
            )
        )
        for path, one in masters(raw, key)
    ]
    return several[0] if len(several) == 1 else Or(tuple(several))


def _of_master(term: InRanges) -> Term:
    """Return the term for the master's tuple that corresponds to a term for the original tuple."""
    before, after = "original.", "master."
    return term._replace(keys=tuple(after + key[len(before) :] for key in term.keys if key.startswith(before)))


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


def _bound(what: str, side: str, raw: Any, key: str, labels: LabelMap) -> Term:
    measure = _MEASURES[what]
    bound = parse_integer(raw, key, 0, (1 << 64) - 1)

    def matches(entry: Entry) -> bool:
        value = measure(entry, key)
        if value is None:
            return False
        return value < bound if side == "below" else value > bound

    return Predicate(matches)


#: The parser of each key, in the order of evaluation: conditions that may raise come last.
PARSERS: dict[str, Parser] = {
    "zone": _zone,
    **{name: partial(_zone_of, name) for name in _ZONES},
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
    **{f"{what}_{side}": partial(_bound, what, side) for what in _MEASURES for side in ("below", "above")},
}
