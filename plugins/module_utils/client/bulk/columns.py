# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Convert many mappings column by column. Independent of conntrack.

Many entries and documents have the same keys. The values of one key are converted at once, by loops inside the
interpreter, which take a tenth of the time. Unusual items are converted one by one.
"""

from __future__ import annotations

import struct
from itertools import compress, count, islice
from operator import itemgetter, ne
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Sequence

#: The values of each key, by the dotted path of the key.
Columns = Dict[str, List[Any]]

#: Items that are read ahead and converted together.
BATCH = 2048
#: In smaller groups, conversion one by one is as fast.
_FEW = 4


class NotVectorizable(Exception):
    """Raised when a group must be processed one by one; it never leaves a `ColumnTransform`."""


#: Raised by `columns` and `group_by` for values that only `scalar` can process or reject. Any other exception is a
#: defect of the transform and is not caught.
FALLBACK = (NotVectorizable, ValueError, KeyError, TypeError, OverflowError, struct.error, OSError)


class Group(NamedTuple):
    """Items with the same keys, and their places in the batch."""

    places: Sequence[int]
    columns: Columns


class ColumnTransform(NamedTuple):
    """One conversion in two forms with equal results: `scalar` converts an item, `columns` a whole group.

    If `columns` raises one of `FALLBACK`, each item of the group goes through `scalar`, which reports what is wrong.
    Items of a group have equal values in the columns that `group_by` returns. If `nested`, mappings in the items
    become columns, all values of a column have one type, and the column "" holds the items themselves.
    """

    scalar: Callable[[Any], dict[str, Any]]
    columns: Callable[[Columns], Columns]
    group_by: Callable[[Columns], Iterable[Sequence[Any]]]
    nested: bool = False

    def groups(self, batch: list[Any]) -> Iterator[Group]:
        """Convert the groups of the batch that can be converted as columns."""
        if len(batch) < _FEW:
            return
        for shape in self.group_by_shape(batch):
            try:
                groups = _split(shape, *self.group_by(shape.columns))
            except FALLBACK:
                continue
            for group in groups:
                try:
                    done = self.columns(group.columns)
                except FALLBACK:
                    continue
                yield Group(group.places, done)

    def group_by_shape(self, batch: list[Any]) -> Iterator[Group]:
        """Group items that have the same keys."""
        return _with_equal_keys(batch, self.nested)

    def each(self, things: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """Convert each item, as `map(scalar, things)` does but faster; reads `BATCH` items ahead."""
        for batch in batches(things):
            done: list[dict[str, Any] | None] = [None] * len(batch)
            for places, columns in self.groups(batch):
                keys = tuple(columns)
                for place, row in zip(places, zip(*columns.values())):
                    done[place] = dict(zip(keys, row))
            for thing, result in zip(batch, done):
                yield self.scalar(thing) if result is None else result


class RowTransform(ColumnTransform):
    """The same for rows: each item is a tuple of keys and, in the same order, their values.

    Rows with the same keys share one tuple of keys. All values of a column have one type.
    """

    def group_by_shape(self, batch: list[Any]) -> Iterator[Group]:
        owners = list(map(id, map(itemgetter(0), batch)))
        places: dict[int, list[int]] = {}
        start = 0  # of a run of rows that share their keys
        for stop in [*compress(count(1), map(ne, owners, owners[1:])), len(batch)]:
            places.setdefault(owners[start], []).extend(range(start, stop))
            start = stop
        for members in places.values():
            if len(members) >= _FEW:
                keys = batch[members[0]][0]
                columns = list(map(list, zip(*[batch[place][1] for place in members])))
                if all(len(set(map(type, column))) == 1 for column in columns):
                    yield Group(members, dict(zip(keys, columns)))


def batches(things: Iterable[Any]) -> Iterator[list[Any]]:
    source = iter(things)
    while True:
        batch = list(islice(source, BATCH))
        if not batch:
            return
        yield batch


def _with_equal_keys(things: list[Any], nested: bool) -> Iterator[Group]:
    """Yield groups of items with the same keys."""
    work = [(Group(range(len(things)), {"": things}), [""])]
    while work:
        group, unexpanded = work.pop()
        while unexpanded:
            path = unexpanded.pop()
            column = group.columns[path]
            types = set(map(type, column))
            if types == {dict}:
                found = _expanded(column)
                if found is not None:
                    if found and (path or not nested):
                        del group.columns[path]
                    found = {f"{path}.{name}" if path else name: values for name, values in found.items()}
                    group.columns.update(found)
                    unexpanded.extend(found if nested else ())
                    continue
                parts = _split(group, list(map(tuple, column)))
            elif len(types) > 1:
                parts = _split(group, list(map(type, column)))
            else:
                continue
            work.extend((part, [*unexpanded, path]) for part in parts)
            break
        else:
            if nested or "" not in group.columns:
                yield group


def _expanded(mappings: list[dict[str, Any]]) -> Columns | None:
    """Return the values of mappings by key, or None if their keys differ."""
    if len(set(map(len, mappings))) > 1:
        return None
    try:
        return {name: list(map(itemgetter(name), mappings)) for name in mappings[0]}
    except KeyError:
        return None


def _split(group: Group, *by: Sequence[Any]) -> list[Group]:
    """Split a group by the values of these columns. Parts that are too small are left out."""
    if all(column.count(column[0]) == len(column) for column in by):
        return [group]
    members: dict[tuple[Any, ...], list[int]] = {}
    for index, values in enumerate(zip(*by)):
        members.setdefault(values, []).append(index)
    return [
        Group(
            [group.places[index] for index in indexes],
            {path: [column[index] for index in indexes] for path, column in group.columns.items()},
        )
        for indexes in members.values()
        if len(indexes) >= _FEW
    ]
