# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signals that end a process, which gets to undo what it has done by half before that."""

from __future__ import annotations

import contextlib
import signal
from typing import Iterator

#: What `kill` and `timeout` send, and what the processes of a session get that is cut off.
_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Ended(BaseException):
    """Such a signal came. Nobody who expects exceptions expects this one."""


@contextlib.contextmanager
def unwound() -> Iterator[None]:
    """Have such a signal leave what is inside as an exception does, and end the process then as it would have at once.

    A signal that is ignored, as under nohup, stays so, and one that somebody else takes is left to them. Outside the
    main thread nothing is taken: there Python has no signals.
    """
    taken = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
    came: list[int] = []

    def end(number: int, _frame: object) -> None:
        came.append(number)
        for each in taken:
            signal.signal(each, signal.SIG_IGN)  # another one is not to cut short what undoes it
        raise Ended

    try:
        with contextlib.suppress(ValueError):  # not the main thread
            for each in taken:
                signal.signal(each, end)
        yield
    finally:
        with contextlib.suppress(ValueError):
            for each in taken:
                signal.signal(each, signal.SIG_DFL)
        if came:
            signal.raise_signal(came[0])
