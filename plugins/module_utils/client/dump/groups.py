# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Count entries, and sum up their bytes and packets, in groups by one or more keys."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from itertools import repeat
from operator import add
from typing import Any, Callable, Iterable, Mapping, NamedTuple, Sequence

from ..codec.codec import Values
from ..codec.layout import MessageLayout
from ..entry.entry import Entry
from .group_keys import GroupKey
from .heavy_hitters import HeavyHitters
from .scan import Action, Visitor

#: The maximum number of groups whose numbers are exact.
CAPACITY = 1 << 16
#: The maximum number of combinations of values of one layout that are counted before they are added to the groups.
_PENDING = 1 << 14
#: The counters of an entry that a measure adds up.
_COUNTERS = {what: (f"counters.original.{what}", f"counters.reply.{what}") for what in ("bytes", "packets")}
_COUNTER_KEYS = tuple(key for keys in _COUNTERS.values() for key in keys)

#: The values of the keys of a group, in the order of the keys.
Group = Sequence[Any]


def measures(entry: Mapping[str, Any]) -> dict[str, int]:
    """Return what an entry adds to its group."""
    added = {"flows": 1}
    for what, keys in _COUNTERS.items():
        if keys[0] in entry:
            added[what] = sum(entry.get(key, 0) for key in keys)
    return added


class _Pending(NamedTuple):
    """The sums of messages of one layout by raw values, for each measure, and what makes groups of these values."""

    sums: dict[str, dict[tuple[Any, ...], int]]
    groups: Callable[[Sequence[tuple[Any, ...]]], Iterable[Group]]


