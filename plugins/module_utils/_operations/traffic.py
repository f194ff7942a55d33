# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read groups of entries, and entries with their rates, as the options `group_by` and `interval` request."""

from __future__ import annotations

import time
from operator import methodcaller
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping, Sequence

from ..client.dump.groups import measures
from ..client.dump.rates import COUNTERS, CounterReading, RatedEntry
from ..client.entry.labels import LabelMap
from ..client.errors import InvalidValue
from ..client.match.expression import immutable_part
from ..client.match.match import Match
from ..client.table_reader import TableReader
from .groups import GroupedResult
from .info import TABLES, check_order, collect
from .resource import ENTRIES, Resource

if TYPE_CHECKING:
    from ..client.entry.nested import Document

#: The names of rates as sort keys and as numbers of groups, and what they are rates of.
RATES = {f"{what}_per_second": what for what in COUNTERS}
#: The longest interval in seconds.
LONGEST = 3600


def _check_interval(params: Mapping[str, Any]) -> None:
    """Raise `InvalidValue` for options that do not fit the interval, and if the kernel does not count bytes here."""
    seconds: int = params["interval"]
    if not 1 <= seconds <= LONGEST:
        raise InvalidValue("interval", f"{seconds} is out of range; write a number of seconds from 1 to {LONGEST}")
    if params["table"] != "conntrack":
        raise InvalidValue("interval", f"table {params['table']} has no rates; leave out interval or table")
    if params["stale"]:
        raise InvalidValue("interval", "rates of stale entries cannot be read; leave out interval or stale")
    from ..client.host.sysctl import check_recorded

    check_recorded(frozenset({"accounting"}), "interval")


def read_rates(
    table: TableReader, match: Match, seconds: float, wait: Callable[[float], object] = time.sleep
) -> Iterator[RatedEntry]:
    """Read entries twice, and yield those that match the second time with their rates. Needs accounting.

    An entry may begin to match in between, for example by its state. The first reading therefore contains all entries
    that could match.
    """
    first = CounterReading()
    began = time.monotonic()
    table.scan(first, None if match.where is None else immutable_part(match.where))
    wait(max(0.0, began + seconds - time.monotonic()))
    for entry in table.dump(where=match.where):
        yield first.rated(entry)


def _measures_with_rates(entry: RatedEntry) -> dict[str, float]:
    """Return what an entry adds to its group."""
    return {**measures(entry), **{name: entry.total(what) for name, what in RATES.items()}}


def _to_documents(entries: Sequence[Mapping[str, Any]], labels: LabelMap) -> list[Document]:
    documents = ENTRIES.to_documents(entries, labels)
    for document, entry in zip(documents, entries):
        rates: dict[str, dict[str, float]] = entry.rate  # type: ignore[attr-defined]
        document["rate"] = {
            direction: {what: round(number, 1) for what, number in rate.items()} for direction, rate in rates.items()
        }
    return documents


#: Entries with their rates as a resource.
RATED_ENTRIES: Resource = ENTRIES._replace(
    to_documents=_to_documents, sort_keys={name: methodcaller("total", what) for name, what in RATES.items()}
)


def read_traffic(
    params: Mapping[str, Any],
    match: Match,
    labels: LabelMap,
    stale: Sequence[str],
    ruleset: str | None,
) -> Document:
    """Return the result of `conntrack_info` with its option `group_by`, `interval` or both. Raises `InvalidValue`."""
    with_rates, grouped = params["interval"] is not None, params["group_by"] is not None
    resource = RATED_ENTRIES
    if params["owner"]:
        if grouped:
            raise InvalidValue("owner", "groups have no owner; leave out owner or group_by")
        from .owner import with_owners

        resource = with_owners(resource)
    if with_rates:
        _check_interval(params)
    if grouped:
        result = GroupedResult(params, labels, *((tuple(RATES), _measures_with_rates) if with_rates else ()))
    else:
        check_order(params["sort_by"], resource)
    with TableReader() as table:
        if with_rates:
            entries = read_rates(table, match, params["interval"])
            if grouped:
                return result.of_entries(entries)
            sort_by, reverse = params["sort_by"], params["reverse"]
            if sort_by is None:
                sort_by, reverse = next(iter(RATES)), True
            return collect(entries, sort_by, reverse, params["limit"], labels, resource)
        if stale:
            from .stale import StaleFilter

            with StaleFilter(table, stale, ruleset) as judge:
                found = result.of_entries(judge.scan(match))
                return {**found, "verdicts": judge.counts(), "warnings": judge.warnings()}
        if params["table"] == "conntrack":
            return result.of_table(table, match)
        return result.of_entries(TABLES[params["table"]](table, match))
