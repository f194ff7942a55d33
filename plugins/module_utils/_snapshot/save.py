# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Save the table to a file.

What is read goes to the file at once, some thousand entries at a time, so that a table of any size takes the memory
of a small one. Only entries that have a master wait, in a temporary file: in a snapshot each comes behind its master,
so that a restore has the master when it needs it.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from array import array
from typing import Any, Iterable, Iterator, Mapping

from .._signals import cleanup_on_signal
from ..client.bulk.columns import Columns, batches
from ..client.bulk.records import flat, in_columns, records
from ..client.entry.entry import Entry
from ..client.entry.labels import LabelMap
from ..client.entry.nested import Document
from ..client.errors import NotFound
from ..client.expectation import expectation
from ..client.match.match import EVERYTHING, Match
from ..client.table import Table
from .file import ENTRIES, EXPECTATIONS, Counter, Header, Writer, check_place, is_readable, writing

#: What all records of a block have alike, because it decides which other keys there are.
_ALIKE = ("family", "protocol")
#: Bytes of entries with a master that wait in memory.
_HELD = 4 << 20


def save(table: Table, path: str, match: Match, labels: LabelMap, check_mode: bool) -> Document:
    """Save the entries that match and the expectations of these, and return what was done, as a module's result.

    A new snapshot is always a change. Raises `InvalidValue` where something else is at `path`, and `CannotWrite`;
    what was there is then there still.
    """
    before = check_place(path)
    here = os.uname()
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    header = Header(_readable(here.nodename), _readable(here.release), now, _readable_names(labels))
    if check_mode:
        counter = Counter()
        _write(table, match, counter, records(table.rows(match.where)))
        header = counter.counted(header)._replace(sha256="")
    else:
        with cleanup_on_signal(), Writer(path, header) as writer, _MastersFirst(path) as belonging:
            _write(table, match, writer, belonging.sort(records(table.rows(match.where))))
        header = writer.header
    return {
        "changed": True,
        **header.as_result(),
        "diff": {"before": "" if before is None else before.as_line(), "after": header.as_line()},
    }


def _readable(text: str) -> str:
    """What a host calls itself, in the form in which a header has it: the kernel takes any bytes for a name."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _readable_names(labels: LabelMap) -> dict[str, int]:
    return {name: bit for name, bit in labels.bits.items() if is_readable(name)}


def _write(table: Table, match: Match, writer: Counter, entries: Iterable[Columns]) -> None:
    for columns in entries:
        writer.write(ENTRIES, columns, _ALIKE)
    for columns in in_columns(flat(expectation.to_document(found)) for found in _expectations(table, match)):
        writer.write(EXPECTATIONS, columns, _ALIKE)


def _expectations(table: Table, match: Match) -> Iterator[expectation.Expectation]:
    """Every expectation whose master matches."""
    for found in expectation.located(table, expectation.read_all(table)):
        if match is EVERYTHING or _holds(match, table, expectation.master_of(found)):
            yield {key: value for key, value in found.items() if key != "id"}


def _holds(match: Match, table: Table, wanted: Entry) -> bool:
    try:
        return match(table.get(wanted))
    except NotFound:
        return False


class _MastersFirst:
    """Brings entries that have a master into an order in which each comes behind its own."""

    def __init__(self, path: str) -> None:
        #: Beside this file there is room for those that wait, if there is any for itself.
        self._path = os.path.realpath(path)
        #: Of each, a number for its own tuple and one for that of its master.
        self._own, self._masters = array("q"), array("q")

    def __enter__(self) -> _MastersFirst:
        folder = os.path.dirname(self._path)
        self._file = tempfile.SpooledTemporaryFile(_HELD, "w+", encoding="ascii", dir=folder)
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):  # on a full disk, it cannot even be closed without one
            self._file.close()

    def sort(self, records: Iterable[Columns]) -> Iterator[Columns]:
        """The same records, and those with a master behind all others."""
        for columns in records:
            if "master.source" in columns:
                self._hold(columns)
            else:
                yield columns
        depths = self._depths()
        for depth in sorted(set(depths)):
            with writing(self._path):
                self._file.seek(0)
            for some in batches(json.loads(line) for line, at in zip(self._file, depths) if at == depth):
                yield from in_columns(some)

    def _hold(self, columns: Columns) -> None:
        with writing(self._path):
            for values in zip(*columns.values()):
                record = dict(zip(columns, values))
                self._own.append(_number(record, "original."))
                self._masters.append(_number(record, "master."))
                self._file.write(json.dumps(record) + "\n")

    def _depths(self) -> array[int]:
        """How many masters each has, one above the other, not counting the last, which has none itself."""
        wanted = set(self._masters)
        between = {own: master for own, master in zip(self._own, self._masters) if own in wanted}
        depths = array("L")
        for master in self._masters:
            depth = 0
            while master in between and depth < len(between):  # a record can be its own master only by mischance
                master = between[master]
                depth += 1
            depths.append(depth)
        return depths


def _number(record: Mapping[str, Any], above: str) -> int:
    """A number for the tuple under a key, with the protocol and the zone of the original direction."""
    zone = record.get("zone") or record.get("original.zone") or 0
    ends = {key[len(above) :]: value for key, value in record.items() if key.startswith(above)}
    ends.pop("zone", None)
    return hash((zone, frozenset({"protocol": record["protocol"], **ends}.items())))
