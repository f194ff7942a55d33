# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many alternatives, looked up by the value of one attribute instead of evaluated one after another.

A list of a thousand matches that each name a destination is a table of destinations. Where all alternatives pin an
attribute to single values, a dictionary leads to those that can hold; where some pin it to ranges, bisection does.
The alternatives that it finds have an index of their own if there are many of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from typing import Any, Callable, Iterable, Iterator, NamedTuple, Optional, Sequence, Tuple

from ..entry.entry import Entry
from .expression import MOST_UNINDEXED, And, EntryTest, InRanges, MaskEquals, Not, Or, Term, has_predicate

#: Returns the index of the branch for a number.
Find = Callable[[int], Optional[int]]
#: The terms of one alternative, which must all hold.
_Terms = Tuple[Term, ...]
#: The average number of alternatives that may share a range, above which no index is built.
_MOST = 32


class Pinned(NamedTuple):
    """An attribute with required values: `absent` counts if it is missing, and `mask` applies unless it is None."""

    key: str
    absent: Any
    mask: int | None


class Indexed(NamedTuple):
    """Alternatives by the value of an attribute: those of the branch that `find` returns for its number, and
    `otherwise`.

    `find` returns None for a number that no alternative requires.
    """

    pinned: Pinned
    find: Find
    branches: tuple[Term, ...]
    otherwise: Term
    has_predicate: bool

    def compile(self) -> EntryTest:
        (key, absent, mask), find, branches = self.pinned, self.find, self.branches
        compiled: dict[int, EntryTest] = {}
        otherwise = self.otherwise.compile()

        def holds(entry: Entry) -> bool:
            value = entry.get(key, absent)
            number = number_of(value if mask is None else value & mask)
            at = None if number is None else find(number)
            if at is not None:
                if at not in compiled:
                    compiled[at] = branches[at].compile()
                if compiled[at](entry):
                    return True
            return otherwise(entry)

        return holds

    def branch(self, value: Any) -> Term | None:
        """Return the alternatives that can hold for a value, besides `otherwise`."""
        number = number_of(value if self.pinned.mask is None else value & self.pinned.mask)
        at = None if number is None else self.find(number)
        return None if at is None else self.branches[at]


def number_of(value: Any) -> int | None:
    """Return an integer as it is, and bytes as a number that is different for each length."""
    if isinstance(value, bytes):
        return int.from_bytes(b"\1" + value, "big")
    return value if isinstance(value, int) else None


def indexed(term: Term) -> Term:
    """Return an equivalent term with an index wherever there are many alternatives."""
    if isinstance(term, Not):
        return Not(indexed(term.term))
    if isinstance(term, And):
        return And(tuple(map(indexed, term.terms)))
    if isinstance(term, Or):
        return _or([tuple(_flattened(one, And)) for one in _flattened(term, Or)])
    return term


def _flattened(term: Term, kind: type[And] | type[Or]) -> Iterator[Term]:
    """Yield the terms that nested `kind`s join."""
    if isinstance(term, kind):
        for one in term.terms:
            yield from _flattened(one, kind)
    else:
        yield term


def _or(alternatives: Sequence[_Terms]) -> Term:
    if len(alternatives) > MOST_UNINDEXED:
        alternatives = [one for several in alternatives for one in _of_one_key_each(several)]
        found = _index(alternatives)
        if found is not None:
            return found
    return Or(tuple(_and(one) for one in alternatives))


def _and(terms: _Terms) -> Term:
    inner = tuple(map(indexed, terms))
    return inner[0] if len(inner) == 1 else And(inner)


def _of_one_key_each(terms: _Terms) -> Iterator[_Terms]:
    """Split an alternative about one of several attributes into one alternative for each attribute."""
    for at, term in enumerate(terms):
        if isinstance(term, InRanges) and len(term.keys) > 1:
            for key in term.keys:
                yield (*terms[:at], term._replace(keys=(key,)), *terms[at + 1 :])
            return
    yield terms