class Groups(Visitor):
    """Groups the entries passed to `add` or visited by a scan.

    The numbers of up to `CAPACITY` groups are exact. With more groups they are too low by at most `uncertainty`, for
    each measure, and no group that has more than that is missing.
    """

    def __init__(self, keys: Sequence[GroupKey]) -> None:
        self._keys = keys
        self._needs = frozenset(need for key in keys for need in key.needs)
        self._totals: defaultdict[str, HeavyHitters] = defaultdict(lambda: HeavyHitters(CAPACITY))
        self._sums: defaultdict[str, float] = defaultdict(int)
        self._pending: list[_Pending] = []

    def on(self, layout: MessageLayout) -> Action:
        names, read = layout.part((*self._needs, *_COUNTER_KEYS))
        places = [place for place, name in enumerate(names) if name in self._needs]
        needed = [names[place] for place in places]
        counted = {
            what: [names.index(key) for key in keys] for what, keys in _COUNTERS.items() if set(keys) <= set(names)
        }
        if not counted:
            _names, read = layout.part(self._needs)
            if [key.needs if key.value is None else None for key in self._keys] == [(name,) for name in needed]:
                return self._count_rows(read, layout.size)
        sums: dict[str, dict[tuple[Any, ...], int]] = {what: defaultdict(int) for what in counted}
        flows = sums["flows"] = Counter()
        pending = _Pending(sums, self._grouping(layout, needed))
        self._pending.append(pending)

        def count(data: bytes) -> None:
            flows.update(read(data))
            if len(flows) > _PENDING:
                self._merge(pending)

        def add_up(data: bytes) -> None:
            columns = list(zip(*read(data)))
            groups = list(zip(*map(columns.__getitem__, places))) if places else [()] * len(columns[0])
            flows.update(groups)
            for what, (original, reply) in counted.items():
                total = sums[what]
                for group, number in zip(groups, map(add, columns[original], columns[reply])):
                    total[group] += number
            if len(flows) > _PENDING:
                self._merge(pending)

        return add_up if counted else count

    def _count_rows(self, read: Callable[[bytes], Iterable[Group]], size: int) -> Action:
        """Return an action for messages of one size. The rows that it reads are the groups, without a conversion."""
        total = self._totals["flows"]

        def count(data: bytes) -> None:
            total.counts.update(read(data))
            self._sums["flows"] += len(data) // size
            total.tidy()

        return count

    def _grouping(
        self, layout: MessageLayout, names: Sequence[str]
    ) -> Callable[[Sequence[tuple[Any, ...]]], Iterable[Group]]:
        """Return a function that converts values of `names` to groups, a column at a time."""
        same: Values = {need: layout.constants[need] for need in self._needs if need in layout.constants}
        converters = [_converter(key, same, names) for key in self._keys]

        def groups(rows: Sequence[tuple[Any, ...]]) -> Iterable[Group]:
            columns = list(zip(*rows))
            return zip(*[convert(columns, len(rows)) for convert in converters])

        return groups

    def _merge(self, pending: _Pending) -> None:
        rows = list(pending.sums["flows"])
        if not rows:
            return
        groups = list(pending.groups(rows))
        for what, sums in pending.sums.items():
            self._add_up(what, groups, map(sums.__getitem__, rows))
        for sums in pending.sums.values():
            sums.clear()

    def _merge_all(self) -> None:
        for pending in self._pending:
            self._merge(pending)

    def _add_up(self, what: str, groups: Sequence[Group], numbers: Iterable[float]) -> None:
        total = self._totals[what]
        counts: dict[Group, Any] = total.counts
        number_of = counts.get
        added: float = 0
        for group, number in zip(groups, numbers):
            counts[group] = number_of(group, 0) + number
            added += number
        self._sums[what] += added
        total.tidy()

    def matched(self) -> int:
        """Return the number of entries that were grouped."""
        self._merge_all()
        return int(self._sums["flows"])

    def flows(self) -> Mapping[Group, int]:
        """Return the number of flows by the values of the keys, which `GroupKey.present` converts."""
        self._merge_all()
        return self._totals["flows"].counts

    def add(self, entry: Entry) -> None:
        self.add_measures(entry, measures(entry))

    def add_measures(self, entry: Entry, added: Mapping[str, float]) -> None:
        """Add numbers to the group of an entry."""
        group = tuple(key.of(entry) for key in self._keys)
        for what, number in added.items():
            self._add_up(what, (group,), (number,))

    def as_document(self, most: int, order: str = "flows") -> dict[str, Any]:
        """Return `{"groups": [{"source": "10.0.0.1", …, "flows": 4, "bytes": 900, "packets": 9}], …}`.

        These are the `most` groups that have the most of `order`, one of the measures. `other` has the sums of all
        others, if there are any. `uncertainty` is included for each measure that is not exact.
        """
        self._merge_all()
        chosen: Mapping[Group, float] = self._totals["flows"].counts
        if order != "flows" and order in self._totals:  # groups without counters come last
            chosen = {**dict.fromkeys(chosen, 0), **self._totals[order].counts}
        ranked = heapq.nsmallest(most, chosen, key=lambda group: (-chosen[group], *map(sort_key, group)))
        shown = {what: [total.counts.get(group, 0) for group in ranked] for what, total in self._totals.items()}
        others = {what: _rounded(self._sums[what] - sum(numbers)) for what, numbers in shown.items()}
        document: dict[str, Any] = {
            "groups": [
                {
                    **{key.name: key.present(value) for key, value in zip(self._keys, group)},
                    **dict(zip(shown, map(_rounded, numbers))),
                }
                for group, *numbers in zip(ranked, *shown.values())
            ]
        }
        if any(others.values()) or len(ranked) < len(chosen):
            document["other"] = others
        inexact = {what: _rounded(total.uncertainty) for what, total in self._totals.items() if total.uncertainty}
        if inexact:
            document["uncertainty"] = inexact
        return document


def _converter(
    key: GroupKey, same: Values, names: Sequence[str]
) -> Callable[[Sequence[Sequence[Any]], int], Iterable[Any]]:
    """Return a function that takes the columns of rows, and their number, and returns the values of a key."""
    places = [names.index(need) for need in key.needs if need in names]
    if not places:
        value = key.of(same)
        return lambda columns, count: repeat(value, count)
    if key.value is None:
        return lambda columns, count: columns[places[0]]
    needs = [names[place] for place in places]

    def convert(columns: Sequence[Sequence[Any]], count: int) -> Iterable[Any]:
        column = list(zip(*map(columns.__getitem__, places)))
        values = {raw: key.of({**same, **dict(zip(needs, raw))}) for raw in set(column)}
        return map(values.__getitem__, column)

    return convert


def _rounded(number: float) -> float:
    return number if isinstance(number, int) else round(number, 1)


def sort_key(value: Any) -> tuple[Any, ...]:
    """Return what to compare values by, for groups with equal numbers. Values of different types stay apart."""
    if value is None:
        return (0,)
    if isinstance(value, int):
        return (1, value)
    if isinstance(value, bytes):
        return (2, len(value), value)
    return (3, str(value))
