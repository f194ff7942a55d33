# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Zero the counters of what matches, and lose no count on the way.

The kernel reads and resets a counter at once, so the values given are the ones that were reset.
Where everything is meant, one dump does it; else the table is read first and each entry that
matches is zeroed by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterable, Iterator

from .client import settings
from .client.attributes import ENTRY as ATTRIBUTES
from .client.attributes import KEY
from .client.entry import Entry, describe
from .client.errors import ConntrackError, KernelError, NotFound, ResultUnknown
from .client.labels import LabelMap
from .client.match import EVERYTHING, Match
from .client.table import Table
from .failure import Failed

if TYPE_CHECKING:
    from .client.document import Document

_DIRECTIONS = ("original", "reply")
_UNITS = ("packets", "bytes")
_KEYS = ("family", "id", *(row.key for row in ATTRIBUTES if row.use & KEY))
_COUNTERS = tuple(f"counters.{direction}.{unit}" for direction in _DIRECTIONS for unit in _UNITS)


class ZeroingFailed(Failed):
    """Not all counters were zeroed."""


class _Tally:
    """What was zeroed: how many entries, the sum of their counters, and the first of them."""

    def __init__(self, report_limit: int) -> None:
        self.matched = self.zeroed = self.gone = 0
        self.shown: list[Entry] = []
        self._sums = dict.fromkeys(_COUNTERS, 0)
        self._report_limit = report_limit

    def add(self, entry: Entry) -> None:
        self.zeroed += 1
        for key in _COUNTERS:
            self._sums[key] += entry.get(key, 0)
        if len(self.shown) < self._report_limit:
            self.shown.append(entry)

    def as_document(self, labels: LabelMap) -> Document:
        return {
            "changed": self.zeroed > 0,
            "matched": self.matched,
            "zeroed": self.zeroed,
            "gone": self.gone,
            "total": {
                direction: {unit: self._sums[f"counters.{direction}.{unit}"] for unit in _UNITS}
                for direction in _DIRECTIONS
            },
            "entries": self._presented(labels),
        }

    def _presented(self, labels: LabelMap) -> list[Document]:
        if not self.shown:
            return []
        from .client.shape import present

        return [present(entry, labels) for entry in self.shown]


def check_accounting() -> None:
    """`ConntrackError` where the kernel counts nothing in this namespace."""
    if settings.read("accounting") == 0:
        raise ConntrackError(
            "Accounting is off, so there is nothing to zero; turn it on with conntrack_settings "
            "(accounting: true, net.netfilter.nf_conntrack_acct=1). It counts for connections that begin after that"
        )


def has_counted(entry: Entry) -> bool:
    """Whether a counter of the entry is above zero."""
    return any(entry.get(key) for key in _COUNTERS)


def zero(table: Table, match: Match, report_limit: int, labels: LabelMap, check_mode: bool) -> Document:
    """Zero the counters of the entries that match and return what they were, as a module's result.

    Raises `ZeroingFailed` where the kernel refused some, after all others, and where the answer
    that had an entry's counts was lost.
    """
    tally = _Tally(report_limit)
    everything = match is EVERYTHING
    found = table.dump(zero=everything and not check_mode, where=match.where)
    failures: list[KernelError] = []
    if check_mode:
        for entry in _counted(found, tally):
            tally.add(entry)
    elif everything:
        try:
            for entry in _counted(found, tally):
                tally.add(entry)
        except ConntrackError as error:
            raise ZeroingFailed(
                f"{error}. What had been zeroed until then is in the result", tally.as_document(labels)
            ) from error
    else:
        failures = _zero_each(table, [_key_of(entry) for entry in _counted(found, tally)], tally)
    result = tally.as_document(labels)
    if failures:
        unknown = sum(isinstance(error, ResultUnknown) for error in failures)
        lost = f" The counts of {unknown} of them may be zeroed and lost." if unknown else ""
        raise ZeroingFailed(
            f"{len(failures)} of {len(failures) + tally.zeroed} entries were not zeroed, the first because: "
            f"{failures[0]}.{lost}",
            result,
        )
    result["diff"] = {
        "before": "".join(sorted(map(_line, tally.shown))),
        "after": "".join(sorted(_line({**entry, **dict.fromkeys(_COUNTERS, 0)}) for entry in tally.shown)),
    }
    return result


def _counted(entries: Iterable[Entry], tally: _Tally) -> Iterator[Entry]:
    for entry in entries:
        tally.matched += 1
        if has_counted(entry):
            yield entry


def _key_of(entry: Entry) -> Entry:
    """What a request has to say of an entry; there may be a million of them."""
    return {key: entry[key] for key in _KEYS if key in entry}


def _zero_each(table: Table, entries: list[Entry], tally: _Tally) -> list[KernelError]:
    failures: list[KernelError] = []
    for answer in table.zero_all(entries):
        if isinstance(answer, NotFound):
            tally.gone += 1
        elif isinstance(answer, KernelError):
            failures.append(answer)
        else:
            tally.add(answer)
    return failures


def _line(entry: Entry) -> str:
    counts = "; ".join(
        f"{direction} {entry.get(f'counters.{direction}.packets', 0)} packets "
        f"{entry.get(f'counters.{direction}.bytes', 0)} bytes"
        for direction in _DIRECTIONS
    )
    return f"{describe(entry)}: {counts}\n"
