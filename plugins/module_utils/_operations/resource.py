# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Resources: what a table contains, entries or expectations, and how to choose, name and show one.

Only tasks about expectations import the functions for them, since each task compiles its imports anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Mapping, NamedTuple, Sequence

from ..client.codec.attributes import ENTRY, Attribute
from ..client.entry.entry import describe, to_documents
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
    to_documents: Callable[[Sequence[Mapping[str, Any]], LabelMap], list[Document]]


ENTRIES = Resource("entries", "original", ENTRY, parse_match, describe, to_documents)


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
        lambda expectations, _labels: list(map(to_document, expectations)),
    )
