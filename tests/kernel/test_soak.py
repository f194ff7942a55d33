# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A short run of the soak test: all guarantees hold, and the test detects the violation of each."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests import clock
from tests.soak import witness

CHECKOUT = Path(__file__).parents[2]
SHORT = ("--seconds", "3", "--rate", "200")
PROCESSES = 5
#: Seconds after which a run is considered hung.
TIMEOUT = 600

pytestmark = pytest.mark.usefixtures("root")


@pytest.fixture(scope="module", autouse=True)
def _large_buffers(root: None) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, witness.NETLINK_NETFILTER) as any_socket:
        try:
            any_socket.setsockopt(socket.SOL_SOCKET, witness.SO_RCVBUFFORCE, witness.BUFFER)
        except PermissionError:
            pytest.skip("only root may have a receive buffer that is large enough")


def soak(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.soak", *SHORT, *options],
        check=False,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


def test_the_guarantees_hold_in_a_short_run() -> None:
    done = soak()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    assert re.search(r"^  broken +0,", done.stdout, re.MULTILINE)
    for name in ("removed", "updated", "saved", "exchanges"):
        assert re.search(rf"^  {name} +[1-9]", done.stdout, re.MULTILINE), name


def thorough(broken: str, sentence: str) -> Any:
    return pytest.param(broken, sentence, marks=pytest.mark.thorough)


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        thorough("flush", r"\d+ entries outside the match were removed on the gateway"),
        thorough("count", r"The gateway: \d+ entries were reported as removed, but \d+ destroy events came"),
        thorough("memory", r"The memory of the worker grew by \d+\.\d MB"),
        ("echo", r"\d+ connections outside the matches broke: .*a wrong answer"),
    ],
)
def test_violated_guarantee_is_reported(broken: str, sentence: str) -> None:
    done = soak("--break", broken)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(f"^FAILED: {sentence}", done.stdout, re.MULTILINE), done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_lost_events_and_open_files_are_reported() -> None:
    from tests.soak.report import Run, violations
    from tests.soak.worker import Sample

    client = {"started": Counter(tcp=1), "finished": 1, "exchanges": 1, "broken": Counter(), "flushed": Counter()}
    work = {"figures": Counter(), "samples": [Sample(second, 1024, 9 + second) for second in range(3)]}
    found = list(violations(Run(1, [client], work, {"counts": {"gateway": Counter()}, "lost": 2})))
    assert len(found) == 2
    assert "The kernel lost events 2 times" in found[0]
    assert "11 open files at the end and had 9" in found[1]


def test_killed_process_is_reported() -> None:
    command = [sys.executable, "-m", "tests.soak", "--seconds", "60", "--rate", "200"]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        started = wait_for_children(run.pid)
        os.kill(started[2], signal.SIGKILL)
        output, errors = run.communicate(timeout=TIMEOUT)
        assert run.returncode == 1, output + errors
        assert re.search(r"^FAILED: client 1 died with exit code -9", output, re.MULTILINE), output + errors
        assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]


def test_an_interruption_ends_every_process(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "tests.soak", "--seconds", "60", "--rate", "200"]
    with (
        (tmp_path / "output").open("w+") as output,
        subprocess.Popen(
            command, cwd=CHECKOUT, stdout=output, stderr=output, env=environment, start_new_session=True
        ) as run,
    ):
        started = wait_for_children(run.pid)
        time.sleep(1)
        os.killpg(run.pid, signal.SIGINT)  # as the terminal does
        assert run.wait(timeout=TIMEOUT) == -signal.SIGINT
        assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]
        output.seek(0)
        assert "Traceback" not in output.read()
    assert [path.name for path in tmp_path.iterdir()] == ["output"]


def wait_for_children(pid: int) -> list[int]:
    """Return the process IDs of the witness, the server, two clients and the worker."""

    def started() -> list[int]:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    clock.wait_until(lambda: len(started()) == PROCESSES)
    return started()
