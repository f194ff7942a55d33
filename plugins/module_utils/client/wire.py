# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A match asked of a message's bytes, so that what does not match is never decoded.

On a layout, what a term asks of constants is answered once for all its messages; masks and single
values become one masked comparison of the message as a big-endian integer, ranges a comparison of the
bits that hold the value. What only an entry can be asked (`Told`) is left for the entries of those
messages that could match.
"""

from __future__ import annotations

from typing import Callable, Iterable, NamedTuple, Union

from .layout import Column, Layout
from .term import Either, Every, Masked, Not, Predicate, Term, Told, Within, comparable
from .values import Address, Integer, Kind, MaskedFlags


class Bits(NamedTuple):
    """Holds for the messages whose bits under `mask` are `value`."""

    mask: int
    value: int


#: An answer for every message, a comparison, or a question to ask each.
Question = Union[bool, Bits, Callable[[int], bool]]


class Sieve(NamedTuple):
    """A term on a layout: a comparison first, then a question, then what the entry itself is asked.

    `never`: no message of the layout can match.
    """

    never: bool = False
    bits: Bits = Bits(0, 0)
    question: Callable[[int], bool] | None = None
    predicate: Predicate | None = None

    def holds(self, layout: Layout, datagram: bytes, start: int, message: int) -> bool:
        """All of it asked of a message of the layout."""
        return (
            not self.never
            and message & self.bits.mask == self.bits.value
            and (self.question is None or self.question(message))
            and (self.predicate is None or self.predicate(layout.entry(datagram, start)))
        )


def sieve(term: Term, layout: Layout) -> Sieve:
    """What to ask messages of this layout, so that those remain for which the term holds."""
    terms = term.terms if isinstance(term, Every) else (term,)
    joined = _join(_ask(part, layout, True) for part in terms)
    if joined is None:
        return Sieve(never=True)
    told = tuple(part for part in terms if _is_told(part))
    return Sieve(False, joined.bits, _all(joined.questions), Every(told).compile() if told else None)


def _is_told(term: Term) -> bool:
    if isinstance(term, (Every, Either)):
        return any(map(_is_told, term.terms))
    return _is_told(term.term) if isinstance(term, Not) else isinstance(term, Told)


def _ask(term: Term, layout: Layout, generous: bool) -> Question:
    """The term as a question; where only an entry can answer, the answer is `generous`."""
    if isinstance(term, Within):
        return _either(_within(key, term, layout) for key in term.keys)
    if isinstance(term, Masked):
        return _masked(term, layout)
    if isinstance(term, Every):
        return _every(_ask(part, layout, generous) for part in term.terms)
    if isinstance(term, Either):
        return _either(_ask(part, layout, generous) for part in term.terms)
    if isinstance(term, Not):
        return _not(_ask(term.term, layout, not generous))
    return generous


# terms joined


class _Joined(NamedTuple):
    """All of these together: one comparison, and the questions that are none."""

    bits: Bits
    questions: list[Callable[[int], bool]]


def _join(asked: Iterable[Question]) -> _Joined | None:
    """Questions that must all be answered by yes; None where no message can do that."""
    bits, questions = Bits(0, 0), []
    for one in asked:
        if one is False:
            return None
        if isinstance(one, Bits):
            if (bits.value ^ one.value) & bits.mask & one.mask:
                return None
            bits = Bits(bits.mask | one.mask, bits.value | one.value)
        elif callable(one):
            questions.append(one)
    return _Joined(bits, questions)


def _all(questions: list[Callable[[int], bool]]) -> Callable[[int], bool] | None:
    if len(questions) < 2:
        return questions[0] if questions else None
    return lambda message: all(question(message) for question in questions)


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
        if isinstance(one, Bits):
            values.setdefault(one.mask, set()).add(one.value)
        elif callable(one):
            questions.append(one)
    if len(values) == 1 and not questions:
        mask = next(iter(values))
        wanted = values[mask]
        if len(wanted) == 1:
            return Bits(mask, wanted.pop())
    questions[:0] = [_compares(mask, wanted) for mask, wanted in values.items()]
    if len(questions) < 2:
        return questions[0] if questions else False
    return lambda message: any(question(message) for question in questions)


def _not(asked: Question) -> Question:
    if isinstance(asked, bool):
        return not asked
    holds = _compares(asked.mask, {asked.value}) if isinstance(asked, Bits) else asked
    return lambda message: not holds(message)


def _compares(mask: int, values: set[int]) -> Callable[[int], bool]:
    if len(values) > 1:
        return lambda message: message & mask in values
    (value,) = values
    return lambda message: message & mask == value


# single values


def _within(key: str, term: Within, layout: Layout) -> Question:
    column = layout.column(key)
    if column is None:
        there = layout.constants.get(key, term.absent)
        return any(comparable(there, low) and low <= there <= high for low, high in term.ranges)
    shift, ones = _place(column, layout)
    if not _is_number(column.kind) and not isinstance(column.kind, Address):
        return _reads(column, layout, Within((key,), term.ranges))
    ranges = []
    for low, high in term.ranges:
        if isinstance(low, bytes):
            if len(low) != column.size:
                continue  # of the other family
            low, high = int.from_bytes(low, "big"), int.from_bytes(high, "big")
        ranges.append((low, high))
    return _either(_range(low, high, shift, ones) for low, high in ranges)


def _range(low: int, high: int, shift: int, ones: int) -> Question:
    """A block of numbers that begin alike, as a comparison; any other range as it is."""
    if low > ones:
        return False
    size = high - low + 1
    if not size & size - 1 and not low & size - 1:
        return Bits((ones & ~(size - 1)) << shift, low << shift) if size <= ones else True
    return lambda message: low <= message >> shift & ones <= high


def _masked(term: Masked, layout: Layout) -> Question:
    column = layout.column(term.key)
    if column is None:
        there = layout.constants.get(term.key, 0)
        return any(there & mask == value for value, mask in term.values)
    if not _is_number(column.kind):
        return _reads(column, layout, term)
    shift, ones = _place(column, layout)
    return _either(Bits((mask & ones) << shift, value << shift) for value, mask in term.values if not value & ~ones)


def _reads(column: Column, layout: Layout, term: Within | Masked) -> Question:
    """The value made from its bytes, and then the term asked."""
    shift, ones = _place(column, layout)
    kind, size, key = column.kind, column.size, column.key
    holds = term.compile()
    if kind is None:
        return False
    decode = kind.decode
    return lambda message: holds({key: decode((message >> shift & ones).to_bytes(size, "big"))})


def _is_number(kind: Kind | None) -> bool:
    """Whether the bytes of a value, in network order, are the number itself."""
    return isinstance(kind, Integer) and not isinstance(kind, MaskedFlags) and not kind.signed


def _place(column: Column, layout: Layout) -> tuple[int, int]:
    """How far to shift a message for the value of a column, and the mask that cuts it out."""
    return 8 * (layout.size - column.start - column.size), (1 << 8 * column.size) - 1
