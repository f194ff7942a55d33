# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guarantees for every input: limits of time and memory, named errors, readable messages."""

from __future__ import annotations

import contextlib
import resource
import signal
from typing import Any, Iterator

#: Maximum number of characters of an error message.
LONGEST_MESSAGE = 2000
#: Maximum processor time and elapsed time for one input, in seconds.
PROCESSOR_TIME, TIME = 5.0, 60.0
#: Maximum number of bytes that one input may add to the address space. Threads use most of this space.
MEMORY = 1 << 29


class Violation(AssertionError):
    """An input breaks a guarantee."""


class TooSlow(BaseException):
    """An input takes too long. It is a BaseException, so that no `except Exception` catches it."""


@contextlib.contextmanager
def named(*errors: type[Exception]) -> Iterator[None]:
    """Accept these errors if their messages are short and printable. All other errors are findings."""
    try:
        yield
    except errors as error:
        check_message(str(error))


def check_message(message: str) -> None:
    """Raise `Violation` for a message that is too long, or that a terminal or JSON cannot show."""
    if len(message) > LONGEST_MESSAGE:
        raise Violation(f"a message has {len(message)} characters: {message[:200]!r}")
    # A message about several errors has a line for each error
    if not message.replace("\n- ", "").isprintable():
        raise Violation(f"a message has characters that cannot be shown: {message!r}")


def check_equal(one: Any, other: Any, what: str) -> None:
    """Raise `Violation` if two ways to the same result differ."""
    if one != other:
        raise Violation(f"{what}: {one!r} is not {other!r}")


@contextlib.contextmanager
def limited(seconds: float = TIME) -> Iterator[None]:
    """Raise `TooSlow` after the time limit, and `MemoryError` at the memory limit.

    With 0 seconds only processor time is limited, because libFuzzer itself uses the other timer.
    """
    timers = [(signal.ITIMER_PROF, signal.SIGPROF, PROCESSOR_TIME)]
    timers += [(signal.ITIMER_REAL, signal.SIGALRM, seconds)] if seconds else []
    before = [signal.signal(number, _too_slow) for _timer, number, _seconds in timers]
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm", encoding="ascii") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    most = size + MEMORY if hard == resource.RLIM_INFINITY else min(size + MEMORY, hard)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
        for timer, _number, allowed in timers:
            signal.setitimer(timer, allowed)
        yield
    finally:
        for (timer, number, _seconds), handler in zip(timers, before):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _too_slow(number: int, frame: Any) -> None:
    raise TooSlow(f"takes more than {PROCESSOR_TIME:.0f} seconds of processor time, or {TIME:.0f} seconds in all")
