# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The figures of a run, and the violated guarantees."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from . import ports
from .worker import FEWEST

#: MB by which the memory of the worker may grow after the warm-up.
GROWTH = 8.0
#: The maximum number of memory samples to compare at both ends of the run.
SOME = 3
#: The share of the requested rate below which the report has a warning.
RATE = 0.95
#: The maximum number of reasons and ports in a list.
MOST_LISTED = 5
#: The kinds of events, and the verbs for the requests that cause them.
CHANGES = (("destroy", "removed"), ("update", "updated"), ("new", "created"))

#: The destination ports of the entries that requests on the gateway may change, by the kind of the event.
IN_MATCH = {"destroy": {ports.FLUSHED}, "update": {ports.FLUSHED, ports.UPDATED, ports.STEADY}, "new": {ports.STEADY}}


class Run(NamedTuple):
    """The reports of the processes."""

    rate: float
    clients: list[dict[str, Any]]
    work: dict[str, Any]
    witness: dict[str, Any]

    def total(self, name: str) -> int:
        """Return the sum of a number over all clients."""
        return sum(client[name] for client in self.clients)

    def merged(self, name: str) -> Counter[str]:
        """Return the sum of a counter over all clients."""
        merged: Counter[str] = Counter()
        for client in self.clients:
            merged.update(client[name])
        return merged

    @property
    def reached(self) -> float:
        """Return the number of new connections per second."""
        return float(sum((client["started"].total() - client["steady"]) / client["seconds"] for client in self.clients))

    @property
    def memory(self) -> tuple[float, float]:
        """Return the memory of the worker in MB, after the warm-up and at the end."""
        mb = [sample.kib / 1024 for sample in self.work["samples"]]
        some = max(1, min(SOME, len(mb) // 2))
        return statistics.median(mb[:some]), statistics.median(mb[-some:])

    def events(self, namespace: str, kind: str) -> int:
        counts = self.witness["counts"][namespace]
        return sum(number for (of, _port), number in counts.items() if of == kind)


def figures(run: Run) -> Iterator[str]:
    """Return the lines of the report."""
    done: Counter[str] = run.work["figures"]
    started, broken, flushed = run.merged("started"), run.merged("broken"), run.merged("flushed")
    before, after = run.memory
    yield _line("connections", f"{started.total():,} ({started['tcp']:,} TCP, {started['udp']:,} UDP)")
    yield _line("", f"{run.total('steady')} of them lasted for the whole run; {run.total('skipped')} were not possible")
    yield _line("rate", f"{run.reached:,.0f} new connections per second of {run.rate:,.0f}")
    yield _line("exchanges", f"{run.total('exchanges'):,}, and {run.total('repeated'):,} datagrams were sent again")
    yield _line("broken", f"{broken.total():,}, and {flushed.total():,} in the match of the flush")
    yield _line("removed", f"{done['removed']:,} in {done['flushes']:,} flushes ({done['gone']:,} already gone)")
    yield _line("updated", f"{done['updated']:,} in {done['updates']:,} updates")
    yield _line("saved", f"{done['saved']:,} in {done['saves']:,} snapshots")
    yield _line(
        "restored",
        f"{done['unchanged']:,} kept and {done['created']:,} created in {done['restores']:,} restores on the gateway",
    )
    # The standby is empty, but if an entry expires at which a dump paused, the kernel dumps others of its bucket twice
    yield _line(
        "",
        f"{done['standby created']:,} created and {done['standby unchanged']:,} kept in "
        f"{done['standby restores']:,} restores on the standby, and {done['standby removed']:,} removed there "
        f"({done['standby gone']:,} already gone)",
    )
    yield _line("waits", f"{done['waits']:,}")
    for namespace in run.witness["counts"]:
        counted = ", ".join(f"{run.events(namespace, kind):,} {kind}" for kind in ("new", "update", "destroy"))
        yield _line("events", f"{counted} by requests on the {namespace}")
    yield _line("table", f"{done['table']:,} entries at most, at the end of a cycle")
    yield _line("memory", f"{before:.1f} MB after the warm-up, {after:.1f} MB at the end")
    yield _line("cycles", f"{done['cycles']:,} in {run.work['seconds']:.0f} s")
    if run.reached < RATE * run.rate:
        yield f"This machine did not reach the rate of {run.rate:,.0f}; the figures are those of {run.reached:,.0f}."


def violations(run: Run) -> Iterator[str]:
    """Return a sentence for each violated guarantee."""
    yield from _traffic(run)
    yield from _events(run)
    yield from _process(run)


def _traffic(run: Run) -> Iterator[str]:
    broken = run.merged("broken")
    if broken:
        reasons = "; ".join(f"{number} {reason}" for reason, number in broken.most_common(MOST_LISTED))
        yield f"{broken.total()} connections outside the matches broke: {reasons}."
    ended = run.total("finished") + broken.total() + run.merged("flushed").total()
    started = run.merged("started").total()
    if ended != started:
        yield f"{started} connections began and {ended} ended: the clients counted incorrectly."
    for number, client in enumerate(run.clients, start=1):
        if not client["exchanges"]:
            yield f"Client {number} exchanged nothing."


def _events(run: Run) -> Iterator[str]:
    lost = run.witness["lost"]
    if lost:
        yield (
            f"The kernel lost events {lost} times, so the numbers of changes cannot be compared with the events. As "
            "root the receive buffer is larger."
        )
        return
    done: Counter[str] = run.work["figures"]
    for namespace, prefix in (("gateway", ""), ("standby", "standby ")):
        for kind, name in CHANGES:
            reported, seen = done[f"{prefix}{name}"], run.events(namespace, kind)
            if reported != seen:
                yield f"The {namespace}: {reported} entries were reported as {name}, but {seen} {kind} events came."
    for kind, name in CHANGES:
        counts = run.witness["counts"]["gateway"].items()
        others = {port: number for (of, port), number in counts if of == kind and port not in IN_MATCH[kind]}
        if others:
            at = ", ".join(f"{number} to port {port}" for port, number in sorted(others.items())[:MOST_LISTED])
            yield f"{sum(others.values())} entries outside the match were {name} on the gateway: {at}."
    if not run.events("gateway", "destroy"):
        yield "No event of a removed entry came, so nothing was tested."


def _process(run: Run) -> Iterator[str]:
    samples = run.work["samples"]
    if len(samples) < FEWEST:
        yield f"The worker came to {len(samples)} cycles after the warm-up, too few to compare its memory."
    before, after = run.memory
    if after - before > GROWTH:
        yield f"The memory of the worker grew by {after - before:.1f} MB; at most {GROWTH:.0f} MB are normal."
    files = [sample.files for sample in samples]
    if files[-1] > files[0]:
        yield f"The worker has {files[-1]} open files at the end and had {files[0]} after the warm-up."
    done: Counter[str] = run.work["figures"]
    failed = done["failed"] + done["standby failed"]
    if failed:
        yield f"{failed} entries of snapshots were not restored."
    if done["uncounted"]:
        yield f"The results of the restores lack {done['uncounted']} entries of the snapshots."


def _line(name: str, text: str) -> str:
    return f"{name:<12}{text}"
