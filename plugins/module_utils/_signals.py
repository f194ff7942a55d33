# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let a process finish or undo a change before a signal ends it."""

from __future__ import annotations

import contextlib
import signal
from typing import Callable, Iterable, Iterator, Sequence

#: The signals that `kill` and `timeout` send, and that a session's processes receive when it is disconnected.
_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Terminated(BaseException):
    """A signal ends the process. It is not an `Exception`, so that no handler of exceptions stops it."""


@contextlib.contextmanager
def cleanup_on_signal() -> Iterator[None]:
    """Let a signal of `_ENDING` leave the block as an exception, and end the process afterwards.

    Ignored signals, as under nohup, stay ignored, and handlers of others stay. Outside the main thread nothing is
    handled: Python has signals only there.
    """
    came: list[int] = []

    def end(number: int, _frame: object) -> None:
        came.append(number)
        if len(came) == 1:  # a second one must not interrupt the clean-up
            raise Terminated

    with _handling(end, _ENDING, came):
        yield


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Defer a signal of `_ENDING`, or an interrupt from the keyboard, to the end of the block.

    For two requests that make one change: between them, only this process knows the entry that the user wants.
    As with `cleanup_on_signal`, handlers of others stay, and outside the main thread nothing is deferred.
    """
    came: list[int] = []

    def note(number: int, _frame: object) -> None:
        came.append(number)

    with _handling(note, (*_ENDING, signal.SIGINT), came):
        yield


@contextlib.contextmanager
def _handling(handler: Callable[[int, object], None], numbers: Iterable[int], came: Sequence[int]) -> Iterator[None]:
    """Handle those of the signals that have Python's own handlers; behind the block, raise the first that came."""
    taken = {
        number: before
        for number, before in ((number, signal.getsignal(number)) for number in numbers)
        if before in (signal.SIG_DFL, signal.default_int_handler)
    }
    try:
        with contextlib.suppress(ValueError):  # not the main thread
            for number in taken:
                signal.signal(number, handler)
        yield
    finally:
        with contextlib.suppress(ValueError):
            for number, before in taken.items():
                signal.signal(number, before)
        if came:
            signal.raise_signal(came[0])
