# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Resources: what a table contains, entries or expectations, and how to choose, name and show one.

The functions of expectations are imported only for tasks about them, and how to show an entry only if there is one to
show: a target compiles every import of every task anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Mapping, NamedTuple

from ..client.codec.attributes import ENTRY, Attribute
from ..client.entry.entry import describe
from ..client.entry.labels import LabelMap
from ..client.match.match import Match, parse_match

if TYPE_CHECKING:
    from ..client.entry.nested import Document


class Resource(NamedTuple):
    """One kind of resource; `prefix` is the key of the tuple that a match is about."""

    noun: str
    prefix: str
    rows: tuple[Attribute, ...]
    parse_match: Callable[[Any, LabelMap, str], Match]
    describe: Callable[[Mapping[str, Any]], str]
    to_document: Callable[[Mapping[str, Any], LabelMap], Document]


def _to_document(entry: Mapping[str, Any], labels: LabelMap) -> Document:
    from ..client.entry.document import to_document

    return to_document(entry, labels)


ENTRIES = Resource("entries", "original", ENTRY, parse_match, describe, _to_document)


def resource_of(table: str) -> Resource:
    """Return the resource in the table that the option `table` names."""
    if table != "expect":
        return ENTRIES
    from ..client.expectation.expectation import EXPECTATION, describe, parse_match, to_document

    return Resource(
        "expectations",
        "tuple",
        EXPECTATION,
        parse_match,
        describe,
        lambda expectation, _labels: to_document(expectation),
    )
