# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A match compiled for the bytes of messages, so that messages that do not match are never decoded.

A filter is compiled for one layout, and tests a group of its messages at a time. Conditions on constants of the layout
are decided once. Masks and single values become masked comparisons: a slice contains the same byte of all messages, and
a table translates it to 1 where the byte has the value. The results of slices are joined as integers. Ranges and lists
become a test of each value of a column.

Other conditions become a test of each message as a big-endian integer. A `Predicate` needs the decoded entry. Only
messages that pass all other tests are decoded for it.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from typing import TYPE_CHECKING, Callable, Iterable, Iterator, NamedTuple, Union

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


#: With more values or ranges than this, one test of each value is faster than comparisons.
_FEW_VALUES = 3
#: With more alternatives than this, a test of each message is faster than tests of groups.
_FEW_ALTERNATIVES = 16


class MaskedCompare(NamedTuple):
    """Holds for the messages whose bits under `mask` are `value`."""

    mask: int
    value: int


class ColumnTest(NamedTuple):
    """Holds for the messages for which `test` holds, which is a test of the whole message.

    `test_value` tests the value of a column as a number. Unless `is_exact`, it only finds the messages to test.
    """

    column: Column
    test_value: Callable[[int], bool]
    test: Callable[[int], bool]
    is_exact: bool = True


#: A condition that is tested for a group of messages.
GroupCondition = Union[MaskedCompare, ColumnTest]


class AnyOf(NamedTuple):
    """Holds for the messages for which one of a few conditions holds, or if negated, for all others."""

    conditions: tuple[GroupCondition, ...]
    is_negated: bool = False


#: A result for every message, a condition that is tested for a group at a time, or a test for each message.
Condition = Union[bool, GroupCondition, AnyOf, Callable[[int], bool]]
#: Tests a group of messages. The second argument and the result have a byte for each message, as a big-endian integer:
#: 1 for the messages to test, and for those of them for which a condition holds.
GroupTest = Callable[[bytes, int], int]


class CompiledFilter(NamedTuple):
    """A term compiled for a layout: tests of groups, then a test of the bytes, then a predicate of the decoded entry.

    `never`: no message of the layout can match.
    """

    layout: MessageLayout
    never: bool = False
    group_tests: tuple[GroupTest, ...] = ()
    test: Callable[[int], bool] | None = None
    predicate: EntryTest | None = None

    def flags(self, data: bytes) -> bytes:
        """Return a byte for each message of a group: 1 if the term holds, otherwise 0."""
        layout, test, predicate, count = self.layout, self.test, self.predicate, len(data) // self.layout.size
        holds = 0 if self.never else int.from_bytes(b"\1" * count, "big")
        for group_test in self.group_tests:
            holds = holds and group_test(data, holds)
        flags = holds.to_bytes(count, "big")
        if test is not None and holds:
            each = zip(flags, layout.messages(data))
            flags = bytes([flag and test(int.from_bytes(message, "big")) for flag, message in each])
        if predicate is not None and 1 in flags:
            entries = layout.entries(layout.choose(data, flags))
            flags = bytes([flag and bool(predicate(next(entries))) for flag in flags])
        return flags


def compile_for_layout(term: Term, layout: MessageLayout) -> CompiledFilter:
    """Return the filter that passes the messages of this layout for which the term holds."""
    terms = tuple(_joined_terms(term))
    conjunction = _conjunction(_condition(part, layout, True) for part in terms)
    if conjunction is None:
        return CompiledFilter(layout, never=True)
    group_tests = tuple(_any_of(one, layout) for one in (AnyOf((conjunction.bits,)), *conjunction.alternatives))
    predicates = tuple(part for part in terms if has_predicate(part))
    test = _joined(conjunction.tests, all) if conjunction.tests else None
    return CompiledFilter(layout, False, group_tests, test, And(predicates).compile() if predicates else None)


def _joined_terms(term: Term) -> Iterator[Term]:
    """Yield the terms that all must hold."""
    if isinstance(term, And):
        for part in term.terms:
            yield from _joined_terms(part)
    else:
        yield term


# tests of groups


def _any_of(alternatives: AnyOf, layout: MessageLayout) -> GroupTest:
    tests = [_group_test(one, layout) for one in alternatives.conditions]
    if len(tests) == 1 and not alternatives.is_negated:
        return tests[0]

    def ask(data: bytes, flags: int) -> int:
        found = 0
        for test in tests:
            found |= test(data, flags)
        return flags & ~found if alternatives.is_negated else found

    return ask