# the index


class _Pin(NamedTuple):
    """The number of an alternative, the place of one of its terms, and the ranges of numbers that the term allows."""

    alternative: int
    place: int
    ranges: tuple[tuple[int, int], ...]


def _index(alternatives: Sequence[_Terms]) -> Indexed | None:
    """Return an index by the attribute with the most distinct values, or None if no attribute distinguishes."""
    may_raise = any(map(has_predicate, (term for terms in alternatives for term in terms)))
    pins: dict[Pinned, list[_Pin]] = {}
    for number, terms in enumerate(alternatives):
        for pinned, place, ranges in _pins(terms):
            of_pinned = pins.setdefault(pinned, [])
            if not of_pinned or of_pinned[-1].alternative != number:
                of_pinned.append(_Pin(number, place, ranges))
    distinct = {pinned: len({pin.ranges for pin in several}) for pinned, several in pins.items()}
    for pinned in sorted(pins, key=distinct.__getitem__, reverse=True):
        if distinct[pinned] < 2:
            break
        there = pins[pinned]
        if may_raise and len(there) < len(alternatives):
            continue  # a term that may raise must be evaluated in the written order
        found = _looked_up(there)
        if found is None:
            continue
        find, chosen = found
        rests = {pin.alternative: _without(alternatives[pin.alternative], pin.place) for pin in there}
        branches = tuple(_or([rests[number] for number in numbers]) for numbers in chosen)
        others = [terms for number, terms in enumerate(alternatives) if number not in rests]
        return Indexed(pinned, find, branches, _or(others), may_raise)
    return None


def _without(terms: _Terms, place: int) -> _Terms:
    return terms[:place] + terms[place + 1 :]


def _pins(terms: _Terms) -> Iterator[tuple[Pinned, int, tuple[tuple[int, int], ...]]]:
    """Yield the attributes whose values an alternative requires before it evaluates a term that may raise."""
    for place, term in enumerate(terms):
        if has_predicate(term):
            return
        if isinstance(term, InRanges) and len(term.keys) == 1:
            ends = [(number_of(low), number_of(high)) for low, high in term.ranges]
            ranges = tuple((low, high) for low, high in ends if low is not None and high is not None)
            if len(ranges) == len(ends):
                yield Pinned(term.keys[0], term.absent, None), place, ranges
        elif isinstance(term, MaskEquals) and len({mask for _value, mask in term.values}) == 1:
            yield Pinned(term.key, 0, term.values[0][1]), place, tuple((value, value) for value, _mask in term.values)


def _looked_up(pins: Iterable[_Pin]) -> tuple[Find, list[tuple[int, ...]]] | None:
    """Return the function that finds a branch, and the alternatives of each branch. None if they would be too many."""
    ranges = [(low, high, pin.alternative) for pin in pins for low, high in pin.ranges]
    branches: dict[tuple[int, ...], int] = {}
    if all(low == high for low, high, _alternative in ranges):
        points: dict[int, list[int]] = {}
        for low, _high, alternative in ranges:
            there = points.setdefault(low, [])
            if not there or there[-1] != alternative:
                there.append(alternative)
        at = {number: branches.setdefault(tuple(there), len(branches)) for number, there in points.items()}
        return at.get, list(branches)

    begin: dict[int, list[int]] = {}
    end: dict[int, list[int]] = {}
    for low, high, alternative in ranges:
        begin.setdefault(low, []).append(alternative)
        end.setdefault(high + 1, []).append(alternative)
    starts = sorted({*begin, *end})
    active: Counter[int] = Counter()
    found: list[int | None] = [None]
    room = _MOST * len(ranges)
    for start in starts:
        active.update(begin.get(start, ()))
        active.subtract(end.get(start, ()))
        active = +active
        room -= len(active)
        if room < 0:
            return None
        found.append(branches.setdefault(tuple(sorted(active)), len(branches)) if active else None)
    return (lambda number: found[bisect_right(starts, number)]), list(branches)
