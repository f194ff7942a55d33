# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Works by this collection, with the functions that its modules call. No other file here uses those functions.

Each function prepares a work and returns the function to be timed. That function returns the number of processed
entries. Each function imports only what its module imports, because the bench measures its memory and imports.
"""

from __future__ import annotations

import importlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from . import mix
from .child import processor_time
from .interpreter import PACKAGE

#: Number of declarations in memory at a time, if all of them would need too much memory.
PORTION = 100_000

Work = Callable[[], int]
TimedWork = Callable[[], tuple[int, float, float]]
#: The addresses of source NAT for IPv4 and IPv6.
TRANSLATED = ("203.0.113.1", "2001:db8:3::1")


def _of(module: str) -> Any:
    return importlib.import_module(PACKAGE + module)


def _table() -> Any:
    return _of("client.table").Table()


# reading


def read() -> Work:
    """Read and decode every entry, one after another."""
    table = _table()
    return lambda: _number_of(table.rows())


def read_entries() -> Work:
    """Do the same, and return each entry as the flat dictionary that the client uses internally."""
    table = _table()
    return lambda: _number_of(table.dump())


def read_documents() -> Work:
    """Do the same, and return each entry as the nested dictionary that users get."""
    table, present = _table(), _of("client.entry.document").to_document
    return lambda: _number_of(map(present, table.dump()))


def read_services(number: str) -> Work:
    """Read entries whose destination is one of this number of services, except those of the services' endpoints."""
    return _read_matching(list(mix.services(int(number))))


def read_ranges(number: str) -> Work:
    """Read entries with a source port in one of this number of ranges."""
    width = 28_000 // int(number)
    return _read_matching(
        {"source_port": [f"{port + 1}-{port + width - 2}" for port in range(32_768, 32_768 + 28_000, width)]}
    )


def _read_matching(raw: Any) -> Work:
    table, parse = _table(), _of("client.match.match").parse_match
    return lambda: _number_of(table.rows(parse(raw).where))


def facts(*subsets: str) -> Work:
    """Gather these subsets like conntrack_facts."""
    gather = _of("_operations.facts").gather
    table = _table()

    def work() -> int:
        found: int = gather(table, set(subsets))["matched"]
        return found

    return work


def groups(*keys: str) -> Work:
    """Group every entry by keys, like conntrack_info with group_by."""
    dump, keys_of = _of("client.dump.groups"), _of("client.dump.group_keys").parse_group_by
    table = _table()

    def work() -> int:
        found = dump.Groups(keys_of(keys, "keys"))
        table.scan(found)
        found.as_document(10)
        matched: int = found.matched()
        return matched

    return work


def snat_ports() -> Work:
    """Read the use of SNAT ports, like conntrack_facts."""
    read, match = _of("_operations.snat_ports").snat_ports, _of("client.match.match")
    table = _table()

    def work() -> int:
        return sum(use["used"] for use in read(table, match.EVERYTHING, 1 << 30))

    return work


def info(limit: str) -> Work:
    """Collect ordered entries up to a limit, like conntrack_info."""
    info, match, labels = _of("_operations.info"), _of("client.match.match"), _of("client.entry.labels")
    table = _table()

    def work() -> int:
        entries = info.TABLES["conntrack"](table, match.EVERYTHING)
        found: int = info.collect(entries, "timeout", True, int(limit), labels.LabelMap())["matched"]
        return found

    return work


def judge() -> Work:
    """Judge every entry by the current rules, like conntrack_facts. No entry is stale."""
    stale, match = _of("_operations.stale"), _of("client.match.match")
    table = _table()
    judging = stale.StaleFilter(table, ("nat_changed", "refused", "untracked"))

    def work() -> int:
        assert not list(judging.scan(match.EVERYTHING))
        unchanged: int = judging.verdicts["unchanged"]
        return unchanged

    return work


def wait() -> Work:
    """Count matching entries once, like conntrack_wait. Every entry matches."""
    module, match, labels = _of("_operations.wait"), _of("client.match.match"), _of("client.entry.labels")
    table = _table()

    def work() -> int:
        try:
            module.wait(table, match.EVERYTHING, module.Goal(0), 0, 100, labels.LabelMap())
        except module.TimedOut as up:
            found: int = up.result["remaining"]
            return found
        return 0

    return work


# creating