def _group_test(condition: GroupCondition, layout: MessageLayout) -> GroupTest:
    size, number_of = layout.size, int.from_bytes
    if isinstance(condition, MaskedCompare):
        mask, value = (number.to_bytes(size, "big") for number in condition)
        # The last byte of a value varies most
        bytes_to_test = [
            (place, _table(mask[place], value[place])) for place in reversed(range(size)) if mask[place] or value[place]
        ]

        def compare(data: bytes, flags: int) -> int:
            for place, table in bytes_to_test:
                flags &= number_of(data[place::size].translate(table), "big")
                if not flags:
                    break
            return flags

        return compare
    numbers, test_value = layout.numbers(condition.column), condition.test_value
    return lambda data, flags: flags & number_of(bytes(map(test_value, numbers(data))), "big")


@lru_cache(maxsize=None)
def _table(mask: int, value: int) -> bytes:
    """Return the translation of a byte to 1 if it has the value under the mask, otherwise to 0."""
    return bytes(byte & mask == value for byte in range(256))


# conditions


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

    if not is_address and not _is_number(column.kind):
        return ask_decoded
    if others is not False:
        return ask

    def is_indexed(number: int) -> bool:
        return find(number | above) is not None

    def is_indexed_masked(number: int) -> bool:
        return find(number & ones) is not None

    return ColumnTest(column, is_indexed if mask is None else is_indexed_masked, ask, is_exact=False)


# terms joined


class _Conjunction(NamedTuple):
    """Conditions that must all hold: one comparison, alternatives of other conditions, and tests of each message."""

    bits: MaskedCompare
    alternatives: list[AnyOf]
    tests: list[Callable[[int], bool]]


def _conjunction(conditions: Iterable[Condition]) -> _Conjunction | None:
    """Join conditions that must all hold. None if no message can match."""
    bits, alternatives, tests = MaskedCompare(0, 0), [], []
    for one in conditions:
        if one is False:
            return None
        if isinstance(one, MaskedCompare):
            if (bits.value ^ one.value) & bits.mask & one.mask:
                return None
            bits = MaskedCompare(bits.mask | one.mask, bits.value | one.value)
        elif isinstance(one, AnyOf):
            alternatives.append(one)
        elif isinstance(one, ColumnTest):
            alternatives.append(AnyOf((one,)))
            tests += [] if one.is_exact else [one.test]
        elif callable(one):
            tests.append(one)
    return _Conjunction(bits, alternatives, tests)


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
    conditions = [one for one in conditions if one is not True]
    if len(conditions) == 1:
        return conditions[0]
    conjunction = _conjunction(conditions)
    if conjunction is None:
        return False
    bits, others = conjunction.bits, [one for one in conditions if not isinstance(one, MaskedCompare)]
    if not others:
        return bits if bits.mask else True
    return _joined([*([_as_test(bits)] if bits.mask else []), *map(_as_test, others)], all)


def _or(conditions: Iterable[Condition]) -> Condition:
    for_groups: dict[GroupCondition, None] = {}
    tests: list[Callable[[int], bool]] = []
    for one in conditions:
        if one is True:
            return True
        if isinstance(one, AnyOf) and not one.is_negated:
            for_groups.update(dict.fromkeys(one.conditions))
        elif isinstance(one, MaskedCompare) or (isinstance(one, ColumnTest) and one.is_exact):
            for_groups[one] = None
        elif one is not False:
            tests.append(_as_test(one))
    if tests or len(for_groups) > _FEW_ALTERNATIVES:
        return _joined([*_tests_of(for_groups), *tests], any)
    if len(for_groups) == 1:
        return next(iter(for_groups))
    return AnyOf(tuple(for_groups)) if for_groups else False


def _not(condition: Condition) -> Condition:
    if isinstance(condition, bool):
        return not condition
    if isinstance(condition, AnyOf):
        return condition._replace(is_negated=not condition.is_negated)
    if isinstance(condition, MaskedCompare) or (isinstance(condition, ColumnTest) and condition.is_exact):
        return AnyOf((condition,), is_negated=True)
    test = _as_test(condition)
    return lambda message: not test(message)


