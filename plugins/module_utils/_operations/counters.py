# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Zero the counters of matching entries without losing a count.

The kernel reads and resets a counter in one step, so the values returned are the values that were reset. Without a
match, one dump resets all counters. With a match, the table is read first, and then each matching entry is zeroed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterable, Iterator

from ..client.codec.attributes import ENTRY as ATTRIBUTES
from ..client.codec.attributes import KEY
from ..client.entry.entry import Entry, describe, to_documents
from ..client.entry.labels import LabelMap
from ..client.errors import ConntrackError, KernelError, NotFound, PartialFailure, ResultUnknown
from ..client.host import sysctl
from ..client.match.match import Match
from ..client.table import Table

if TYPE_CHECKING:
    from ..client.entry.nested import Document

_DIRECTIONS = ("original", "reply")
_UNITS = ("packets", "bytes")
_KEYS = ("family", "id", *(row.key for row in ATTRIBUTES if row.use & KEY))
_COUNTERS = tuple(f"counters.{direction}.{unit}" for direction in _DIRECTIONS for unit in _UNITS)


class ZeroingFailed(PartialFailure):
    """Not all counters were zeroed."""


class _Tally:
    """The entries that were zeroed: their number, the sums of their counters, and the first `report_limit` entries."""

    def __init__(self, report_limit: int) -> None:
        self.matched = self.zeroed = self.gone = 0
        #: The number of entries without counters, which were created before accounting was turned on.
        self.uncounted = 0
        #: The number of entries that were not zeroed, and of those whose answer was lost.
        self.failed = self.unknown = 0
        #: The first error: there can be a million.
        self.failure: KernelError | None = None
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
            "uncounted": self.uncounted,
            "total": {
                direction: {unit: self._sums[f"counters.{direction}.{unit}"] for unit in _UNITS}
                for direction in _DIRECTIONS
            },
            "entries": to_documents(self.shown, labels),
        }


def check_accounting() -> None:
    """Raise `ConntrackError` if accounting is off in this namespace."""
    if sysctl.read("accounting") == 0:
        raise ConntrackError(
            "Accounting is off, so there is nothing to zero; turn it on with conntrack_settings "
            "(accounting: true, net.netfilter.nf_conntrack_acct=1). It applies to connections that begin afterwards"
        )


def warnings_of(result: Document) -> list[str]:
    """Return a sentence if entries have no counters."""
    count = result["uncounted"]
    if not count:
        return []
    entries = "1 matching entry has" if count == 1 else f"{count} matching entries have"
    why = "because the kernel counts only connections that began after accounting was turned on"
    return [f"{entries} no counters, {why}; total does not include them"]


def has_counted(entry: Entry) -> bool:
    """Return whether a counter of the entry is above zero."""
    return any(entry.get(key) for key in _COUNTERS)


def zero(table: Table, match: Match, report_limit: int, labels: LabelMap, check_mode: bool) -> Document:
    """Zero the counters of matching entries and return the module's result, with the counters before.

    Raises `ZeroingFailed` if the kernel refused an entry or an answer with counts was lost, after zeroing the others;
    if a dump that zeroes all counters fails; and if no matching entry has counters and /proc/sys cannot be read.
    """
    tally = _Tally(report_limit)
    everything = match.where is None
    found = table.dump(zero=everything and not check_mode, where=match.where)
    if check_mode or everything:
        try:
            for entry in _counted(found, tally):
                tally.add(entry)
        except ConntrackError as error:
            if check_mode:
                raise
            result = tally.as_document(labels)
            # The kernel may have zeroed entries whose answer was lost, but none if the request was not sent or refused
            refused = isinstance(error, KernelError) and not isinstance(error, ResultUnknown)
            result["changed"] = result["changed"] or not refused
            lost = ". The counts of other entries may be zeroed and lost" if result["changed"] else ""
            raise ZeroingFailed(f"{error}. The result has the counters zeroed before{lost}", result) from error
    else:
        # Only the keys that a request contains, to save memory: there may be a million entries
        keys = [{key: entry[key] for key in _KEYS if key in entry} for entry in _counted(found, tally)]
        _zero_each(table, keys, tally)
    result = tally.as_document(labels)
    if tally.failed:
        lost = f" The counts of {tally.unknown} of them may be zeroed and lost." if tally.unknown else ""
        result["changed"] = result["changed"] or tally.unknown > 0
        raise ZeroingFailed(
            f"{tally.failed} of {tally.failed + tally.zeroed} entries were not zeroed, the first because: "
            f"{tally.failure}.{lost}",
            result,
        )
    _check_known(result)
    result["diff"] = {
        "before": "".join(sorted(map(_line, tally.shown))),
        "after": "".join(sorted(_line({**entry, **dict.fromkeys(_COUNTERS, 0)}) for entry in tally.shown)),
    }
    return result


def _check_known(result: Document) -> None:
    """Raise `ZeroingFailed` if no matching entry has counters and /proc does not show whether accounting is on."""
    if 0 < result["matched"] == result["uncounted"] and sysctl.read("accounting") is None:
        try:
            sysctl.check_mounted()
        except ConntrackError as error:
            raise ZeroingFailed(
                "None of the matching entries has counters, so none was zeroed. Whether accounting is on is unknown: "
                f"{error}",
                result,
            ) from error


def _counted(entries: Iterable[Entry], tally: _Tally) -> Iterator[Entry]:
    for entry in entries:
        tally.matched += 1
        if has_counted(entry):
            yield entry
        elif _COUNTERS[0] not in entry:
            tally.uncounted += 1


def _zero_each(table: Table, entries: list[Entry], tally: _Tally) -> None:
    for answer in table.zero_all(entries):
        if isinstance(answer, NotFound):
            tally.gone += 1
        elif isinstance(answer, KernelError):
            tally.failed += 1
            tally.unknown += isinstance(answer, ResultUnknown)
            tally.failure = tally.failure or answer
        else:
            tally.add(answer)


def _line(entry: Entry) -> str:
    counts = "; ".join(
        f"{direction} {entry.get(f'counters.{direction}.packets', 0)} packets "
        f"{entry.get(f'counters.{direction}.bytes', 0)} bytes"
        for direction in _DIRECTIONS
    )
    return f"{describe(entry)}: {counts}\n"
