# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Works and programs in processes of their own, inside a namespace: elapsed time, processor time and peak memory."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.lab import Namespace
from tests.lab.isolation import end_with_parent

CHECKOUT = Path(__file__).parents[2]
CHILD = Path(__file__).with_name("child.py")
#: An upper limit for the duration of any process here, even on a busy machine.
TIMEOUT = 900.0
#: Interval in which the memory of a program is read. The collection's own Python processes report it when they end.
GLANCE_MS = 20
MACHINE = "BENCH_MACHINE"


class WorkFailed(RuntimeError):
    """A process failed, or did not complete its work."""


class Sample(NamedTuple):
    """One measurement: elapsed seconds, processor seconds (user and system time), and peak memory in MB."""

    done: int
    seconds: float
    processor: float
    memory: float


@contextlib.contextmanager
def workshop() -> Iterator[Path]:
    """A folder that exists as long as the bench runs. Python and Ansible find the collection in it."""
    with tempfile.TemporaryDirectory(prefix="conntrack-bench-") as name:
        folder = Path(name)
        collections = folder / "collections/ansible_collections/netops"
        collections.mkdir(parents=True)
        (collections / "conntrack").symlink_to(CHECKOUT)
        yield folder


class Runner:
    """Start processes. They end when this process ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        #: processors that the processes may run on; None means the processors of this process
        self.processors: set[int] | None = None
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTHON"))}
        self.environment = {
            **kept,
            "LC_ALL": "C.UTF-8",
            "PYTHONPATH": os.pathsep.join([str(folder / "collections"), str(CHECKOUT)]),
            # Compile once, like an installed library, and not into the checkout.
            "PYTHONPYCACHEPREFIX": str(folder / "compiled"),
            MACHINE: os.readlink("/proc/self/ns/net"),
        }

    def work(self, namespace: Namespace, module: str, work: str, *arguments: object) -> Sample:
        """Run a work from one of the modules in this folder."""
        words = [sys.executable, str(CHILD), module, work, *map(str, arguments)]
        with namespace.entered():
            done = subprocess.run(
                words,
                check=False,
                capture_output=True,
                text=True,
                env=self.environment,
                timeout=TIMEOUT,
                cwd=CHECKOUT,
                preexec_fn=self._begin,  # pylint: disable=subprocess-popen-preexec-fn
            )
        if done.returncode:
            raise WorkFailed(f"{module}.{work}: {_last_line(done.stderr)}")
        number, seconds, processor, most = done.stdout.split()
        return Sample(int(number), float(seconds), float(processor), int(most) / 1024)

    def program(
        self, namespace: Namespace, words: Sequence[str], statuses: Sequence[int] = (0,), output: Path | None = None
    ) -> Sample:
        """Run a program and discard its output, or write it to a file; `done` is its exit status."""
        with (
            tempfile.TemporaryFile("w+") as errors,
            open(output or os.devnull, "wb") as sink,
            namespace.entered(),
        ):
            start = time.perf_counter()
            process = subprocess.Popen(  # pylint: disable=consider-using-with,subprocess-popen-preexec-fn
                words, stdout=sink, stderr=errors, env=self.environment, preexec_fn=self._begin
            )
            memory = _most_memory(process.pid)
            seconds = time.perf_counter() - start
            _pid, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode not in statuses:
                errors.seek(0)
                raise WorkFailed(f"{' '.join(words)}: {_last_line(errors.read())}")
        return Sample(process.returncode, seconds, used.ru_utime + used.ru_stime, memory)

    def _begin(self) -> None:
        """Prepare a child process before it starts the program."""
        end_with_parent()
        if self.processors:
            os.sched_setaffinity(0, self.processors)


def _most_memory(pid: int) -> float:
    """Wait for a process to end, and return the highest memory in MB that was read shortly before its end.

    ru_maxrss cannot be used: the process inherits in it the memory of this process, which started it.
    """
    memory = 0.0
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while not poll.poll(GLANCE_MS):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="utf-8") as status:
                memory = next((int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM")), memory)
    finally:
        os.close(descriptor)
    return memory


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]