def create_declared(entries: str) -> Work:
    """Create entries from a list of declarations."""
    declared = list(mix.declarations(0, int(entries)))
    table = _table()
    return lambda: _succeeded(table.create_declared(declared))


def create_translated(entries: str) -> Work:
    """Create entries with source NAT to one address of each family."""
    table = _table()
    translated = (
        {**one, "nat": {"source": {"address": TRANSLATED[":" in one["original"]["source"]]}}}
        for one in mix.declarations(0, int(entries))
    )
    return lambda: _succeeded(table.create_declared(translated))


def create_prepared(entries: str) -> Work:
    """Create entries from objects that the client has prepared before."""
    table, prepare = _table(), _preparing()
    prepared = list(map(prepare, mix.declarations(0, int(entries))))
    return lambda: _succeeded(table.create_all(prepared))


def create_in_portions(entries: str) -> TimedWork:
    """Create any number of entries from declarations. Only the creation of each portion is timed."""
    table = _table()
    declarations = mix.declarations(0, int(entries))

    def work() -> tuple[int, float, float]:
        done, seconds, processor = 0, 0.0, 0.0
        for declared in iter(lambda: list(itertools.islice(declarations, PORTION)), []):
            start, before = time.perf_counter(), processor_time()
            done += _succeeded(table.create_declared(declared))
            seconds += time.perf_counter() - start
            processor += processor_time() - before
        return done, seconds, processor

    return work


# snapshots


def save(path: str) -> Work:
    """Save the table like conntrack_snapshot."""
    module, match, labels = _of("_snapshot.save"), _of("client.match.match"), _of("client.entry.labels")
    table = _table()

    def work() -> int:
        done = module.save(table, path, match.EVERYTHING, labels.LabelMap(), False)
        saved: int = done["snapshot"]["entries"]
        return saved

    return work


def restore(path: str) -> Work:
    """Restore the table like conntrack_snapshot."""
    module, match, labels = _of("_snapshot.restore"), _of("client.match.match"), _of("client.entry.labels")
    file, policy = _of("_snapshot.file"), _of("_reconcile.reconciler").Policy(on_existing="keep")
    table = _table()

    def work() -> int:
        with file.Snapshot(path) as snapshot:
            done = module.restore(table, snapshot, match.EVERYTHING, policy, labels.LabelMap())
        created: int = done["counts"]["created"]
        return created

    return work


# removing


def flush_port() -> Work:
    """Flush an exact protocol and port, like conntrack_flush."""
    return _flush({"protocol": "tcp", "destination_port": mix.PORT})


def flush_network() -> Work:
    """Flush the sources in a network, like conntrack_flush."""
    return _flush({"source": mix.NETWORK})


def _flush(match: dict[str, Any]) -> Work:
    module, parse = _of("_operations.flush"), _of("client.match.match").parse_match
    table = _table()

    def work() -> int:
        done = module.flush(module.DeletionPlan(table, parse(match)))
        removed: int = done["flushed"]
        return removed

    return work


# one at a time


def create_each(entries: str) -> Work:
    """Create entries with one request each, and wait for each reply."""
    return _each("create", entries)


def get_each(entries: str) -> Work:
    """Read each entry by its tuple."""
    return _each("get", entries)


def delete_each(entries: str) -> Work:
    """Delete each entry by its tuple."""
    return _each("delete", entries)


def _each(operation: str, entries: str) -> Work:
    table, prepare = _table(), _preparing()
    prepared = list(map(prepare, mix.declarations(0, int(entries))))
    do = getattr(table, operation)

    def work() -> int:
        for entry in prepared:
            do(entry)
        return len(prepared)

    return work


# shared helpers


def _preparing() -> Callable[[dict[str, Any]], Any]:
    """Turn declarations into the contents of requests."""
    from_document, creation = _of("client.entry.document").from_document, _of("client.entry.creation").creation
    return lambda declared: creation(from_document(declared))


def _number_of(things: Iterator[Any]) -> int:
    """Count the items, and neither process nor keep them."""
    last = deque(enumerate(things, start=1), maxlen=1)
    return last[0][0] if last else 0


def _succeeded(results: Iterable[Any]) -> int:
    """Count the results. All of them must be None; otherwise raise the first error."""
    number = 0
    for error in results:
        if error is not None:
            raise error
        number += 1
    return number
