# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read matching entries, sort them, and return them up to a limit."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator

from ..client.entry.entry import Entry
from ..client.entry.labels import LabelMap
from ..client.errors import InvalidValue, quoted
from ..client.match.match import Match
from ..client.table_reader import TableReader
from .resource import ENTRIES, Resource

if TYPE_CHECKING:
    from ..client.entry.nested import Document


def _expectations(table: TableReader, match: Match) -> Iterator[Entry]:
    from ..client.expectation.expectation import dump

    return dump(table, match)


#: Functions that read the matching entries of a table, by the value of the option `table`.
TABLES: dict[str, Callable[[TableReader, Match], Iterator[Entry]]] = {
    "conntrack": lambda table, match: table.dump(where=match.where),
    "expect": _expectations,
    "dying": lambda table, match: filter(match, table.dying()),
    "unconfirmed": lambda table, match: filter(match, table.unconfirmed()),
}

#: Keys that the kernel omits when they are zero.
_ABSENT_IS_ZERO = ("zone", "mark", "labels")
#: Keys of the address translation, which are derived from other keys.
_TRANSLATED = tuple(f"nat.{end}.{what}" for end in ("source", "destination") for what in ("address", "port"))
#: The ends of keys that no document contains. They are not sort keys.
_UNSEEN = ("_mask", "_min", "_max")

#: The recording (`accounting` or `timestamps`) that a sort key needs, by the first part of the key.
_NEEDS = {"bytes": "accounting", "packets": "accounting", "counters": "accounting", "timestamps": "timestamps"}


def sort_key(name: str, resource: Resource = ENTRIES) -> Callable[[Entry], Any]:
    """Return the sort function for a key of an entry, or for `bytes` or `packets` of both directions.

    Raises `InvalidValue` for any other name.
    """
    if name in resource.sort_keys:
        return resource.sort_keys[name]
    if name in ("bytes", "packets") and resource.rows is ENTRIES.rows:
        keys = (f"counters.original.{name}", f"counters.reply.{name}")
        return lambda entry: None if keys[0] not in entry else sum(entry.get(key, 0) for key in keys)
    if resource.rows is ENTRIES.rows and name in _TRANSLATED:
        from ..client.entry.nat import translations

        _nat, end, what = name.split(".")
        return lambda entry: getattr(translations(entry).get(end), what, None)
    key = f"{resource.prefix}.protocol" if name == "protocol" else name
    if key != "family" and (key.endswith(_UNSEEN) or all(row.key != key for row in resource.rows)):
        more = ", mark, bytes or packets" if resource.rows is ENTRIES.rows else " or helper"
        raise InvalidValue(
            "sort_by",
            f"{quoted(name)} is not a key to sort by; write one such as timeout, {resource.prefix}.source, "
            f"{resource.prefix}.destination_port{more}",
        )
    absent = 0 if key in _ABSENT_IS_ZERO else None
    return lambda entry: entry.get(key, absent)


def check_order(sort_by: str | None, resource: Resource = ENTRIES) -> None:
    """Raise `InvalidValue` for an unknown sort key, and for one that the kernel does not record in this namespace."""
    if sort_by is None:
        return
    sort_key(sort_by, resource)
    need = _NEEDS.get(sort_by.partition(".")[0])
    if need is not None and resource.rows is ENTRIES.rows:
        from ..client.host.sysctl import check_recorded

        check_recorded(frozenset({need}), "sort_by")


def collect(
    entries: Iterable[Entry],
    sort_by: str | None,
    reverse: bool,
    limit: int,
    labels: LabelMap,
    resource: Resource = ENTRIES,
) -> Document:
    """Return `{"entries": […], "matched": …, "truncated": …}`. No more than `limit` entries are kept in memory.

    Entries without the sort key come last.
    """
    matched = 0
    key = None if sort_by is None else sort_key(sort_by, resource)

    def counted() -> Iterator[Entry]:
        nonlocal matched
        for entry in entries:
            matched += 1
            yield entry

    kept = list(_first(counted(), limit)) if key is None else _sorted(counted(), key, reverse, limit)
    return {
        "entries": resource.to_documents(kept, labels),
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
        size = len(value) if isinstance(value, bytes) else 0  # keep the families separate
        known = value is not None
        return (known is reverse, (size, value) if known else ())

    choose = heapq.nlargest if reverse else heapq.nsmallest
    return choose(max(limit, 1), entries, key=order)[:limit]  # heapq would not read the entries for a limit of 0