def _as_test(condition: Condition) -> Callable[[int], bool]:
    """Return a condition as a test of a message."""
    if isinstance(condition, MaskedCompare):
        return _compares(condition.mask, {condition.value})
    if isinstance(condition, AnyOf):
        test = _joined(_tests_of(condition.conditions), any)
        return (lambda message: not test(message)) if condition.is_negated else test
    if isinstance(condition, ColumnTest):
        return condition.test
    return condition if callable(condition) else lambda message: bool(condition)


def _tests_of(conditions: Iterable[GroupCondition]) -> list[Callable[[int], bool]]:
    """Return tests of a message, one for all comparisons with the same mask."""
    values: dict[int, set[int]] = {}
    tests: list[Callable[[int], bool]] = []
    for one in conditions:
        if isinstance(one, MaskedCompare):
            values.setdefault(one.mask, set()).add(one.value)
        else:
            tests.append(one.test)
    return [*(_compares(mask, wanted) for mask, wanted in values.items()), *tests]


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
    if not _is_number(column.kind) and not isinstance(column.kind, Address):
        return _reads(column, layout, InRanges((key,), term.ranges))
    ranges = []
    for low, high in term.ranges:
        if isinstance(low, bytes):
            if len(low) != column.size:
                continue  # of the other family
            low, high = int.from_bytes(low, "big"), int.from_bytes(high, "big")
        ranges.append((low, high))
    return _or(_ranges(ranges, column, layout))


def _ranges(ranges: list[tuple[int, int]], column: Column, layout: MessageLayout) -> list[Condition]:
    """A block of numbers with a common prefix becomes a comparison; many ranges become one bisection."""
    _shift, ones = _place(column, layout)
    if len(ranges) <= _FEW_VALUES:
        return [_range(low, high, column, layout) for low, high in ranges if low <= ones]
    lows, highs = disjoint(ranges)
    if lows == highs:
        return [_test_of(column, layout, frozenset(lows).__contains__)]

    def lies(number: int) -> bool:
        at = bisect_right(lows, number)
        return at > 0 and number <= highs[at - 1]

    return [_test_of(column, layout, lies)]


def _range(low: int, high: int, column: Column, layout: MessageLayout) -> Condition:
    shift, ones = _place(column, layout)
    size = high - low + 1
    if not size & size - 1 and not low & size - 1:
        return MaskedCompare((ones & ~(size - 1)) << shift, low << shift) if size <= ones else True
    return _test_of(column, layout, lambda number: low <= number <= high)


def _mask_equals(term: MaskEquals, layout: MessageLayout) -> Condition:
    column = layout.column(term.key)
    if column is None:
        there = layout.constants.get(term.key, 0)
        return any(there & mask == value for value, mask in term.values)
    if not _is_number(column.kind):
        return _reads(column, layout, term)
    if len(term.values) > _FEW_VALUES:
        holds, key = term.compile(), term.key
        return _test_of(column, layout, lambda number: holds({key: number}))
    shift, ones = _place(column, layout)
    return _or(
        MaskedCompare((mask & ones) << shift, value << shift) for value, mask in term.values if not value & ~ones
    )


def _test_of(column: Column, layout: MessageLayout, test_value: Callable[[int], bool]) -> ColumnTest:
    """Return the condition that the value of a column, as a number, passes a test."""
    shift, ones = _place(column, layout)
    return ColumnTest(column, test_value, lambda message: test_value(message >> shift & ones))


def _reads(column: Column, layout: MessageLayout, term: InRanges | MaskEquals) -> Condition:
    """Decode the value, then evaluate the term."""
    kind, size, key = column.kind, column.size, column.key
    holds = term.compile()
    if kind is None:
        return False
    decode = kind.decode
    return _test_of(column, layout, lambda number: holds({key: decode(number.to_bytes(size, "big"))}))


def _is_number(kind: AttributeType | None) -> bool:
    """Whether the bytes of a value, in network order, are the number itself."""
    return isinstance(kind, Integer) and not isinstance(kind, MaskedFlags) and not kind.signed


def _place(column: Column, layout: MessageLayout) -> tuple[int, int]:
    """Return the shift and the mask that extract the value of a column from a message."""
    return 8 * (layout.size - column.start - column.size), (1 << 8 * column.size) - 1
