# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Child processes in namespaces. Each runs one function until the parent requests its result."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from tests.lab import Namespace
from tests.lab.isolation import end_with_parent


class ChildFailed(RuntimeError):
    """A child process raised an exception, died, or did not answer in time."""


class Stop:
    """A request of the parent to end. It is a pipe, so that the child can also poll it together with its sockets."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()

    def fileno(self) -> int:
        return self._reading

    def request(self) -> None:
        os.write(self._writing, b"x")

    def wait(self, seconds: float = 0.0) -> bool:
        """Return whether the parent requested the end, after at most this time."""
        return bool(select.select([self], [], [], max(0.0, seconds))[0])

    def close(self) -> None:
        os.close(self._reading)
        os.close(self._writing)


class Child:
    """A fork of this process inside a namespace.

    The function gets a `Stop`, a function to call when it is ready, and the arguments.
    """

    def __init__(self, name: str, namespace: Namespace, function: Callable[..., Any], *arguments: Any) -> None:
        self.name = name
        self._stop = Stop()
        context = multiprocessing.get_context("fork")
        self._answers, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_run, args=(sender, function, self._stop, arguments), daemon=True)
        with namespace.entered(), warnings.catch_warnings():
            # The threads of the lab hold no lock that the child takes
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        sender.close()

    def wait_until_ready(self, timeout: float = 30.0) -> None:
        self._receive(timeout)

    def result(self, timeout: float) -> Any:
        """Return what the function returns. Raises `ChildFailed`."""
        return self._receive(timeout)

    def stop(self, timeout: float) -> Any:
        """Request the end and return what the function returns. Raises `ChildFailed`."""
        self._stop.request()
        return self.result(timeout)

    def has_answer(self, timeout: float) -> bool:
        """Return whether there is an answer or the child died, after at most this time."""
        return self._answers.poll(timeout)

    def end(self) -> None:
        """End the process, if it still runs."""
        self._process.kill()
        self._process.join()
        self._answers.close()
        self._stop.close()

    def _receive(self, timeout: float) -> Any:
        if not self._answers.poll(timeout):
            raise ChildFailed(f"{self.name} did not answer within {timeout:.0f} s")
        try:
            failure, value = self._answers.recv()
        except EOFError:
            self._process.join()
            raise ChildFailed(f"{self.name} died with exit code {self._process.exitcode}") from None
        if failure:
            raise ChildFailed(f"{self.name} failed: {failure}")
        return value


def _run(sender: Any, function: Callable[..., Any], stop: Stop, arguments: tuple[Any, ...]) -> None:
    # Ctrl-C signals every process of the terminal; only the parent handles it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    end_with_parent()
    try:
        sender.send(("", function(stop, lambda: sender.send(("", None)), *arguments)))
    except BaseException:
        sender.send((traceback.format_exc(), None))
