# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Receive and send in a thread, while the main thread decodes and encodes.

Receiving and sending release the interpreter lock during the system call. A thread that only receives or sends
therefore runs in parallel with the thread that decodes earlier datagrams or encodes later requests.

An iterator ends its thread when it is closed. `NetlinkSocket` closes all of its iterators. An iterator that is still
suspended when the interpreter exits does not join its thread: threads no longer run then, and joining one blocks
forever (Python 3.13).
"""

from __future__ import annotations

import sys
from _thread import allocate_lock
from typing import Any, Callable, Generator, Iterable, TypeVar

_Thing = TypeVar("_Thing")
_Result = TypeVar("_Result")

#: The number of items that are processed before a thread is started. For fewer items, the start takes more time than it
#: saves.
THREAD_AFTER = 8
#: The maximum number of items that are ready or waiting.
QUEUE_DEPTH = 8
_END: Any = object()
#: The switch interval of the interpreter in seconds while a thread sends. The default is 50 times that.
_SWITCH_INTERVAL = 1e-4


def prefetch(
    fetch: Callable[[], _Thing], is_last: Callable[[_Thing], bool], wake: Callable[[], None]
) -> Generator[_Thing, None, None]:
    """Yield the results of `fetch` endlessly. An error is raised after the results before it.

    The caller ends the iterator by closing it. A thread calls `fetch` until `is_last` is true for a result, so that it
    does not wait for a datagram that never arrives. If it waits nevertheless, `wake` makes `fetch` return.
    """
    import threading
    from queue import SimpleQueue

    ready: SimpleQueue[Any] = SimpleQueue()
    #: How many more items may be fetched. Several at once, so that the threads wake each other less often.
    room: SimpleQueue[int] = SimpleQueue()
    stopped = False

    def work() -> None:
        while True:
            for _count in range(room.get()):
                if stopped:
                    return
                try:
                    thing: _Thing | BaseException = fetch()
                except BaseException as error:
                    thing = error
                ready.put(thing)
                if isinstance(thing, BaseException) or is_last(thing):
                    return

    worker = threading.Thread(target=work, name="netlink", daemon=True)
    ended = not _started(worker)
    taken, portion = 0, QUEUE_DEPTH // 2
    room.put(QUEUE_DEPTH)
    try:
        while not ended:
            fetched = ready.get()
            taken += 1
            if taken == portion:
                room.put(portion)
                taken = 0
            ended = isinstance(fetched, BaseException) or is_last(fetched)
            if isinstance(fetched, BaseException):
                raise fetched
            yield fetched
        while True:
            yield fetch()
    finally:
        if worker.ident is not None and not sys.is_finalizing():
            if not ended:
                stopped = True
                room.put(1)
                wake()
            worker.join()


def overlap(
    work: Callable[[_Thing], _Result], things: Iterable[_Thing]
) -> Generator[tuple[_Thing, _Result], None, None]:
    """Yield each item of `things` with the result of `work`, in order, and fetch the next items meanwhile.

    A thread does the work, except for the first few items. An error of the iterable is raised after the results of all
    items before it. When the iterator is closed, no further work is started.
    """
    source = iter(things)
    for _count in range(THREAD_AFTER):
        thing = next(source, _END)
        if thing is _END:
            return
        yield thing, work(thing)
    import threading
    from queue import SimpleQueue

    todo: SimpleQueue[Any] = SimpleQueue()
    done: SimpleQueue[Any] = SimpleQueue()
    stopped = False

    def labour() -> None:
        for thing in iter(todo.get, None):
            if stopped:
                return
            try:
                done.put((thing, work(thing), None))
            except BaseException as error:
                done.put((thing, None, error))

    def finished() -> tuple[_Thing, _Result]:
        thing, result, error = done.get()
        if error is not None:
            raise error
        return thing, result

    worker = threading.Thread(target=labour, name="netlink", daemon=True)
    if not _started(worker):
        for thing in source:
            yield thing, work(thing)
        return
    waiting, more, failure = 0, True, None
    _SWITCHING.shorten()
    try:
        while more:
            try:
                thing = next(source, _END)
            except Exception as error:
                thing, failure = _END, error
            more = thing is not _END
            if more:
                todo.put(thing)
                waiting += 1
            while waiting and (not more or waiting > QUEUE_DEPTH or not done.empty()):
                waiting -= 1
                yield finished()
        if failure is not None:
            raise failure
    finally:
        if not sys.is_finalizing():
            stopped = waiting > 0
            todo.put(None)
            worker.join()
            _SWITCHING.restore()


def _started(worker: Any) -> bool:
    """Start a thread. Return False if the system allows no more threads."""
    try:
        worker.start()
    except RuntimeError:
        return False
    return True


class _Switching:
    """The switch interval of the interpreter. It is short while at least one iterator needs it."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._users = 0
        self._before = self._short = 0.0

    def shorten(self) -> None:
        with self._lock:
            if not self._users:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(_SWITCH_INTERVAL)
                self._short = sys.getswitchinterval()
            self._users += 1

    def restore(self) -> None:
        """Restore the previous interval, unless another part of the program has changed it meanwhile."""
        with self._lock:
            self._users -= 1
            if not self._users and sys.getswitchinterval() == self._short:
                sys.setswitchinterval(self._before)


_SWITCHING = _Switching()
