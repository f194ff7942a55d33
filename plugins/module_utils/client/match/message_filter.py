# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A match compiled for the bytes of messages, so that messages that do not match are never decoded.

A filter is compiled for one layout. Conditions on constants of the layout are decided once. Masks and single values
become one masked comparison of the message as a big-endian integer, ranges a comparison of the bits that hold the
value. A `Predicate` needs the decoded entry: only messages for which everything else holds are decoded for it.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Callable, Iterable, NamedTuple, Union

from ..codec.layout import Column, MessageLayout
from ..codec.types import Address, AttributeType, Integer, MaskedFlags
from .expression import (
    And,
    EntryTest,
    InRanges,
    MaskEquals,
    Not,
    Or,
    Predicate,
    Term,
    comparable,
    disjoint,
    has_predicate,
)

if TYPE_CHECKING:
    from .alternatives import Indexed


#: More comparisons than this with one value take longer than bisection.
_FEW_RANGES = 3


class MaskedCompare(NamedTuple):
    """Holds for the messages whose bits under `mask` are `value`."""

    mask: int
    value: int


#: A result for every message, a comparison, or a test for each message.
Condition = Union[bool, MaskedCompare, Callable[[int], bool]]


class CompiledFilter(NamedTuple):
    """A term compiled for a layout: a comparison, then a test of the bytes, then a predicate of the decoded entry.

    `never`: no message of the layout can match.
    """

    never: bool = False
    bits: MaskedCompare = MaskedCompare(0, 0)
    test: Callable[[int], bool] | None = None
    predicate: EntryTest | None = None

    def holds(self, layout: MessageLayout, datagram: bytes, start: int, message: int) -> bool:
        """Whether the term holds for a message of the layout, given also as a big-endian integer."""
        return (
            not self.never
            and message & self.bits.mask == self.bits.value
            and (self.test is None or self.test(message))
            and (self.predicate is None or self.predicate(layout.entry(datagram, start)))
        )


def compile_for_layout(term: Term, layout: MessageLayout) -> CompiledFilter:
    """Return the filter that passes the messages of this layout for which the term holds."""
    terms = term.terms if isinstance(term, And) else (term,)
    conjunction = _conjunction(_condition(part, layout, True) for part in terms)
    if conjunction is None:
        return CompiledFilter(never=True)
    predicates = tuple(part for part in terms if has_predicate(part))
    test = _joined(conjunction.tests, all) if conjunction.tests else None
    return CompiledFilter(False, conjunction.bits, test, And(predicates).compile() if predicates else None)


def _condition(term: Term, layout: MessageLayout, if_unknown: bool) -> Condition:
    """Compile a term to a condition on bytes. A part that needs the decoded entry becomes `if_unknown`."""
    if isinstance(term, InRanges):
        return _or(_in_ranges(key, term, layout) for key in term.keys)
    if isinstance(term, MaskEquals):
        return _mask_equals(term, layout)
    if isinstance(term, And):
        return _and(_condition(part, layout, if_unknown) for part in term.terms)
    if isinstance(term, Or):
        return _or(_condition(part, layout, if_unknown) for part in term.terms)
    if isinstance(term, Not):
        return _not(_condition(term.term, layout, not if_unknown))
    return if_unknown if isinstance(term, Predicate) else _indexed(term, layout, if_unknown)


def _indexed(term: Indexed, layout: MessageLayout, if_unknown: bool) -> Condition:
    """Test only the branch for the value in the message. The test of a branch is compiled when it is first needed."""
    from .alternatives import number_of

    key, absent, mask = term.pinned
    column = layout.column(key)
    others = _condition(term.otherwise, layout, if_unknown)
    if column is None or column.kind is None:
        branch = term.branch(layout.constants.get(key, absent))
        return others if branch is None else _or((_condition(branch, layout, if_unknown), others))
    (shift, ones), find, branches = _place(column, layout), term.find, term.branches
    above, decode, size = 0, column.kind.decode, column.size
    is_address = isinstance(column.kind, Address)
    if is_address:
        above = number_of(bytes(size)) or 0
    elif _is_number(column.kind):
        ones &= ones if mask is None else mask
    tests: dict[int, Callable[[int], bool]] = {}

    def make(at: int) -> Callable[[int], bool]:
        tests[at] = _as_test(_or((_condition(branches[at], layout, if_unknown), others)))
        return tests[at]

    otherwise = _as_test(others)

    def ask(message: int) -> bool:
        at = find(message >> shift & ones | above)
        return otherwise(message) if at is None else (tests.get(at) or make(at))(message)

    def ask_decoded(message: int) -> bool:
        value = decode((message >> shift & ones).to_bytes(size, "big"))
        found = number_of(value if mask is None else value & mask)
        at = None if found is None else find(found)
        return otherwise(message) if at is None else (tests.get(at) or make(at))(message)

    return ask if is_address or _is_number(column.kind) else ask_decoded


# terms joined


class _Conjunction(NamedTuple):
    """Conditions that must all hold: one comparison, and the other tests."""

    bits: MaskedCompare
    tests: list[Callable[[int], bool]]


def _conjunction(conditions: Iterable[Condition]) -> _Conjunction | None:
    """Join conditions that must all hold. None if no message can match."""
    bits, tests = MaskedCompare(0, 0), []
    for one in conditions:
        if one is False:
            return None
        if isinstance(one, MaskedCompare):
            if (bits.value ^ one.value) & bits.mask & one.mask:
                return None
            bits = MaskedCompare(bits.mask | one.mask, bits.value | one.value)
        elif callable(one):
            tests.append(one)
    return _Conjunction(bits, tests)


