# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a match says, as data: tests of single attributes, and how they are joined.

A term can be asked about an entry (`compile` makes the predicate), and because it is data it can
also be made into something else that chooses entries, such as a filter program in the kernel.
`Told` is a test that only an entry itself can be asked.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any, Callable, Iterable, NamedTuple, Union

from ..entry.entry import Entry

if TYPE_CHECKING:
    from .alternatives import Indexed

EntryTest = Callable[[Entry], bool]


class InRanges(NamedTuple):
    """One of the attributes `keys` lies in one of the inclusive `ranges`.

    An attribute that an entry lacks counts as `absent`; None lies in no range, and so does an
    address of the other family.
    """

    keys: tuple[str, ...]
    ranges: tuple[tuple[Any, Any], ...]
    absent: Any = None

    def compile(self) -> EntryTest:
        single = frozenset(low for low, high in self.ranges if low == high)
        wide = _Wide((low, high) for low, high in self.ranges if low != high)
        absent = self.absent

        def lies(value: Any) -> bool:
            return value in single or wide.has(value)

        if len(self.keys) > 1:
            keys = self.keys
            return lambda entry: any(lies(entry.get(key, absent)) for key in keys)
        (only,) = self.keys
        if wide.sorts:
            return lambda entry: lies(entry.get(only, absent))
        return lambda entry: entry.get(only, absent) in single


class MaskEquals(NamedTuple):
    """Attribute `key`, 0 where an entry lacks it, has one of the `values` under its mask."""

    key: str
    values: tuple[tuple[int, int], ...]

    def compile(self) -> EntryTest:
        key = self.key
        if len(self.values) == 1:
            value, mask = self.values[0]
            return lambda entry: entry.get(key, 0) & mask == value
        wanted: dict[int, set[int]] = {}
        for value, mask in self.values:
            wanted.setdefault(mask, set()).add(value)
        groups = tuple(wanted.items())
        return lambda entry: any(entry.get(key, 0) & mask in values for mask, values in groups)


class Predicate(NamedTuple):
    """Whatever the predicate answers."""

    predicate: EntryTest

    def compile(self) -> EntryTest:
        return self.predicate


class And(NamedTuple):
    """All of the terms hold; they are asked in order."""

    terms: tuple[Term, ...]

    def compile(self) -> EntryTest:
        predicates = [term.compile() for term in self.terms]
        if len(predicates) == 1:
            return predicates[0]
        return lambda entry: all(predicate(entry) for predicate in predicates)


class Or(NamedTuple):
    """One of the terms holds."""

    terms: tuple[Term, ...]

    def compile(self) -> EntryTest:
        predicates = [term.compile() for term in self.terms]
        if len(predicates) == 1:
            return predicates[0]
        return lambda entry: any(predicate(entry) for predicate in predicates)


class Not(NamedTuple):
    """The term does not hold."""

    term: Term

    def compile(self) -> EntryTest:
        predicate = self.term.compile()
        return lambda entry: not predicate(entry)


Term = Union[InRanges, MaskEquals, Predicate, And, Or, Not, "Indexed"]

#: Holds for every entry.
ALWAYS = And(())
#: Holds for none.
NEVER = Or(())


#: The most alternatives that are evaluated one after another instead of looked up.
FEW = 8
#: What an entry keeps from its beginning to its end, and what every event shows.
_IMMUTABLE = ("family", "zone")
_TUPLES = ("original.", "reply.")


def prepared(term: Term) -> Term:
    """A term that holds for the same entries, ready to be evaluated for many of them."""
    if _has_many(term):
        from .alternatives import indexed

        return indexed(term)
    return term


def _has_many(term: Term) -> bool:
    if isinstance(term, (And, Or)):
        return (isinstance(term, Or) and len(term.terms) > FEW) or any(map(_has_many, term.terms))
    return isinstance(term, Not) and _has_many(term.term)


def is_told(term: Term) -> bool:
    """Whether a part of the term is a test that only an entry itself can be asked."""
    if isinstance(term, (And, Or)):
        return any(map(is_told, term.terms))
    if isinstance(term, Not):
        return is_told(term.term)
    return isinstance(term, Predicate) or (not isinstance(term, (InRanges, MaskEquals)) and term.told)


def comparable(value: Any, bound: Any) -> bool:
    """Whether the two have an order: both numbers, or addresses of one family."""
    if isinstance(bound, bytes):
        return isinstance(value, bytes) and len(value) == len(bound)
    return isinstance(value, int)


def disjoint(ranges: Iterable[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    """The lower and the upper ends of ranges of one sort, in order and without overlap."""
    lows: list[Any] = []
    highs: list[Any] = []
    for low, high in sorted(ranges):
        if lows and low <= highs[-1]:
            highs[-1] = max(high, highs[-1])
        else:
            lows.append(low)
            highs.append(high)
    return lows, highs


class _Wide:
    """Inclusive ranges of numbers, and of addresses of each family, to look a value up in."""

    def __init__(self, ranges: Iterable[tuple[Any, Any]]) -> None:
        sorts: dict[int, list[tuple[Any, Any]]] = {}
        for low, high in ranges:
            sorts.setdefault(_sort(low), []).append((low, high))
        self.sorts = {sort: disjoint(those) for sort, those in sorts.items()}

    def has(self, value: Any) -> bool:
        ends = self.sorts.get(_sort(value))
        if ends is None:
            return False
        at = bisect_right(ends[0], value)
        return at > 0 and bool(value <= ends[1][at - 1])


def _sort(value: Any) -> int:
    """Values of one sort have an order: numbers, or addresses of one family."""
    if isinstance(value, bytes):
        return len(value)
    return -1 if isinstance(value, int) else -2


def points(values: Any) -> tuple[tuple[Any, Any], ...]:
    """Single values as ranges."""
    return tuple((value, value) for value in values)


def immutable_part(term: Term, if_unknown: bool = True) -> Term:
    """Return the term for what never changes about an entry. For the rest, the answer is `if_unknown`."""
    if isinstance(term, Not):
        return Not(immutable_part(term.term, not if_unknown))
    if isinstance(term, And):
        return And(tuple(immutable_part(part, if_unknown) for part in term.terms))
    if isinstance(term, Or):
        return Or(tuple(immutable_part(part, if_unknown) for part in term.terms))
    keys = term.keys if isinstance(term, InRanges) else (term.key,) if isinstance(term, MaskEquals) else ("",)
    if all(key in _IMMUTABLE or key.startswith(_TUPLES) for key in keys):
        return term
    return ALWAYS if if_unknown else Or(())


def is_time_dependent(term: Term) -> bool:
    """Whether the term asks for what changes without an event."""
    if isinstance(term, Not):
        return is_time_dependent(term.term)
    if isinstance(term, (And, Or)):
        return any(map(is_time_dependent, term.terms))
    return not isinstance(term, (InRanges, MaskEquals))
