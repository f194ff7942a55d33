# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Save the table to a file.

Entries are written while the table is read, some thousand at a time, so that memory use does not grow with the table.
Only entries with a master are held back in a temporary file. In a snapshot each entry follows its master, so that a
restore creates the master first.
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
from ..client.match.match import Match
from ..client.table import Table
from .file import ENTRIES, EXPECTATIONS, Counter, Header, Writer, check_place, is_readable, writing

#: Keys with the same value in all records of a block. The other keys depend on them.
_ALIKE = ("family", "protocol")
#: The maximum number of bytes of entries with a master that are held in memory.
_HELD = 4 << 20


def save(table: Table, path: str, match: Match, labels: LabelMap, check_mode: bool) -> Document:
    """Save the matching entries and their expectations, and return the module's result.

    A new snapshot is always a change. Raises `InvalidValue` if the file at `path` is not a snapshot, and `CannotWrite`.
    The existing file is then unchanged.
    """
    before = check_place(path)
    here = os.uname()
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    names = {name: bit for name, bit in labels.bits.items() if is_readable(name)}
    header = Header(_readable(here.nodename), _readable(here.release), now, names)
    if check_mode:
        counter = Counter()
        _write(table, match, counter, records(table.rows(match.where)))
        header = counter.counted(header)._replace(sha256="")
    else:
        with cleanup_on_signal(), Writer(path, header) as writer, _MastersFirst(path) as masters_first:
            _write(table, match, writer, masters_first.sort(records(table.rows(match.where))))
        header = writer.header
    return {
        "changed": True,
        **header.as_result(),
        "diff": {"before": "" if before is None else before.as_line(), "after": header.as_line()},
    }


def _readable(text: str) -> str:
    """Replace characters of a host name that a header cannot contain. The kernel accepts any bytes as a name."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _write(table: Table, match: Match, writer: Counter, entries: Iterable[Columns]) -> None:
    for columns in entries:
        writer.write(ENTRIES, columns, _ALIKE)
    for columns in in_columns(flat(expectation.to_document(found)) for found in _expectations(table, match)):
        writer.write(EXPECTATIONS, columns, _ALIKE)


def _expectations(table: Table, match: Match) -> Iterator[expectation.Expectation]:
    """Yield the expectations whose masters match."""
    for found in expectation.located(table, expectation.read_all(table)):
        if match.where is None or _holds(match, table, expectation.master_of(found)):
            yield {key: value for key, value in found.items() if key != "id"}


def _holds(match: Match, table: Table, wanted: Entry) -> bool:
    try:
        return match(table.get(wanted))
    except NotFound:
        return False


class _MastersFirst:
    """Sorts entries that have a master, so that each follows its master."""

    def __init__(self, path: str) -> None:
        #: The path of the snapshot. The temporary file is in the same folder, where space is needed in any case.
        self._path = os.path.realpath(path)
        #: For each entry held back, the hash of its own tuple and that of its master.
        self._own, self._masters = array("q"), array("q")

    def __enter__(self) -> _MastersFirst:
        folder = os.path.dirname(self._path)
        self._file = tempfile.SpooledTemporaryFile(_HELD, "w+", encoding="ascii", dir=folder)
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):  # on a full disk, closing it fails, too
            self._file.close()

    def sort(self, records: Iterable[Columns]) -> Iterator[Columns]:
        """Yield the records without a master, then those with a master, each after its master."""
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
        """Return, for each entry held back, the number of its masters that have a master themselves."""
        wanted = set(self._masters)
        between = {own: master for own, master in zip(self._own, self._masters) if own in wanted}
        depths = array("L")
        for master in self._masters:
            depth = 0
            while master in between and depth < len(between):  # only a hash collision makes a record its own master
                master = between[master]
                depth += 1
            depths.append(depth)
        return depths


def _number(record: Mapping[str, Any], above: str) -> int:
    """Return a hash of the tuple under a key, with the protocol and the zone of the original direction."""
    zone = record.get("zone") or record.get("original.zone") or 0
    ends = {key[len(above) :]: value for key, value in record.items() if key.startswith(above)}
    ends.pop("zone", None)
    return hash((zone, frozenset({"protocol": record["protocol"], **ends}.items())))
