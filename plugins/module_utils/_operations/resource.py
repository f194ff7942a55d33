# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Resources: the contents of a table (entries or expectations), and the functions to match, describe and show them.

Only tasks about expectations import the functions for expectations, because each task compiles its imports again.
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
    """A kind of resource. `prefix` is the key of the tuple to which a match applies.

    `sort_keys` has the names of sort keys besides those of the entries, and the functions that return their values.
    """

    noun: str
    prefix: str
    rows: tuple[Attribute, ...]
    parse_match: Callable[[Any, LabelMap, str], Match]
    describe: Callable[[Mapping[str, Any]], str]
    to_documents: Callable[[Sequence[Mapping[str, Any]], LabelMap], list[Document]]
    sort_keys: Mapping[str, Callable[[Any], Any]] = {}


ENTRIES = Resource("entries", "original", ENTRY, parse_match, describe, to_documents)


def resource_of(table: str) -> Resource:
    """Return the resource for a value of the option `table`."""
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
