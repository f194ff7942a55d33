# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which entries: the one form for flushing, reading, waiting and scoping.

Keys of one match are ANDed, values of one key ORed, a list of matches is ORed, and `except`, of
the same form, takes away. A match is evaluated in full here, in user space, whatever a kernel
may have filtered before.
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
    """A match, ready to be asked about entries: `match(entry)` is True or False.

    `term` is the same as data. `needs` names what the kernel must have recorded for an answer:
    `accounting` for bytes and packets, `timestamps` for ages. Asked about an entry that lacks
    it, the match raises `InvalidValue` rather than answer.
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
        """The term, as `Table.dump` and `Table.scan` take it: None where everything matches."""
        return None if self.term is ALWAYS else self.term

    def but_not(self, other: Match) -> Match:
        """What this matches and `other` does not."""
        return Match(And((self.term, Not(other.term))), self.needs | other.needs)


EVERYTHING = Match(ALWAYS)


def parse_match(raw: Any, labels: LabelMap = NO_LABELS, key: str = "match") -> Match:
    """The match that a dictionary, or a list of them, describes; JSON text of either is read.

    `InvalidValue` names the first fault by its path below `key`.
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
    """What JSON text of a dictionary or a list stands for; anything but text is returned as it is.

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
    """A dictionary; `InvalidValue` where a key comes twice, of which JSON itself takes the last."""
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
