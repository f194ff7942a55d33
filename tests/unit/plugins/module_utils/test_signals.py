# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who stops a task is obeyed, and finds nothing left that was done by half."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Iterator

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.signals import unwound

UTILS = "ansible_collections.netops.conntrack.plugins.module_utils"
FAKES = "ansible_collections.netops.conntrack.tests.unit.plugins.module_utils"
ENDING = [signal.SIGTERM, signal.SIGHUP]

#: Saves a table to a file; the signal comes when the entries are asked for.
SAVE = f"""
import os, signal, sys
from {FAKES}.fake_kernel import GET, UDP, Connection, Ends, Kernel, Zone
from {UTILS}.client.labels import LabelMap
from {UTILS}.client.match import EVERYTHING
from {UTILS}.snapshot import save

path, number = sys.argv[1], int(sys.argv[2])
ends = Ends(b"\\n\\0\\0\\1", b"\\n\\0\\0\\2", UDP, (1, 2))
kernel = Kernel()
kernel.connections = [Connection(2, ends, ends.inverted(), Zone(), 60)]

def meanwhile(_number, request):
    if request.type == GET:
        print(len(os.listdir(os.path.dirname(path))), flush=True)
        os.kill(os.getpid(), number)

kernel.meanwhile = meanwhile
with kernel.table() as table:
    save(table, path, EVERYTHING, LabelMap(), False)
"""


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Those of this process, as they are without a test."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def run(code: str, *arguments: Any) -> Any:
    """A process of its own that runs this."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment,
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("number", ENDING)
def test_a_save_that_is_stopped_leaves_the_old_snapshot_and_nothing_else(number: int, tmp_path: Path) -> None:
    (tmp_path / "it.gz").touch()
    ended = run(SAVE, tmp_path / "it.gz", int(number))
    assert ended.stdout == b"2\n", ended.stderr
    assert ended.returncode == -number
    assert ended.stderr == b""
    assert os.listdir(str(tmp_path)) == ["it.gz"]
    assert (tmp_path / "it.gz").stat().st_size == 0


def test_a_second_signal_does_not_keep_it_from_being_undone() -> None:
    code = f"""
import os, signal
from {UTILS}.signals import unwound
with unwound():
    try:
        os.kill(os.getpid(), signal.SIGHUP)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        print("undone", flush=True)
"""
    ended = run(code)
    assert (ended.stdout, ended.returncode, ended.stderr) == (b"undone\n", -signal.SIGHUP, b"")


def test_it_ends_whatever_becomes_of_the_exception() -> None:
    """Also where an error on the way out takes its place, or somebody takes every exception for his own."""
    for outcome in ("raise OSError", "pass"):
        code = f"""
import os, signal
from {UTILS}.signals import unwound
with unwound():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except BaseException:
        {outcome}
"""
        ended = run(code)
        assert (ended.returncode, ended.stderr) == (-signal.SIGTERM, b"")


def test_afterwards_all_is_as_it_was() -> None:
    """Who imports the client has a process that goes on."""
    with unwound():
        assert [signal.getsignal(number) for number in ENDING].count(signal.SIG_DFL) == 0
    with pytest.raises(KeyError), unwound():
        raise KeyError
    assert [signal.getsignal(number) for number in ENDING] == [signal.SIG_DFL] * 2


def test_a_signal_that_is_ignored_or_taken_is_left_to_who_did_that() -> None:
    """As by nohup: its task is to go on when the session ends."""
    code = f"""
import os, signal
from {UTILS}.signals import unwound
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.signal(signal.SIGTERM, lambda number, _frame: print(number, flush=True))
with unwound():
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGTERM)
print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, callable(signal.getsignal(signal.SIGTERM)))
"""
    ended = run(code)
    assert (ended.stdout, ended.returncode) == (b"15\nTrue True\n", 0), ended.stderr


def test_in_another_thread_it_does_its_work_without() -> None:
    """There Python knows no signals."""
    done = []

    def work() -> None:
        with unwound():
            done.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [signal.SIG_DFL]