def _joined(tests: list[Callable[[int], bool]], join: Callable[[Iterable[bool]], bool]) -> Callable[[int], bool]:
    """Return one test for several. `join` is `all` or `any`."""
    if len(tests) == 1:
        return tests[0]
    if len(tests) > 2:
        return lambda message: join(test(message) for test in tests)
    one, other = tests
    if join is all:
        return lambda message: one(message) and other(message)
    return lambda message: one(message) or other(message)


def _and(conditions: Iterable[Condition]) -> Condition:
    conjunction = _conjunction(conditions)
    if conjunction is None:
        return False
    if not conjunction.tests:
        return conjunction.bits if conjunction.bits.mask else True
    if conjunction.bits.mask:
        conjunction.tests.insert(0, _compares(conjunction.bits.mask, {conjunction.bits.value}))
    return _joined(conjunction.tests, all)


def _or(conditions: Iterable[Condition]) -> Condition:
    values: dict[int, set[int]] = {}
    tests: list[Callable[[int], bool]] = []
    for one in conditions:
        if one is True:
            return True
        if isinstance(one, MaskedCompare):
            values.setdefault(one.mask, set()).add(one.value)
        elif callable(one):
            tests.append(one)
    if len(values) == 1 and not tests:
        mask = next(iter(values))
        wanted = values[mask]
        if len(wanted) == 1:
            return MaskedCompare(mask, wanted.pop())
    tests[:0] = [_compares(mask, wanted) for mask, wanted in values.items()]
    return _joined(tests, any) if tests else False


def _not(condition: Condition) -> Condition:
    if isinstance(condition, bool):
        return not condition
    if isinstance(condition, MaskedCompare):
        mask, value = condition
        return lambda message: message & mask != value
    return lambda message: not condition(message)


def _as_test(condition: Condition) -> Callable[[int], bool]:
    if isinstance(condition, MaskedCompare):
        return _compares(condition.mask, {condition.value})
    return condition if callable(condition) else lambda message: bool(condition)


def _compares(mask: int, values: set[int]) -> Callable[[int], bool]:
    if len(values) > 1:
        return lambda message: message & mask in values
    (value,) = values
    return lambda message: message & mask == value


# single values


def _in_ranges(key: str, term: InRanges, layout: MessageLayout) -> Condition:
    column = layout.column(key)
    if column is None:
        there = layout.constants.get(key, term.absent)
        return any(comparable(there, low) and low <= there <= high for low, high in term.ranges)
    shift, ones = _place(column, layout)
    if not _is_number(column.kind) and not isinstance(column.kind, Address):
        return _reads(column, layout, InRanges((key,), term.ranges))
    ranges = []
    for low, high in term.ranges:
        if isinstance(low, bytes):
            if len(low) != column.size:
                continue  # of the other family
            low, high = int.from_bytes(low, "big"), int.from_bytes(high, "big")
        ranges.append((low, high))
    return _or(_ranges(ranges, shift, ones))


def _ranges(ranges: list[tuple[int, int]], shift: int, ones: int) -> list[Condition]:
    """A block of numbers with a common prefix becomes a comparison; many other ranges become one bisection."""
    conditions = [_range(low, high, shift, ones) for low, high in ranges if low <= ones]
    if (
        sum(map(callable, conditions)) + len({one.mask for one in conditions if isinstance(one, MaskedCompare)})
        <= _FEW_RANGES
    ):
        return conditions
    lows, highs = disjoint(ranges)

    def lies(message: int) -> bool:
        number = message >> shift & ones
        at = bisect_right(lows, number)
        return at > 0 and number <= highs[at - 1]

    return [lies]


def _range(low: int, high: int, shift: int, ones: int) -> Condition:
    size = high - low + 1
    if not size & size - 1 and not low & size - 1:
        return MaskedCompare((ones & ~(size - 1)) << shift, low << shift) if size <= ones else True
    return lambda message: low <= message >> shift & ones <= high


def _mask_equals(term: MaskEquals, layout: MessageLayout) -> Condition:
    column = layout.column(term.key)
    if column is None:
        there = layout.constants.get(term.key, 0)
        return any(there & mask == value for value, mask in term.values)
    if not _is_number(column.kind):
        return _reads(column, layout, term)
    shift, ones = _place(column, layout)
    return _or(
        MaskedCompare((mask & ones) << shift, value << shift) for value, mask in term.values if not value & ~ones
    )


def _reads(column: Column, layout: MessageLayout, term: InRanges | MaskEquals) -> Condition:
    """Decode the value, then evaluate the term."""
    shift, ones = _place(column, layout)
    kind, size, key = column.kind, column.size, column.key
    holds = term.compile()
    if kind is None:
        return False
    decode = kind.decode
    return lambda message: holds({key: decode((message >> shift & ones).to_bytes(size, "big"))})


def _is_number(kind: AttributeType | None) -> bool:
    """Whether the bytes of a value, in network order, are the number itself."""
    return isinstance(kind, Integer) and not isinstance(kind, MaskedFlags) and not kind.signed


def _place(column: Column, layout: MessageLayout) -> tuple[int, int]:
    """Return the shift and the mask that extract the value of a column from a message."""
    return 8 * (layout.size - column.start - column.size), (1 << 8 * column.size) - 1
