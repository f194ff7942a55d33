# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""End every descendant of this process, including those that left its process group or lost their parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

PR_SET_CHILD_SUBREAPER = 36
ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
#: Seconds in which processes must end after SIGTERM, and then after SIGKILL.
GRACE, PATIENCE = 3.0, 60.0


class Interrupted(BaseException):
    """This process received a signal that ends it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def ending_with_this() -> Iterator[None]:
    """End the descendants of this process when the block ends, or when a signal interrupts it.

    The kernel makes this process the parent of orphans (a subreaper, prctl(2)), so that none escapes. After a signal of
    `ENDING` this process ends with the same signal.
    """
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("prctl(PR_SET_CHILD_SUBREAPER) failed")
    before = {number: signal.signal(number, _interrupt) for number in ENDING}
    number = None
    try:
        yield
    except Interrupted as interrupted:
        number = interrupted.number
    finally:
        for each in ENDING:
            signal.signal(each, signal.SIG_IGN)
        for survivor in end_descendants():
            print(f"still running: {survivor}", file=sys.stderr)
        for each, handler in before.items():
            signal.signal(each, handler)
    if number is not None:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


def end_descendants() -> list[int]:
    """Send SIGTERM to every descendant, SIGKILL after `GRACE` seconds, and return those left after `PATIENCE` more."""
    began, killed = time.monotonic(), 0.0
    terminated: set[int] = set()
    while running := descendants():
        now = time.monotonic()
        if killed and now - killed > PATIENCE:
            return descendants()
        grace_is_over = now - began > GRACE
        for pid in running:
            if grace_is_over or pid not in terminated:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL if grace_is_over else signal.SIGTERM)
        terminated.update(running)
        if grace_is_over and not killed:
            killed = time.monotonic()
        time.sleep(0.02)
    return []


def descendants() -> list[int]:
    """Return the process ids of all descendants, after reaping the children that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name of the program is in parentheses and may contain blanks
            parent = stat.read_text(errors="replace").rpartition(")")[2].split()[1]
            children.setdefault(int(parent), []).append(int(stat.parent.name))
    found = children.get(os.getpid(), [])
    for pid in found:
        found.extend(children.get(pid, []))
    return found
