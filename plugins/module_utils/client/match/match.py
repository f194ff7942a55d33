# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Matches: which entries to read, flush, update, wait for or purge.

A match is a dictionary, or a list of dictionaries::

    {"protocol": "tcp", "destination_port": [80, 443], "except": {"source": "10.0.0.0/8"}}

An entry matches if it has one of the values of every key and does not match `except`, which is a match itself. It
matches a list if it matches one of its dictionaries. `keys.py` has the keys.

A match is always evaluated in full in user space. What the kernel filters before (`kernel_filter.py`, `bpf.py`) only
reduces the number of messages.
"""

from __future__ import annotations

from typing import Any, Mapping

from ..entry.entry import Entry
from ..entry.labels import NO_LABELS, LabelMap
from ..errors import TOO_DEEP, InvalidValue, quoted
from .expression import ALWAYS, And, EntryTest, Not, Or, Term, prepared

_FORM = 'write a dictionary such as {"protocol": "tcp", "destination_port": 443}, or a list of dictionaries'
#: Characters of a text that a message quotes.
_SHOWN = 80
#: Levels of `except` within `except`.
_DEEPEST = 20


class Match:
    """A predicate of entries: `match(entry)` is True or False.

    `term` is the same as data (see expression.py). `needs` names what the kernel must record: `accounting` for bytes
    and packets, `timestamps` for ages. The call raises `InvalidValue` for an entry that lacks what the match needs.
    """

    def __init__(self, term: Term, needs: frozenset[str] = frozenset()) -> None:
        self.term = term
        self.needs = needs
        self._holds: EntryTest | None = None

    def __call__(self, entry: Entry) -> bool:
        if self._holds is None:
            self._holds = prepared(self.term).compile()
        return self._holds(entry)

    @property
    def where(self) -> Term | None:
        """The term, as `Table.dump` and `Table.scan` take it, or None if everything matches."""
        return None if self.term is ALWAYS else self.term

    def but_not(self, other: Match) -> Match:
        """Return the match of the entries that match this one and not `other`."""
        return Match(And((self.term, Not(other.term))), self.needs | other.needs)


#: Matches every entry.
EVERYTHING = Match(ALWAYS)


def parse_match(raw: Any, labels: LabelMap = NO_LABELS, key: str = "match") -> Match:
    """Convert a dictionary, a list of dictionaries, or JSON text of either to a match.

    Raises `InvalidValue` with the path of the first fault below `key`.
    """
    try:
        return _parse(raw, labels, key, 0)
    except RecursionError:
        raise InvalidValue(key, TOO_DEEP) from None


def _parse(raw: Any, labels: LabelMap, key: str, level: int) -> Match:
    raw = from_text(raw, key)
    if isinstance(raw, Mapping):
        return _parse_one(raw, labels, key, level)
    if not isinstance(raw, (list, tuple)):
        raise InvalidValue(key, f"{quoted(raw)} is not a match; {_FORM}")
    if not raw:
        raise InvalidValue(key, "an empty list matches nothing; leave it out or add a match")
    several = [
        _parse_one(from_text(item, f"{key}[{at}]"), labels, f"{key}[{at}]", level) for at, item in enumerate(raw)
    ]
    if len(several) == 1:
        return several[0]
    needs = frozenset().union(*(match.needs for match in several))
    return Match(Or(tuple(match.term for match in several)), needs)


def from_text(raw: Any, key: str) -> Any:
    """Parse JSON text of a dictionary or a list. Values other than text are returned unchanged.

    Ad-hoc commands and `-e key=value` pass text. Raises `InvalidValue` for any other text.
    """
    if not isinstance(raw, str):
        return raw
    import json

    try:
        found = json.loads(raw, object_pairs_hook=_unique)
    except InvalidValue as fault:
        raise fault.under(key) from None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, (dict, list)):
        shown = repr(raw) if len(raw) <= _SHOWN else f"{raw[:_SHOWN]!r}..."
        raise InvalidValue(key, f"{shown} is not a match; {_FORM}")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dictionary. Raises `InvalidValue` for a repeated key, of which JSON would take the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _value in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise InvalidValue(twice, "is written twice; write it once, with a list of values")
    return found


def _parse_one(raw: Any, labels: LabelMap, key: str, level: int) -> Match:
    from .keys import parse_keys

    match = Match(*parse_keys(raw, labels, key))
    if "except" in raw:
        if level == _DEEPEST:
            raise InvalidValue(f"{key}.except", f"{TOO_DEEP}; write at most {_DEEPEST} levels of except")
        match = match.but_not(_parse(raw["except"], labels, f"{key}.except", level + 1))
    return match
