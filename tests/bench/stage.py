# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The means that all steps share: namespaces with tables, contenders that take turns, and progress messages."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.lab import Namespace

from . import go_client
from .process import Runner, Sample, WorkFailed
from .rows import OURS, Side
from .sizes import Sizes

CONNTRACK = "conntrack"
PYROUTE2 = "pyroute2"
GO = "vishvananda/netlink"
BARE = "bare receive loop"
REPLAY = "bare replay"
#: Suffix of the name of a row whose processes run on one processor, where a second thread saves no time
ON_ONE_CORE = ", on one core"
#: exit status of conntrack -D if no entry matches
NOTHING_REMOVED = 1

Contender = Callable[[], Sample]


class Stage:
    """The means to measure, available as long as the bench runs."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self.folder = folder
        self.sizes = sizes
        self.runner = Runner(folder)
        self.conntrack = shutil.which(CONNTRACK)
        self.go_client = go_client.build(folder)
        self._started = time.monotonic()
        self._interpreter: float | None = None

    def say(self, what: str) -> None:
        """Print the current step and the elapsed time so far."""
        print(f"{time.monotonic() - self._started:6.1f} s  {what}", file=sys.stderr, flush=True)

    # tables

    @contextlib.contextmanager
    def table(self, entries: int = 0) -> Iterator[Namespace]:
        """Create a namespace with this number of entries of the mix."""
        with Namespace("bench") as namespace:
            with contextlib.suppress(OSError):  # the kernel's default, which was different before Linux 5.19
                namespace.sysctl("nf_conntrack_events", 2)
            try:
                if entries:
                    self.say(f"filling a table with {entries:,} entries")
                    self.fill(namespace, entries)
                yield namespace
            finally:
                self.empty(namespace)

    def fill(self, namespace: Namespace, entries: int, half: str = "") -> None:
        """Create the entries of a table, or create again the half that a flush has removed."""
        self.runner.work(namespace, "bare", "fill", entries, half)
        self.expect(namespace, entries)

    def empty(self, namespace: Namespace) -> None:
        """Empty a table now.

        If its namespace were closed instead, the kernel would empty it during the next measurement.
        """
        self.runner.work(namespace, "bare", "empty")

    def expect(self, namespace: Namespace, entries: int) -> None:
        """Check with the kernel's own count that a work is complete."""
        found = namespace.count()
        if found != entries:
            raise WorkFailed(f"{found:,} entries are in the table where {entries:,} should be")

    # contenders

    def ours(self, namespace: Namespace, work: str, *arguments: object, done: int | None = None) -> Sample:
        """Run a work of this collection, and check the number of its entries."""
        return self.work(namespace, "ours", work, *arguments, done=done)

    def work(self, namespace: Namespace, module: str, work: str, *arguments: object, done: int | None = None) -> Sample:
        sample = self.runner.work(namespace, module, work, *arguments)
        if done is not None and sample.done != done:
            raise WorkFailed(f"{module}.{work} processed {sample.done:,} entries instead of {done:,}")
        return sample

    def program(self, namespace: Namespace, *arguments: str, output: Path | None = None) -> Sample:
        """Run Debian's conntrack and discard its output."""
        if self.conntrack is None:
            raise WorkFailed("the conntrack program is absent (apt-get install conntrack)")
        return self.runner.program(namespace, [self.conntrack, *arguments], output=output)

    def go(self, namespace: Namespace, work: str, entries: int) -> Sample:
        """Run a work of the Go client, which checks the number of its entries."""
        if self.go_client is None:
            raise WorkFailed(go_client.MISSING)
        return self.runner.program(namespace, [self.go_client, work, str(entries)])

    def compete(
        self,
        contenders: dict[str, Contender],
        before: Callable[[str], None] = lambda _name: None,
        after: Callable[[str], None] = lambda _name: None,
        turns: int | None = None,
    ) -> list[Side]:
        """Let each contender take several turns, and use the best of each: other load on the machine only adds time.

        `before` and `after` are not timed. Contenders whose program is absent do not take part.
        """
        samples: dict[str, list[Sample]] = {name: [] for name in contenders if self._exists(name)}
        patience = time.monotonic() + self.sizes.patience * len(samples)
        for turn in range(turns or self.sizes.turns):
            for name in samples:
                before(name)
                sample = contenders[name]()
                samples[name].append(sample)
                after(name)
                where = ON_ONE_CORE if self.runner.processors else ""
                self.say(f"  {name}{where}: {sample.seconds:.3f} s (turn {turn + 1})")
            if time.monotonic() > patience:
                break
        return [best(name, taken) for name, taken in samples.items()]

    @contextlib.contextmanager
    def on_one_core(self) -> Iterator[None]:
        """Run processes that start in the block on one processor: the last one, which seldom handles interrupts."""
        self.runner.processors = {max(os.sched_getaffinity(0))}
        try:
            yield
        finally:
            self.runner.processors = None

    def _exists(self, name: str) -> bool:
        if name == GO:
            return self.go_client is not None
        return self.conntrack is not None or not name.startswith(CONNTRACK)

    # memory

    def above_interpreter(self, memory: float) -> float:
        """Return the MB beyond those of an interpreter that has imported socket and struct."""
        if self._interpreter is None:
            with Namespace("bench") as namespace:
                self._interpreter = min(
                    self.runner.work(namespace, "interpreter", "nothing").memory for _turn in range(3)
                )
        return max(0.0, memory - self._interpreter)


def best(name: str, samples: Sequence[Sample], scale: float = 1.0) -> Side:
    """Return a side with the shortest elapsed and processor time, scaled, and the highest peak memory."""
    return Side(
        name,
        [min(sample.seconds for sample in samples) * scale],
        [min(sample.processor for sample in samples) * scale],
        [max(sample.memory for sample in samples)],
    )


__all__ = ["BARE", "CONNTRACK", "GO", "OURS", "PYROUTE2", "Stage"]
