# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies in a table, entries or expectations: how one is chosen, named and shown.

What expectations are is imported only where they are asked for, and how an entry is shown only where
there is one to show: a target compiles every import of every task anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Mapping, NamedTuple

from .client.attributes import ENTRY, Attribute
from .client.entry import describe
from .client.labels import LabelMap
from .client.match import Match, parse_match
from .client.term import Predicate

if TYPE_CHECKING:
    from .client.document import Document


class Kind(NamedTuple):
    """One kind; `prefix` is the key of the tuple that a match is about, `ask` makes the predicate of a match."""

    noun: str
    rows: Callable[[], tuple[Attribute, ...]]
    prefix: str
    parse_match: Callable[[Any, LabelMap, str], Match]
    ask: Callable[[Match], Predicate]
    describe: Callable[[Mapping[str, Any]], str]
    present: Callable[[Mapping[str, Any], LabelMap], Document]


def _present_entry(entry: Mapping[str, Any], labels: LabelMap) -> Document:
    from .client.shape import present

    return present(entry, labels)


def _rows_of_expectations() -> tuple[Attribute, ...]:
    from .client.expectation import EXPECTATION

    return EXPECTATION


def _match_of_expectations(raw: Any, labels: LabelMap, key: str) -> Match:
    from .client.expectation import parse_match

    return parse_match(raw, labels, key)


def _ask_expectation(match: Match) -> Predicate:
    from .client.expectation import as_entry

    return lambda found: match(as_entry(found))


def _describe_expectation(expectation: Mapping[str, Any]) -> str:
    from .client.expectation import describe

    return describe(expectation)


def _present_expectation(expectation: Mapping[str, Any], labels: LabelMap) -> Document:
    from .client.expectation import present

    return present(expectation)


ENTRIES = Kind("entries", lambda: ENTRY, "original", parse_match, lambda match: match, describe, _present_entry)
EXPECTATIONS = Kind(
    "expectations",
    _rows_of_expectations,
    "tuple",
    _match_of_expectations,
    _ask_expectation,
    _describe_expectation,
    _present_expectation,
)


def kind_of(table: str) -> Kind:
    """What lies in the table that an option names."""
    return EXPECTATIONS if table == "expect" else ENTRIES
