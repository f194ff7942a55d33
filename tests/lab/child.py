# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Call a function in a forked child, with its own memory, signals and network."""

from __future__ import annotations

import gc
import multiprocessing
import pickle
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from . import isolation

T = TypeVar("T")


def call_in_child(function: Callable[..., T], arguments: tuple[Any, ...], timeout: float) -> T:
    """Call a function in a fork of the calling thread, and return its result or raise its error.

    :raises TimeoutError: after `timeout` seconds. The child is killed.
    :raises ChildProcessError: if the child ends without an answer.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(sender, function, arguments), daemon=True)
    with warnings.catch_warnings():
        # The fork is safe although there are threads: those of the lab hold no lock that the child takes.
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()
    sender.close()
    try:
        if not receiver.poll(timeout):
            raise TimeoutError(f"{function} did not end within {timeout} s")
        result, error, trace = receiver.recv()
    except EOFError as silence:
        child.join()
        raise ChildProcessError(f"{function} died with exit code {child.exitcode} and no answer") from silence
    finally:
        child.kill()
        child.join()
        receiver.close()
    if error is not None:
        error.add_note(trace)
        raise error
    answer: T = result
    return answer


def _answer(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    isolation.end_with_parent()
    gc.freeze()  # a garbage collection would write to all memory that is shared with the parent, and so copy it
    try:
        answer = pickle.dumps((function(*arguments), None, ""))
    except BaseException as error:
        answer = _pickle_error(error, "in the child:\n" + traceback.format_exc())
    sender.send_bytes(answer)


def _pickle_error(error: BaseException, trace: str) -> bytes:
    try:
        answer = pickle.dumps((None, error, trace))
        pickle.loads(answer)
    except Exception:
        answer = pickle.dumps((None, RuntimeError(repr(error)), trace))
    return answer
