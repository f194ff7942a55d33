# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the functions of the modules in a loop, on the gateway's table and on that of a standby."""

from __future__ import annotations

import gc
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.netops.conntrack.plugins.module_utils._operations.flush import DeletionPlan, flush
from ansible_collections.netops.conntrack.plugins.module_utils._operations.update import parse_wanted, update
from ansible_collections.netops.conntrack.plugins.module_utils._operations.wait import Goal, wait
from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.reconciler import Policy
from ansible_collections.netops.conntrack.plugins.module_utils._snapshot.file import Snapshot
from ansible_collections.netops.conntrack.plugins.module_utils._snapshot.restore import restore
from ansible_collections.netops.conntrack.plugins.module_utils._snapshot.save import save
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import (
    EVERYTHING,
    Match,
    parse_match,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from tests.lab import Namespace

from . import ports
from .children import Stop

#: The default of the modules' option `report_limit`.
REPORT_LIMIT = 100
NO_LABELS = LabelMap()
#: Seconds between two cycles.
PAUSE = 0.2
#: Seconds that a wait may take.
PATIENCE = 300.0
#: The first mark of entries that a flush removes. The marks of updates are smaller.
TO_BE_REMOVED = 0x10000
#: The timeout that updates set, longer than those of closed connections, so that no entry remains for ever.
TIMEOUT = 30
#: Seconds until tables and memory reach their size, at most this part of the run.
WARM_UP, WARM_UP_PART = 20.0, 1 / 3
#: The number of cycles after the warm-up that the comparison of memory needs, and seconds that the run may last longer
#: to reach it.
FEWEST, LONGER = 3, 60.0
#: Memory that the option `--break memory` keeps in each cycle.
KEPT_MEMORY = 16 << 20

ENTRIES = {"family": ["ipv4", "ipv6"], "protocol": ["tcp", "udp"]}
TO_FLUSH = {**ENTRIES, "destination_port": ports.FLUSHED}
TO_UPDATE = {**ENTRIES, "destination_port": [ports.UPDATED, ports.STEADY]}
TO_RESTORE = {**ENTRIES, "destination_port": ports.STEADY}


class Orders(NamedTuple):
    """The arguments of the worker."""

    seconds: float
    #: Entries in the match of the flush for which each cycle waits.
    entries: int
    gateway: Namespace
    standby: Namespace
    folder: Path
    #: The guarantee to break, to test that the soak test detects it.
    broken: str
    #: The network namespace of the machine. No process may change its table.
    machine: str


class Sample(NamedTuple):
    """The memory and the open files of this process at the end of a cycle."""

    elapsed: float
    kib: int
    files: int


def work(stop: Stop, ready: Callable[[], None], orders: Orders) -> dict[str, Any]:
    """Run cycles for the given time, and return the figures."""
    worker = _Worker(orders)
    ready()
    began = time.monotonic()
    warm = min(WARM_UP, orders.seconds * WARM_UP_PART)
    samples: list[Sample] = []
    while True:
        worker.cycle()
        elapsed = time.monotonic() - began
        gc.collect()
        if elapsed >= warm:
            samples.append(_sample(elapsed))
        over = elapsed - orders.seconds
        if over >= LONGER or (over >= 0 and len(samples) >= FEWEST) or stop.wait(PAUSE):
            return {"figures": worker.figures, "samples": samples, "seconds": time.monotonic() - began}


class _Worker:
    def __init__(self, orders: Orders) -> None:
        self.figures: Counter[str] = Counter()
        self._orders = orders
        self._path = str(orders.folder / "snapshot.gz")
        self._memory: list[bytearray] = []
        to_flush = dict(TO_FLUSH)
        if orders.broken == "flush":
            to_flush["destination_port"] = [ports.FLUSHED, ports.KEPT, ports.STEADY]
        self._to_flush = to_flush

    def cycle(self) -> None:
        self.figures["cycles"] += 1
        number = self.figures["cycles"]
        with self._orders.gateway.entered():
            _check_namespace(self._orders.machine)
            self._wait(parse_match(TO_FLUSH), Goal(self._orders.entries, rising=True))
            self._update(parse_match(TO_UPDATE), {"mark": number % TO_BE_REMOVED, "timeout": TIMEOUT})
            if number % 2:
                self._flush(parse_match(self._to_flush))
            else:
                mark = TO_BE_REMOVED + number
                self._update(parse_match(self._to_flush), {"mark": mark})
                marked = parse_match({"mark": mark})
                self._flush(marked)
                self._wait(marked, Goal(0))
            self._save()
            self._restore(parse_match(TO_RESTORE))
            with Table() as table:
                self.figures["table"] = max(self.figures["table"], table.count())
        with self._orders.standby.entered():
            _check_namespace(self._orders.machine)
            self._restore(EVERYTHING, "standby ")
            self._flush(EVERYTHING, "standby ")
        if self._orders.broken == "memory":
            self._memory.append(bytearray(b"x" * KEPT_MEMORY))

    def _wait(self, match: Match, goal: Goal) -> None:
        with Table() as table:
            wait(table, match, goal, PATIENCE, REPORT_LIMIT, NO_LABELS)
        self.figures["waits"] += 1

    def _update(self, match: Match, wanted: dict[str, Any]) -> None:
        with Table() as table:
            done = update(table, match, parse_wanted(wanted), report_limit=REPORT_LIMIT)
        self.figures["updates"] += 1
        self.figures["updated"] += done["updated"]

    def _flush(self, match: Match, where: str = "") -> None:
        with Table() as table:
            done = flush(DeletionPlan(table, match, report_limit=REPORT_LIMIT))
        self.figures[f"{where}flushes"] += 1
        self.figures[f"{where}removed"] += done["flushed"] + (self._orders.broken == "count")
        self.figures[f"{where}gone"] += done["gone"]

    def _save(self) -> None:
        with Table() as table:
            done = save(table, self._path, EVERYTHING, NO_LABELS, False)
        self.figures["saves"] += 1
        self.figures["saved"] += done["snapshot"]["entries"]

    def _restore(self, match: Match, where: str = "") -> None:
        with Table() as table, Snapshot(self._path) as snapshot:
            done = restore(table, snapshot, match, Policy(on_existing="keep"), NO_LABELS, report_limit=REPORT_LIMIT)
        self.figures[f"{where}restores"] += 1
        for key, count in done["counts"].items():
            self.figures[f"{where}{key}"] += count
        if match is EVERYTHING:
            self.figures["uncounted"] += done["snapshot"]["entries"] - sum(done["counts"].values())


def _check_namespace(machine: str) -> None:
    if os.readlink("/proc/thread-self/ns/net") == machine:
        raise AssertionError("this is the network namespace of the machine; the soak test must not change its table")


def _sample(elapsed: float) -> Sample:
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    return Sample(elapsed, pages * os.sysconf("SC_PAGE_SIZE") >> 10, len(os.listdir("/proc/self/fd")))
