# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which entries: the one form for flushing, reading, waiting and scoping.

Keys of one match are ANDed, values of one key ORed, a list of matches is ORed, and `except`, of
the same form, takes away. A match is evaluated in full here, in user space, whatever a kernel
may have filtered before.
"""

from __future__ import annotations

from typing import Any, Mapping

from .entry import Entry
from .errors import InvalidValue
from .labels import LabelMap
from .term import ALWAYS, Either, Every, Not, Term

_NO_LABELS = LabelMap()


class Match:
    """A match, ready to be asked about entries: `match(entry)` is True or False.

    `term` is the same as data. `needs` names what the kernel must have recorded for an answer:
    `accounting` for bytes and packets, `timestamps` for ages. Asked about an entry that lacks
    it, the match raises `InvalidValue` rather than answer.
    """

    def __init__(self, term: Term, needs: frozenset[str] = frozenset()) -> None:
        self.term = term
        self.needs = needs
        self._holds = term.compile()

    def __call__(self, entry: Entry) -> bool:
        return self._holds(entry)

    @property
    def where(self) -> Term | None:
        """The term, as `Table.dump` and `Table.scan` take it: None where everything matches."""
        return None if self.term is ALWAYS else self.term

    def but_not(self, other: Match) -> Match:
        """What this matches and `other` does not."""
        return Match(Every((self.term, Not(other.term))), self.needs | other.needs)


EVERYTHING = Match(ALWAYS)


def parse_match(raw: Any, labels: LabelMap = _NO_LABELS, key: str = "match") -> Match:
    """The match that a dictionary, or a list of them, describes.

    `InvalidValue` names the first fault by its path below `key`.
    """
    if isinstance(raw, Mapping):
        return _parse_one(raw, labels, key)
    if not isinstance(raw, (list, tuple)):
        raise InvalidValue(key, f"{raw!r} is no match; write a dictionary or a list of them")
    if not raw:
        raise InvalidValue(key, "an empty list matches nothing; leave it out or add a match")
    several = [_parse_one(item, labels, f"{key}[{index}]") for index, item in enumerate(raw)]
    if len(several) == 1:
        return several[0]
    needs = frozenset().union(*(match.needs for match in several))
    return Match(Either(tuple(match.term for match in several)), needs)


def _parse_one(raw: Any, labels: LabelMap, key: str) -> Match:
    from .vocabulary import parse_keys  # large, and of no use where everything is meant

    match = Match(*parse_keys(raw, labels, key))
    if "except" in raw:
        match = match.but_not(parse_match(raw["except"], labels, f"{key}.except"))
    return match
