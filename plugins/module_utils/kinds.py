# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies in a table, entries or expectations: how one is chosen, named and shown."""

from __future__ import annotations

from typing import Any, Callable, Mapping, NamedTuple

from .client import entry, expectation, match, shape
from .client.attributes import ENTRY, Attribute
from .client.document import Document
from .client.labels import LabelMap
from .client.match import Match
from .client.term import Predicate


class Kind(NamedTuple):
    """One kind; `prefix` is the key of the tuple that a match is about, `ask` makes the predicate of a match."""

    noun: str
    rows: tuple[Attribute, ...]
    prefix: str
    parse_match: Callable[[Any, LabelMap, str], Match]
    ask: Callable[[Match], Predicate]
    describe: Callable[[Mapping[str, Any]], str]
    present: Callable[[Mapping[str, Any], LabelMap], Document]


def _ask_expectation(match: Match) -> Predicate:
    return lambda found: match(expectation.as_entry(found))


def _present_expectation(found: Mapping[str, Any], labels: LabelMap) -> Document:
    return expectation.present(found)


ENTRIES = Kind("entries", ENTRY, "original", match.parse_match, lambda match: match, entry.describe, shape.present)
EXPECTATIONS = Kind(
    "expectations",
    expectation.EXPECTATION,
    "tuple",
    expectation.parse_match,
    _ask_expectation,
    expectation.describe,
    _present_expectation,
)


def kind_of(table: str) -> Kind:
    """What lies in the table that an option names."""
    return EXPECTATIONS if table == "expect" else ENTRIES
