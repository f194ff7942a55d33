# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A match asked of a message's bytes, so that what does not match is never decoded.

On a layout, what a term asks of constants is answered once for all its messages; masks and single
values become one masked comparison of the message as a big-endian integer, ranges a comparison of the
bits that hold the value. What only an entry can be asked (`Told`) is left for the entries of those
messages that could match.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Callable, Iterable, NamedTuple, Union

from ..codec.layout import Column, MessageLayout
from ..codec.types import Address, AttributeType, Integer, MaskedFlags
from .expression import And, EntryTest, InRanges, MaskEquals, Not, Or, Predicate, Term, comparable, disjoint, is_told

if TYPE_CHECKING:
    from .alternatives import Indexed


#: More comparisons than this with one value take longer than bisection.
_FEW_RANGES = 3


class MaskedCompare(NamedTuple):
    """Holds for the messages whose bits under `mask` are `value`."""

    mask: int
    value: int


#: An answer for every message, a comparison, or a test to ask each.
Question = Union[bool, MaskedCompare, Callable[[int], bool]]


class CompiledFilter(NamedTuple):
    """A term on a layout: a comparison first, then a test, then what the entry itself is asked.

    `never`: no message of the layout can match.
    """

    never: bool = False
    bits: MaskedCompare = MaskedCompare(0, 0)
    test: Callable[[int], bool] | None = None
    predicate: EntryTest | None = None

    def holds(self, layout: MessageLayout, datagram: bytes, start: int, message: int) -> bool:
        """All of it asked of a message of the layout."""
        return (
            not self.never
            and message & self.bits.mask == self.bits.value
            and (self.test is None or self.test(message))
            and (self.predicate is None or self.predicate(layout.entry(datagram, start)))
        )


def sieve(term: Term, layout: MessageLayout) -> CompiledFilter:
    """What to ask messages of this layout, so that those remain for which the term holds."""
    terms = term.terms if isinstance(term, And) else (term,)
    joined = _join(_ask(part, layout, True) for part in terms)
    if joined is None:
        return CompiledFilter(never=True)
    told = tuple(part for part in terms if is_told(part))
    return CompiledFilter(False, joined.bits, _all(joined.questions), And(told).compile() if told else None)


def _ask(term: Term, layout: MessageLayout, if_unknown: bool) -> Question:
    """The term as a test; where only an entry can answer, the answer is `if_unknown`."""
    if isinstance(term, InRanges):
        return _either(_within(key, term, layout) for key in term.keys)
    if isinstance(term, MaskEquals):
        return _masked(term, layout)
    if isinstance(term, And):
        return _every(_ask(part, layout, if_unknown) for part in term.terms)
    if isinstance(term, Or):
        return _either(_ask(part, layout, if_unknown) for part in term.terms)
    if isinstance(term, Not):
        return _not(_ask(term.term, layout, not if_unknown))
    return if_unknown if isinstance(term, Predicate) else _indexed(term, layout, if_unknown)


def _indexed(term: Indexed, layout: MessageLayout, if_unknown: bool) -> Question:
    """Only the branch of the value in the message; the test of a branch is made when it is first needed."""
    from .alternatives import number_of

    key, absent, mask = term.pinned
    column = layout.column(key)
    others = _ask(term.otherwise, layout, if_unknown)
    if column is None or column.kind is None:
        branch = term.branch(layout.constants.get(key, absent))
        return others if branch is None else _either((_ask(branch, layout, if_unknown), others))
    (shift, ones), find, branches = _place(column, layout), term.find, term.branches
    above, decode, size = 0, column.kind.decode, column.size
    is_address = isinstance(column.kind, Address)
    if is_address:
        above = number_of(bytes(size)) or 0
    elif _is_number(column.kind):
        ones &= ones if mask is None else mask
    asked: dict[int, Callable[[int], bool]] = {}

    def make(at: int) -> Callable[[int], bool]:
        asked[at] = _asked(_either((_ask(branches[at], layout, if_unknown), others)))
        return asked[at]

    otherwise = _asked(others)

    def ask(message: int) -> bool:
        at = find(message >> shift & ones | above)
        return otherwise(message) if at is None else (asked.get(at) or make(at))(message)

    def ask_decoded(message: int) -> bool:
        value = decode((message >> shift & ones).to_bytes(size, "big"))
        found = number_of(value if mask is None else value & mask)
        at = None if found is None else find(found)
        return otherwise(message) if at is None else (asked.get(at) or make(at))(message)

    return ask if is_address or _is_number(column.kind) else ask_decoded


# terms joined


