# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let a process finish or undo a change before a signal ends it."""

from __future__ import annotations

import contextlib
import signal
from typing import Callable, Iterable, Iterator, Sequence

#: The signals that `kill` and `timeout` send, and that the processes of a session receive when it is disconnected.
_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Terminated(BaseException):
    """A signal ends the process. It is not an `Exception`, so that no `except Exception` catches it."""


@contextlib.contextmanager
def cleanup_on_signal() -> Iterator[None]:
    """Raise `Terminated` in the block for a signal of `_ENDING`, and end the process after the clean-up.

    Ignored signals, as under nohup, stay ignored, and other handlers stay in place. Outside the main thread, signals
    are not handled, because Python delivers them only there.
    """
    came: list[int] = []

    def end(number: int, _frame: object) -> None:
        came.append(number)
        if len(came) == 1:  # a second signal must not interrupt the clean-up
            raise Terminated

    with _handling(end, _ENDING, came):
        yield


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Defer a signal of `_ENDING`, or a keyboard interrupt, to the end of the block.

    For a change that takes two requests: between them, the wanted entry exists only in the memory of this process. As
    with `cleanup_on_signal`, other handlers stay in place, and outside the main thread signals are not deferred.
    """
    came: list[int] = []

    def note(number: int, _frame: object) -> None:
        came.append(number)

    with _handling(note, (*_ENDING, signal.SIGINT), came):
        yield


@contextlib.contextmanager
def _handling(handler: Callable[[int, object], None], numbers: Iterable[int], came: Sequence[int]) -> Iterator[None]:
    """Handle the signals that have Python's default handlers. After the block, raise the first signal received."""
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
