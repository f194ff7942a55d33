# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Group matching entries, as the option `group_by` requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Iterable, Mapping, Sequence

from ..client.dump.group_keys import GroupKey, parse_group_by
from ..client.dump.groups import Groups, measures
from ..client.entry.entry import Entry
from ..client.entry.labels import LabelMap
from ..client.errors import InvalidValue, quoted
from ..client.match.match import Match
from ..client.table_reader import TableReader

if TYPE_CHECKING:
    from ..client.entry.nested import Document

#: The numbers of a group by which groups can be sorted. Rates are further ones.
ORDERS = ("flows", "bytes", "packets")


def parse_groupings(raw: Sequence[Any], labels: LabelMap) -> list[tuple[GroupKey, ...]]:
    """Parse one list of keys, or a list of such lists. Raises `InvalidValue`."""
    if any(isinstance(item, (list, tuple)) for item in raw):
        return [parse_group_by(keys, f"group_by[{number}]", labels) for number, keys in enumerate(raw)]
    return [parse_group_by(raw, "group_by", labels)]


class GroupedResult:
    """Reads entries, and returns the result of a module that shows groups instead of entries.

    `params` are the options `group_by`, `sort_by`, `reverse`, `limit` and `table` of the module. `measure` returns the
    numbers that an entry adds to its group, with those in `rates`. By default, groups are sorted by the first rate.

    Raises `InvalidValue`.
    """

    def __init__(
        self,
        params: Mapping[str, Any],
        labels: LabelMap,
        rates: Sequence[str] = (),
        measure: Callable[[Any], Mapping[str, float]] = measures,
    ) -> None:
        if params["table"] == "expect":
            raise InvalidValue("group_by", "expectations cannot be grouped; leave out group_by or table")
        if params["reverse"]:
            raise InvalidValue("reverse", "the largest groups always come first; leave out reverse or group_by")
        self._keys = parse_group_by(params["group_by"], "group_by", labels)
        self._measure = measure
        self._limit = params["limit"]
        orders = (*rates, *ORDERS)
        self._order = params["sort_by"] or orders[0]
        if self._order not in orders:
            raise InvalidValue(
                "sort_by", f"{quoted(self._order)} is not an order of groups; write one of {', '.join(orders)}"
            )
        if self._order in ("bytes", "packets"):
            from ..client.host.sysctl import check_recorded

            check_recorded(frozenset({"accounting"}), "sort_by")

    def of_table(self, table: TableReader, match: Match) -> Document:
        """Group the matching entries of a table."""
        groups = Groups(self._keys)
        table.scan(groups, match.where)
        return self._present(groups)

    def of_entries(self, entries: Iterable[Entry]) -> Document:
        """Group entries that are already decoded."""
        groups = Groups(self._keys)
        for entry in entries:
            groups.add_measures(entry, self._measure(entry))
        return self._present(groups)

    def _present(self, groups: Groups) -> Document:
        found = groups.as_document(self._limit, self._order)
        return {"entries": [], "matched": groups.matched(), "truncated": "other" in found, **found}
