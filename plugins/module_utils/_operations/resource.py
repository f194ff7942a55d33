# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies in a table, entries or expectations: how one is chosen, named and shown.

What expectations are is imported only where they are asked for, and how an entry is shown only where
there is one to show: a target compiles every import of every task anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Mapping, NamedTuple

from ..client.codec.attributes import ENTRY, Attribute
from ..client.entry.entry import describe
from ..client.entry.labels import LabelMap
from ..client.match.expression import EntryTest
from ..client.match.match import Match, parse_match

if TYPE_CHECKING:
    from ..client.entry.nested import Document


class Resource(NamedTuple):
    """One kind; `prefix` is the key of the tuple that a match is about, `ask` makes the predicate of a match."""

    noun: str
    rows: Callable[[], tuple[Attribute, ...]]
    prefix: str
    parse_match: Callable[[Any, LabelMap, str], Match]
    ask: Callable[[Match], EntryTest]
    describe: Callable[[Mapping[str, Any]], str]
    to_document: Callable[[Mapping[str, Any], LabelMap], Document]


def _present_entry(entry: Mapping[str, Any], labels: LabelMap) -> Document:
    from ..client.entry.document import to_document

    return to_document(entry, labels)


def _rows_of_expectations() -> tuple[Attribute, ...]:
    from ..client.expectation.expectation import EXPECTATION

    return EXPECTATION


def _match_of_expectations(raw: Any, labels: LabelMap, key: str) -> Match:
    from ..client.expectation.expectation import parse_match

    return parse_match(raw, labels, key)


def _ask_expectation(match: Match) -> EntryTest:
    from ..client.expectation.expectation import as_entry

    return lambda found: match(as_entry(found))


def _describe_expectation(expectation: Mapping[str, Any]) -> str:
    from ..client.expectation.expectation import describe

    return describe(expectation)


def _present_expectation(expectation: Mapping[str, Any], labels: LabelMap) -> Document:
    from ..client.expectation.expectation import to_document

    return to_document(expectation)


ENTRIES = Resource("entries", lambda: ENTRY, "original", parse_match, lambda match: match, describe, _present_entry)
EXPECTATIONS = Resource(
    "expectations",
    _rows_of_expectations,
    "tuple",
    _match_of_expectations,
    _ask_expectation,
    _describe_expectation,
    _present_expectation,
)


def kind_of(table: str) -> Resource:
    """What lies in the table that an option names."""
    return EXPECTATIONS if table == "expect" else ENTRIES
