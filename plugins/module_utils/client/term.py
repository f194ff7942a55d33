# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a match says, as data: tests of single attributes, and how they are joined.

A term can be asked about an entry (`compile` makes the predicate), and because it is data it can
also be made into something else that chooses entries, such as a filter program in the kernel.
`Told` is a test that only an entry itself can be asked.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple, Union

from .entry import Entry

Predicate = Callable[[Entry], bool]


class Within(NamedTuple):
    """One of the attributes `keys` lies in one of the inclusive `ranges`.

    An attribute that an entry lacks counts as `absent`; None lies in no range, and so does an
    address of the other family.
    """

    keys: tuple[str, ...]
    ranges: tuple[tuple[Any, Any], ...]
    absent: Any = None

    def compile(self) -> Predicate:
        single = frozenset(low for low, high in self.ranges if low == high)
        wide = tuple((low, high) for low, high in self.ranges if low != high)
        absent = self.absent

        def lies(value: Any) -> bool:
            return value in single or any(comparable(value, low) and low <= value <= high for low, high in wide)

        if len(self.keys) > 1:
            keys = self.keys
            return lambda entry: any(lies(entry.get(key, absent)) for key in keys)
        (only,) = self.keys
        if wide:
            return lambda entry: lies(entry.get(only, absent))
        return lambda entry: entry.get(only, absent) in single


class Masked(NamedTuple):
    """Attribute `key`, 0 where an entry lacks it, has one of the `values` under its mask."""

    key: str
    values: tuple[tuple[int, int], ...]

    def compile(self) -> Predicate:
        key, values = self.key, self.values
        if len(values) == 1:
            value, mask = values[0]
            return lambda entry: entry.get(key, 0) & mask == value
        return lambda entry: any(entry.get(key, 0) & mask == value for value, mask in values)


class Told(NamedTuple):
    """Whatever the predicate answers."""

    predicate: Predicate

    def compile(self) -> Predicate:
        return self.predicate


class Every(NamedTuple):
    """All of the terms hold; they are asked in order."""

    terms: tuple[Term, ...]

    def compile(self) -> Predicate:
        predicates = [term.compile() for term in self.terms]
        if len(predicates) == 1:
            return predicates[0]
        return lambda entry: all(predicate(entry) for predicate in predicates)


class Either(NamedTuple):
    """One of the terms holds."""

    terms: tuple[Term, ...]

    def compile(self) -> Predicate:
        predicates = [term.compile() for term in self.terms]
        if len(predicates) == 1:
            return predicates[0]
        return lambda entry: any(predicate(entry) for predicate in predicates)


class Not(NamedTuple):
    """The term does not hold."""

    term: Term

    def compile(self) -> Predicate:
        predicate = self.term.compile()
        return lambda entry: not predicate(entry)


Term = Union[Within, Masked, Told, Every, Either, Not]

#: Holds for every entry.
ALWAYS = Every(())
#: Holds for none.
NEVER = Either(())


def comparable(value: Any, bound: Any) -> bool:
    """Whether the two have an order: both numbers, or addresses of one family."""
    if isinstance(bound, bytes):
        return isinstance(value, bytes) and len(value) == len(bound)
    return isinstance(value, int)


def points(values: Any) -> tuple[tuple[Any, Any], ...]:
    """Single values as ranges."""
    return tuple((value, value) for value in values)