class _Joined(NamedTuple):
    """All of these together: one comparison, and the questions that are none."""

    bits: MaskedCompare
    questions: list[Callable[[int], bool]]


def _join(asked: Iterable[Question]) -> _Joined | None:
    """Questions that must all be answered by yes; None where no message can do that."""
    bits, questions = MaskedCompare(0, 0), []
    for one in asked:
        if one is False:
            return None
        if isinstance(one, MaskedCompare):
            if (bits.value ^ one.value) & bits.mask & one.mask:
                return None
            bits = MaskedCompare(bits.mask | one.mask, bits.value | one.value)
        elif callable(one):
            questions.append(one)
    return _Joined(bits, questions)


def _all(questions: list[Callable[[int], bool]]) -> Callable[[int], bool] | None:
    if len(questions) < 2:
        return questions[0] if questions else None
    if len(questions) == 2:
        one, other = questions
        return lambda message: one(message) and other(message)
    return lambda message: all(test(message) for test in questions)


def _every(asked: Iterable[Question]) -> Question:
    joined = _join(asked)
    if joined is None:
        return False
    if not joined.questions:
        return joined.bits if joined.bits.mask else True
    if joined.bits.mask:
        joined.questions.insert(0, _compares(joined.bits.mask, {joined.bits.value}))
    return _all(joined.questions) or True


def _either(asked: Iterable[Question]) -> Question:
    values: dict[int, set[int]] = {}
    questions: list[Callable[[int], bool]] = []
    for one in asked:
        if one is True:
            return True
        if isinstance(one, MaskedCompare):
            values.setdefault(one.mask, set()).add(one.value)
        elif callable(one):
            questions.append(one)
    if len(values) == 1 and not questions:
        mask = next(iter(values))
        wanted = values[mask]
        if len(wanted) == 1:
            return MaskedCompare(mask, wanted.pop())
    questions[:0] = [_compares(mask, wanted) for mask, wanted in values.items()]
    if len(questions) < 2:
        return questions[0] if questions else False
    if len(questions) == 2:
        one, other = questions
        return lambda message: one(message) or other(message)
    return lambda message: any(test(message) for test in questions)


def _not(asked: Question) -> Question:
    if isinstance(asked, bool):
        return not asked
    if isinstance(asked, MaskedCompare):
        mask, value = asked
        return lambda message: message & mask != value
    return lambda message: not asked(message)


def _asked(asked: Question) -> Callable[[int], bool]:
    if isinstance(asked, MaskedCompare):
        return _compares(asked.mask, {asked.value})
    return asked if callable(asked) else lambda message: bool(asked)


def _compares(mask: int, values: set[int]) -> Callable[[int], bool]:
    if len(values) > 1:
        return lambda message: message & mask in values
    (value,) = values
    return lambda message: message & mask == value


# single values


def _within(key: str, term: InRanges, layout: MessageLayout) -> Question:
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
    return _either(_ranges(ranges, shift, ones))


def _ranges(ranges: list[tuple[int, int]], shift: int, ones: int) -> list[Question]:
    """A block of numbers that begin alike, as a comparison; many ranges of other kinds by bisection."""
    asked = [_range(low, high, shift, ones) for low, high in ranges if low <= ones]
    if sum(map(callable, asked)) + len({one.mask for one in asked if isinstance(one, MaskedCompare)}) <= _FEW_RANGES:
        return asked
    lows, highs = disjoint(ranges)

    def lies(message: int) -> bool:
        number = message >> shift & ones
        at = bisect_right(lows, number)
        return at > 0 and number <= highs[at - 1]

    return [lies]


def _range(low: int, high: int, shift: int, ones: int) -> Question:
    size = high - low + 1
    if not size & size - 1 and not low & size - 1:
        return MaskedCompare((ones & ~(size - 1)) << shift, low << shift) if size <= ones else True
    return lambda message: low <= message >> shift & ones <= high


def _masked(term: MaskEquals, layout: MessageLayout) -> Question:
    column = layout.column(term.key)
    if column is None:
        there = layout.constants.get(term.key, 0)
        return any(there & mask == value for value, mask in term.values)
    if not _is_number(column.kind):
        return _reads(column, layout, term)
    shift, ones = _place(column, layout)
    return _either(
        MaskedCompare((mask & ones) << shift, value << shift) for value, mask in term.values if not value & ~ones
    )


def _reads(column: Column, layout: MessageLayout, term: InRanges | MaskEquals) -> Question:
    """The value made from its bytes, and then the term asked."""
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
    """How far to shift a message for the value of a column, and the mask that cuts it out."""
    return 8 * (layout.size - column.start - column.size), (1 << 8 * column.size) - 1
