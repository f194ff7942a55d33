# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A function in a forked child: memory, signals and network of its own."""

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
    """What the function returns, or raises, in a fork of the calling thread that ends with it.

    :raises TimeoutError: after so many seconds; the child is killed.
    :raises ChildProcessError: when the child dies without an answer.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(sender, function, arguments), daemon=True)
    with warnings.catch_warnings():
        # Forking beside threads is safe here: the lab's own threads hold no lock that the child takes.
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
    gc.freeze()  # a collection would write to, and so copy, all memory that is shared with the parent
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
