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
#: Nothing that is measured here takes as long, however busy the machine is.
TIMEOUT = 900.0
#: How often a program is asked for its memory; a Python of ours tells it itself at its end.
GLANCE_MS = 20
MACHINE = "BENCH_MACHINE"


class WorkFailed(RuntimeError):
    """A process failed, or did not do all that it was to do."""


class Sample(NamedTuple):
    """One measurement: elapsed seconds, processor seconds (user and system time), and peak memory in MB."""

    done: int
    seconds: float
    processor: float
    memory: float


@contextlib.contextmanager
def workshop() -> Iterator[Path]:
    """A folder for the length of the bench, in which the collection can be imported and found by Ansible."""
    with tempfile.TemporaryDirectory(prefix="conntrack-bench-") as name:
        folder = Path(name)
        collections = folder / "collections/ansible_collections/netops"
        collections.mkdir(parents=True)
        (collections / "conntrack").symlink_to(CHECKOUT)
        yield folder


class Runner:
    """Starts processes; they end with this one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        #: processors that the processes may run on; None stands for those of this process
        self.processors: set[int] | None = None
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTHON"))}
        self.environment = {
            **kept,
            "LC_ALL": "C.UTF-8",
            "PYTHONPATH": os.pathsep.join([str(folder / "collections"), str(CHECKOUT)]),
            # Compiled once, as an installed library is, and not into the checkout.
            "PYTHONPYCACHEPREFIX": str(folder / "compiled"),
            MACHINE: os.readlink("/proc/self/ns/net"),
        }

    def work(self, namespace: Namespace, module: str, work: str, *arguments: object) -> Sample:
        """Run a work of one of the modules beside this one."""
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
        """Run a program with its output thrown away, or into a file; `done` is its exit status."""
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
        """Prepare a child process, before it runs the program."""
        end_with_parent()
        if self.processors:
            os.sched_setaffinity(0, self.processors)


def _most_memory(pid: int) -> float:
    """Wait for a process to end; the most memory in MB that it was seen to have had until shortly before.

    Not ru_maxrss: in that, the process has inherited the memory of this one, which started it.
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
