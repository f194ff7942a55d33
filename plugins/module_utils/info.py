# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what matches, in an order, up to a limit."""

from __future__ import annotations

import heapq
from typing import Any, Callable, Iterable, Iterator

from .client.attributes import ENTRY
from .client.entry import Entry
from .client.errors import InvalidValue
from .client.labels import LabelMap
from .client.match import Match
from .client.shape import Document, present
from .client.table import Table

#: The parts of the kernel's tables that can be read, by the name of the option.
TABLES: dict[str, Callable[[Table], Iterator[Entry]]] = {
    "conntrack": Table.dump,
    "dying": Table.dying,
    "unconfirmed": Table.unconfirmed,
}

_SORTABLE = {row.key for row in ENTRY if not row.key.endswith("_mask")} | {"family"}


def _total(what: str) -> Callable[[Entry], Any]:
    keys = (f"counters.original.{what}", f"counters.reply.{what}")
    return lambda entry: None if keys[0] not in entry else sum(entry.get(key, 0) for key in keys)


def sort_key(name: str) -> Callable[[Entry], Any]:
    """What to order entries by: a key of theirs, or `bytes` or `packets` of both directions."""
    if name in ("bytes", "packets"):
        return _total(name)
    key = {"protocol": "original.protocol"}.get(name, name)
    if key not in _SORTABLE:
        raise InvalidValue(
            "sort_by",
            f"{name!r} is no key to sort by; write one such as timeout, mark, original.source, "
            "original.destination_port, bytes or packets",
        )
    return lambda entry: entry.get(key)


def collect(
    entries: Iterable[Entry],
    match: Match,
    sort_by: str | None,
    reverse: bool,
    limit: int,
    labels: LabelMap,
) -> Document:
    """`{"entries": […], "matched": …, "truncated": …}`; no more than `limit` are kept in memory.

    Entries without the key to sort by come last.
    """
    matched = 0

    def matching() -> Iterator[Entry]:
        nonlocal matched
        for entry in entries:
            if match(entry):
                matched += 1
                yield entry

    kept = list(_first(matching(), limit)) if sort_by is None else _sorted(matching(), sort_by, reverse, limit)
    return {
        "entries": [present(entry, labels) for entry in kept],
        "matched": matched,
        "truncated": matched > len(kept),
    }


def _first(entries: Iterable[Entry], limit: int) -> Iterator[Entry]:
    for number, entry in enumerate(entries):
        if number < limit:
            yield entry


def _sorted(entries: Iterable[Entry], sort_by: str, reverse: bool, limit: int) -> list[Entry]:
    key = sort_key(sort_by)

    def order(entry: Entry) -> Any:
        value = key(entry)
        size = len(value) if isinstance(value, bytes) else 0  # families apart
        known = value is not None
        return (known is reverse, (size, value) if known else ())

    choose = heapq.nlargest if reverse else heapq.nsmallest
    return choose(limit, entries, key=order)
