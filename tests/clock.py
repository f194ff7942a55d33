# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare remaining timeouts, and wait for conditions, on a machine that may stand still for many seconds.

No tolerance is a guess: two readings in one test differ by at most the time since the test began.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Seconds after which a test is considered hung. It is not for promises of the collection: see `Standstills`.
HUNG = 300.0
#: The kernel returns whole seconds, rounded down. A timeout that was read, restored and read again was rounded twice.
ROUNDED = 2.0

_began = time.monotonic()


def begin_test() -> None:
    """Note that a test begins. The conftest.py of the repository calls this before the fixtures of each test."""
    global _began
    _began = time.monotonic()


def elapsed() -> float:
    """Return the seconds since the test began."""
    return time.monotonic() - _began


class Remaining:
    """A remaining timeout. The numbers that it is equal to depend on the time of the comparison."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, seconds: float, may_be_earlier: bool) -> None:
        self._seconds = seconds
        self._may_be_earlier = may_be_earlier

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Remaining):
            other = other._seconds
        if not isinstance(other, (int, float)):
            return NotImplemented
        tolerance = elapsed() + ROUNDED
        highest = self._seconds + (tolerance if self._may_be_earlier else 0)
        return self._seconds - tolerance <= other <= highest

    def __repr__(self) -> str:
        sign = "±" if self._may_be_earlier else "-"
        return f"{self._seconds} {sign} {elapsed() + ROUNDED:.1f}"


def near(seconds: float) -> Any:
    """Return an object equal to all remaining timeouts of an entry that had `seconds` left at a time in this test."""
    return Remaining(seconds, may_be_earlier=True)


def left_of(seconds: float) -> Any:
    """Return an object equal to the remaining part of a timeout that was set to `seconds` in this test."""
    return Remaining(seconds, may_be_earlier=False)


def wait_until(
    condition: Callable[[], Any],
    problem: Callable[[], object] = lambda: "",
    pause: float = 0.01,
    seconds: float = HUNG,
) -> None:
    """Return when the condition is true.

    :raises TimeoutError: after this number of seconds, with the problem.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{problem()} (waited {seconds} s)".strip())
        time.sleep(pause)


class Standstills:
    """Measures in a block how long this process stood still.

    A thread reads the clock every `PAUSE` seconds. If two readings are more than `NOTICED` seconds apart, the process
    stood still in between.
    """

    PAUSE, NOTICED = 0.05, 0.5

    def __init__(self) -> None:
        self._gaps: list[tuple[float, float]] = []
        self._readings = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="standstills", daemon=True)

    def __enter__(self) -> Standstills:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._over.wait(self.PAUSE):
            now = time.monotonic()
            if now - before > self.NOTICED:
                self._gaps.append((before, now))
            before = now
            self._readings += 1

    def seconds(self, begin: float, end: float) -> float:
        """Return how long this process stood still between two times of the monotonic clock."""
        enough = self._readings + 2  # the thread may be about to note the last one
        wait_until(lambda: self._readings >= enough)
        return sum(max(0.0, min(end, gap_end) - max(begin, gap_begin)) for gap_begin, gap_end in self._gaps)

    def running(self, begin: float, end: float) -> float:
        """Return the seconds between the two times in which this process did not stand still."""
        return end - begin - self.seconds(begin, end)


#: Seconds without any processor time after which a process counts as asleep, and the number of pauses in them.
QUIET, LOOKS = 0.2, 4


def wait_until_asleep(pid: int) -> None:
    """Return when all threads of a process, except the calling one, wait for an event.

    They must use no processor time between `LOOKS` looks. The pauses are counted, not their length: while this process
    stands still, so does the other.
    """
    quiet, before = 0, ""

    def sleeps() -> bool:
        nonlocal quiet, before
        threads = _threads(pid)
        quiet = quiet + 1 if threads == before and "R" not in threads else 0
        before = threads
        return quiet == LOOKS

    wait_until(sleeps, lambda: f"process {pid} does not sleep: {before}", pause=QUIET / LOOKS)


def _threads(pid: int) -> str:
    """Return the state and the processor time of each thread of a process but the calling one, as in proc(5)."""
    found = []
    for task in sorted(Path(f"/proc/{pid}/task").iterdir()):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            if task.name != str(threading.get_native_id()):
                fields = (task / "stat").read_text().rpartition(")")[2].split()
                found.append(f"{task.name} {fields[0]} {fields[11]} {fields[12]}")
    return ", ".join(found)
