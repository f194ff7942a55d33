# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An interrupted `make test` ends all its processes; otherwise they would use both cores for an hour."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.netops.conntrack.tests.collection_tree import CHECKOUT

#: Workers start as in nox: in a session of their own, here also without a reaction to SIGTERM.
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(300)"
#: A process that starts another in a new session and ends before it.
ABANDONING = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {STUBBORN!r}], start_new_session=True, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
"""
SUPERVISING = f"""
import subprocess, sys, time
from tests import processes
processes.GRACE = 0.3
with processes.ending_with_this():
    done = subprocess.run([sys.executable, "-c", {ABANDONING!r}], stdout=subprocess.PIPE)
    worker = subprocess.Popen([sys.executable, "-c", {STUBBORN!r}], start_new_session=True, stdout=subprocess.PIPE)
    worker.stdout.readline()
    print(int(done.stdout), worker.pid, flush=True)
    %s
"""


def start(last_line: str) -> tuple[subprocess.Popen[str], list[int]]:
    """Start a supervisor with two workers; return it with the ids of the workers."""
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISING % last_line],
        cwd=CHECKOUT,
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert supervisor.stdout is not None
    return supervisor, [int(pid) for pid in supervisor.stdout.readline().split()]


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["process", "group"])
def test_an_interrupted_run_ends_all_of_its_processes(send: Callable[[int, int], None], number: int) -> None:
    supervisor, workers = start("time.sleep(300)")
    with supervisor:
        assert len(workers) == 2
        assert all(map(runs, workers))
        send(supervisor.pid, number)
        assert supervisor.wait(120) == -number
    assert not any(map(runs, workers))


def test_a_run_that_ends_leaves_no_process() -> None:
    supervisor, workers = start("pass")
    with supervisor:
        assert supervisor.wait(120) == 0
    assert not any(map(runs, workers))
