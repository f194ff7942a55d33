# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Kill modules before one of their system calls, on the running kernel. A second run completes the task."""

from __future__ import annotations

import os
import random
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests import programs
from tests.faults.checks import Course, lasting, unwanted, without_fault
from tests.faults.injection import Injector
from tests.faults.scenarios import REQUIRED, SCENARIOS, Done, Scenario, Stage, import_modules, line
from tests.lab import Namespace
from tests.profiles import share

#: The number of system calls before which a task is killed under the profile `thorough`.
MOST = 6
#: Seconds after which a process that runs a task is killed. Usually, a few are enough.
PATIENCE = 600
#: The possible state after SIGKILL between the two requests of a change: the old entry is deleted, or the new
#: expectation has the timeout of its helper.
HALF_DONE = re.compile("(.*) is lost|(expectation .*): timeout is .*")
#: Tasks, and whether they make such changes.
TASKS = {
    "restore": False,
    "restore-over": False,
    "entries": True,
    "entries-purged": False,
    "flush": False,
    "flush-limited": False,
    "update": False,
    "entry-replaced": True,
    "expectation-replaced": True,
    "policy-replaced": True,
    "config": True,
}
SAVED = Scenario(
    "conntrack_snapshot",
    {"state": "saved", "path": "{folder}/snapshot"},
    "".join(line(port) for port in range(1, 3001)),
)


class Play(NamedTuple):
    name: str
    stage: Stage
    course: Course


@pytest.fixture(scope="module", params=TASKS)
def play(request: pytest.FixtureRequest, root: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Play]:
    programs.require(*REQUIRED)
    scenario = SCENARIOS[request.param]
    import_modules(scenario.module)
    with Namespace() as namespace:
        stage = Stage(scenario, namespace, tmp_path_factory.mktemp("killed"))
        yield Play(request.param, stage, namespace.call(without_fault, stage, timeout=PATIENCE))


def moments(calls: int, seed: str) -> list[int]:
    """Return the places of some calls, the same ones in every run."""
    return sorted(random.Random(seed).sample(range(calls), min(calls, share(MOST))))


def run_until(stage: Stage, number: int, place: int) -> Done:
    """Run the task, and send a signal to this process before the call at that place."""

    def before(at: int) -> None:
        if at == place:
            os.kill(os.getpid(), number)

    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    return stage.run(Injector(before=before))


def kill(stage: Stage, number: int, place: int) -> None:
    """Run the task in a process that the signal ends. The task may also complete before."""
    try:
        stage.namespace.call(run_until, stage, number, place, timeout=PATIENCE)
    except ChildProcessError as death:
        if f"exit code {-number} " not in str(death):
            raise


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_killed_task_does_no_harm(play: Play, number: signal.Signals, request: pytest.FixtureRequest) -> None:
    """SIGTERM loses nothing. SIGKILL may interrupt a replacement, and a second run creates the declared values."""
    name, stage, (_start, goal, done) = play
    for place in moments(len(done.calls), request.node.name):
        stage.namespace.call(stage.reset, timeout=PATIENCE)
        start = stage.state()
        kill(stage, number, place)
        now = stage.state()
        problems = list(unwanted(start, now, goal))
        halves = set()
        if number == signal.SIGKILL and TASKS[name]:
            halves = {found[1] or found[2] for found in map(HALF_DONE.fullmatch, problems) if found}
            problems = [problem for problem in problems if not HALF_DONE.fullmatch(problem)]
        assert not problems, (place, problems)
        again: Any = stage.namespace.call(stage.run, timeout=PATIENCE).result
        assert not again.get("failed"), (place, again["msg"])
        end = stage.state()
        assert halves <= end.keys(), place
        rest, wanted = ({key: lasting(state)[key] for key in state if key not in halves} for state in (end, goal))
        assert rest == wanted, place


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_killed_save_leaves_a_complete_snapshot(
    namespace: Namespace, tmp_path: Path, number: signal.Signals, request: pytest.FixtureRequest
) -> None:
    """The folder has only one file, which is the old or the new snapshot."""
    programs.require(*REQUIRED)
    import_modules(SAVED.module)
    stage = Stage(SAVED, namespace, tmp_path)
    course = namespace.call(without_fault, stage, timeout=PATIENCE)
    path = tmp_path / "snapshot"
    for place in moments(len(course.done.calls), request.node.name):
        before = path.read_bytes()
        kill(stage, number, place)
        assert os.listdir(tmp_path) == ["snapshot"]
        if path.read_bytes() != before:
            check = stage.namespace.call(stage.checked, timeout=PATIENCE)
            assert not check.get("failed"), check["msg"]
        assert not stage.namespace.call(stage.run, timeout=PATIENCE).result.get("failed")
