# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what matches, in an order, up to a limit."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator

from .client.entry import Entry
from .client.errors import InvalidValue
from .client.labels import LabelMap
from .client.match import Match
from .client.table import Table
from .kinds import ENTRIES, EXPECTATIONS, Kind

if TYPE_CHECKING:
    from .client.document import Document


def _expectations(table: Table, match: Match) -> Iterator[Entry]:
    from .client.expectation import located, read_all

    return filter(EXPECTATIONS.ask(match), located(table, read_all(table)))


#: How what matches is read from the kernel's tables, by the name of the option.
TABLES: dict[str, Callable[[Table, Match], Iterator[Entry]]] = {
    "conntrack": lambda table, match: table.dump(where=match.where),
    "expect": _expectations,
    "dying": lambda table, match: filter(match, table.dying()),
    "unconfirmed": lambda table, match: filter(match, table.unconfirmed()),
}

#: What an entry has always, though the kernel shows it only where it is not zero.
_ABSENT_IS_ZERO = ("zone", "mark", "labels")
#: Not of a document, and so nothing to sort by.
_UNSEEN = ("mark_mask", "status_mask", "labels_mask")


def _total(what: str) -> Callable[[Entry], Any]:
    keys = (f"counters.original.{what}", f"counters.reply.{what}")
    return lambda entry: None if keys[0] not in entry else sum(entry.get(key, 0) for key in keys)


def sort_key(name: str, kind: Kind = ENTRIES) -> Callable[[Entry], Any]:
    """What to order entries by: a key of theirs, or `bytes` or `packets` of both directions."""
    if name in ("bytes", "packets") and kind is ENTRIES:
        return _total(name)
    key = f"{kind.prefix}.protocol" if name == "protocol" else name
    if key != "family" and (key in _UNSEEN or all(row.key != key for row in kind.rows())):
        more = ", mark, bytes or packets" if kind is ENTRIES else " or helper"
        raise InvalidValue(
            "sort_by",
            f"{name!r} is no key to sort by; write one such as timeout, {kind.prefix}.source, "
            f"{kind.prefix}.destination_port{more}",
        )
    absent = 0 if key in _ABSENT_IS_ZERO else None
    return lambda entry: entry.get(key, absent)


def collect(
    entries: Iterable[Entry],
    sort_by: str | None,
    reverse: bool,
    limit: int,
    labels: LabelMap,
    kind: Kind = ENTRIES,
) -> Document:
    """`{"entries": […], "matched": …, "truncated": …}` of entries that match; no more than `limit` are kept in memory.

    Entries without the key to sort by come last.
    """
    matched = 0
    key = None if sort_by is None else sort_key(sort_by, kind)

    def counted() -> Iterator[Entry]:
        nonlocal matched
        for entry in entries:
            matched += 1
            yield entry

    kept = list(_first(counted(), limit)) if key is None else _sorted(counted(), key, reverse, limit)
    return {
        "entries": [kind.present(entry, labels) for entry in kept],
        "matched": matched,
        "truncated": matched > len(kept),
    }


def _first(entries: Iterable[Entry], limit: int) -> Iterator[Entry]:
    for number, entry in enumerate(entries):
        if number < limit:
            yield entry


def _sorted(entries: Iterable[Entry], key: Callable[[Entry], Any], reverse: bool, limit: int) -> list[Entry]:
    def order(entry: Entry) -> Any:
        value = key(entry)
        size = len(value) if isinstance(value, bytes) else 0  # families apart
        known = value is not None
        return (known is reverse, (size, value) if known else ())

    choose = heapq.nlargest if reverse else heapq.nsmallest
    return choose(max(limit, 1), entries, key=order)[:limit]  # for none at all they would not be read
