# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Terms: a match as data, made of conditions on single attributes that are joined by And, Or and Not.

`compile` makes the predicate of a term for entries. Because a term is data, other files compile it to a filter of the
kernel (`kernel_filter.py`), a BPF program (`bpf.py`) or a filter on message bytes (`message_filter.py`). A `Predicate`
is a condition that none of these can evaluate; it needs the entry.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any, Callable, Iterable, NamedTuple, Union

from ..entry.entry import Entry

if TYPE_CHECKING:
    from .alternatives import Indexed

EntryTest = Callable[[Entry], bool]


class InRanges(NamedTuple):
    """One of the attributes `keys` is in one of the inclusive `ranges` of numbers, addresses (bytes) or texts.

    A missing attribute counts as `absent`. None is in no range, and neither is an address of the other family.
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
    """Attribute `key` (0 if missing) under a mask has the value, for one of the `values` (value, mask)."""

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
    """A condition that only an entry can be tested for: it holds if the predicate returns True."""

    predicate: EntryTest

    def compile(self) -> EntryTest:
        return self.predicate


class And(NamedTuple):
    """All terms hold. They are evaluated in order."""

    terms: tuple[Term, ...]

    def compile(self) -> EntryTest:
        return _joined(self.terms, all)


class Or(NamedTuple):
    """At least one of the terms holds."""

    terms: tuple[Term, ...]

    def compile(self) -> EntryTest:
        return _joined(self.terms, any)


class Not(NamedTuple):
    """The term does not hold."""

    term: Term

    def compile(self) -> EntryTest:
        predicate = self.term.compile()
        return lambda entry: not predicate(entry)


def _joined(terms: Iterable[Term], join: Callable[[Iterable[bool]], bool]) -> EntryTest:
    predicates = [term.compile() for term in terms]
    if len(predicates) == 1:
        return predicates[0]
    return lambda entry: join(predicate(entry) for predicate in predicates)


Term = Union[InRanges, MaskEquals, Predicate, And, Or, Not, "Indexed"]

#: Holds for every entry.
ALWAYS = And(())
#: Holds for none.
NEVER = Or(())


#: Up to this number, alternatives are evaluated one after another instead of by an index.
MOST_UNINDEXED = 8
#: Keys that never change and that every event contains; so do those of both tuples.
_IMMUTABLE = ("family", "zone")
_TUPLES = ("original.", "reply.")


def prepared(term: Term) -> Term:
    """Return an equivalent term that is fast to evaluate for many entries."""
    if _has_many(term):
        from .alternatives import indexed

        return indexed(term)
    return term


def _has_many(term: Term) -> bool:
    if isinstance(term, (And, Or)):
        return (isinstance(term, Or) and len(term.terms) > MOST_UNINDEXED) or any(map(_has_many, term.terms))
    return isinstance(term, Not) and _has_many(term.term)


def has_predicate(term: Term) -> bool:
    """Whether a part of the term is a `Predicate`. In a match, that is a condition on timeouts, counters or ages."""
    if isinstance(term, (And, Or)):
        return any(map(has_predicate, term.terms))
    if isinstance(term, Not):
        return has_predicate(term.term)
    return isinstance(term, Predicate) or (not isinstance(term, (InRanges, MaskEquals)) and term.has_predicate)


def comparable(value: Any, bound: Any) -> bool:
    """Whether two values can be compared: both are numbers, or addresses of one family."""
    if isinstance(bound, bytes):
        return isinstance(value, bytes) and len(value) == len(bound)
    return isinstance(value, int)


def disjoint(ranges: Iterable[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    """Return the lower and the upper bounds of ranges, sorted and without overlap."""
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
    """Look up a value in inclusive ranges of numbers and of addresses of each family."""

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
    """Return a number that is equal for values that can be compared: numbers, or addresses of one family."""
    if isinstance(value, bytes):
        return len(value)
    return -1 if isinstance(value, int) else -2


def points(values: Any) -> tuple[tuple[Any, Any], ...]:
    """Return single values as ranges."""
    return tuple((value, value) for value in values)


def immutable_part(term: Term, if_unknown: bool = True) -> Term:
    """Return the term for what never changes about an entry. For the rest, the answer is `if_unknown`."""
    if isinstance(term, Not):
        return Not(immutable_part(term.term, not if_unknown))
    if isinstance(term, (And, Or)):
        return term._replace(terms=tuple(immutable_part(part, if_unknown) for part in term.terms))
    keys = term.keys if isinstance(term, InRanges) else (term.key,) if isinstance(term, MaskEquals) else ("",)
    if all(key in _IMMUTABLE or key.startswith(_TUPLES) for key in keys):
        return term
    return ALWAYS if if_unknown else NEVER
