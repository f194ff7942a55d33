# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of a match, and the term for a dictionary of keys and values.

An empty dictionary, an empty list and null are errors, so that a match never selects everything by mistake.
"""

from __future__ import annotations

from typing import Any, Mapping

from ..codec import types
from ..codec.types import FAMILIES
from ..entry.labels import LabelMap
from ..errors import InvalidValue, quoted
from . import tuple_keys
from .expression import And, Term
from .tuple_keys import (
    ADDRESSES,
    NUMBERS,
    PORTS,
    check_keys,
    check_protocols,
    or_leave_out,
    parse_addresses,
    parse_families,
)

_BOUNDS = tuple(f"{what}_{side}" for what in ("timeout", "bytes", "packets", "age") for side in ("below", "above"))
KEYS: tuple[str, ...] = (
    *("family", "protocol", "zone", "original_zone", "reply_zone", "helper", *ADDRESSES, *PORTS, *NUMBERS),
    *("mark", "state", "nat", "status", "status_not", "labels", "labels_not", *_BOUNDS),
    *("expected", "master", "except"),
)
#: The setting of the kernel that a key requires.
_NEEDS: dict[str, str] = {
    name: "timestamps" if name.startswith("age") else "accounting" for name in _BOUNDS if not name.startswith("timeout")
}


def parse_keys(raw: Any, labels: LabelMap, key: str) -> tuple[Term, frozenset[str]]:
    """Convert one dictionary without its `except` to a term, and return also what the kernel must record for it.

    That is a set of `accounting` and `timestamps`. Raises `InvalidValue` with the path of the first fault below `key`.
    """
    if not isinstance(raw, Mapping):
        raise InvalidValue(key, f"{quoted(raw)} is not a match; write a dictionary of keys and values")
    if not set(raw) - {"except"}:
        raise InvalidValue(
            key, f"specifies nothing, so it would match everything; write at least one key{or_leave_out(key)}"
        )
    check_keys(raw, key, KEYS)
    check_protocols(raw, key)
    _check_families(raw, key)

    parsers = tuple_keys.PARSERS
    if not raw.keys() <= {*parsers, "except"}:
        from . import attribute_keys

        parsers = {**parsers, **attribute_keys.PARSERS}
    terms = tuple(parser(raw[name], f"{key}.{name}", labels) for name, parser in parsers.items() if name in raw)
    return And(terms), frozenset(_NEEDS[name] for name in raw if name in _NEEDS)


def _check_families(raw: Mapping[str, Any], key: str) -> frozenset[int]:
    """Return the possible families. Raises `InvalidValue` if there is none: nothing would ever match."""
    possible: frozenset[int] = frozenset(FAMILIES.values())
    said_by = ""
    for name in ("family", *ADDRESSES, "master"):
        if name not in raw:
            continue
        path = f"{key}.{name}"
        if name == "family":
            here = frozenset(parse_families(raw[name], path))
        elif name == "master":
            from .attribute_keys import masters

            here = frozenset().union(*(_check_families(one, where) for where, one in masters(raw[name], path)))
        else:
            here = frozenset(types.family_of(bounds[0]) for bounds in parse_addresses(raw[name], path))
        if not possible & here:
            raise InvalidValue(path, f"is not of the family of {said_by}; write both in one family")
        possible, said_by = possible & here, name
    return possible
