# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Let every system call of every module that writes fail once, on the running kernel.

After each fault, the kernel has only earlier or declared values, and the result of the module is correct. A second run
completes the task.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests import programs
from tests.faults import FAULTS, WRITING, Fault
from tests.faults.checks import Course, changed_things, lasting, unwanted, without_fault
from tests.faults.injection import Call, Injector, applies
from tests.faults.scenarios import REQUIRED, SCENARIOS, Document, Done, Stage, State, import_modules
from tests.lab import Namespace
from tests.profiles import share

#: The number of calls in which each fault of an answer is injected under the profile `thorough`.
MOST = 2
#: Seconds after which a process that runs a task several times is killed. Usually, a few are enough.
PATIENCE = 600
#: Faults that are injected in all calls from the chosen one on.
LASTING = [fault for fault in FAULTS if fault.name in ("send-EACCES", "receive-lost", "receive-EACCES")]
#: Errors of a replacement whose second request failed.
HALF_DONE = re.compile("is lost$|^expectation .*: timeout is|^the second run did not complete it")
#: Keys of results that do not describe a failure.
LONG = ("invocation", "diff", "before", "entry", "expectation", "snapshot")
#: Messages about requests with an unknown result, or about changes that were undone.
MAYBE = re.compile("unknown|lost|may be|may have|not read back|deleted and restored")


class Observation(NamedTuple):
    """A task with a fault at one call, and the same task in a second run."""

    number: int
    start: State
    now: State
    done: Done
    end: State
    again: Done


class Play(NamedTuple):
    name: str
    stage: Stage
    course: Course


@pytest.fixture(scope="module", params=SCENARIOS)
def play(request: pytest.FixtureRequest, root: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Play]:
    programs.require(*REQUIRED)
    import_modules(*WRITING)
    with Namespace() as namespace:
        stage = Stage(SCENARIOS[request.param], namespace, tmp_path_factory.mktemp("faults"))
        yield Play(request.param, stage, namespace.call(without_fault, stage, timeout=PATIENCE))


def with_fault(stage: Stage, fault: Fault, numbers: list[int], stays: bool = False) -> list[Observation]:
    found = []
    for number in numbers:
        stage.reset()
        start = stage.state()
        done = stage.run(Injector(fault, number, stays=stays))
        now = stage.state()
        again = stage.run()
        found.append(Observation(number, start, now, done, stage.state(), again))
    return found


def sample(calls: list[Call], fault: Fault, scenario: str) -> list[int]:
    """Return the numbers of some calls in which the fault can happen, the same ones in every run.

    A fault of an answer happens to parts of dumps and to other answers in turn. Each error of another call happens
    once, and different errors happen at different calls if there are enough calls.
    """
    places = [call for call in calls if applies(fault, call)]
    if not places:
        return []
    if fault.call != "receive":
        random.Random(f"{scenario} {fault.call}").shuffle(places)
        turn = [each for each in FAULTS if each.call == fault.call].index(fault)
        return [places[turn % len(places)].number]
    random.Random(f"{scenario} {fault.name}").shuffle(places)
    kinds = [
        [call for call in places if call.is_dump == is_dump] for is_dump in (places[0].is_dump, not places[0].is_dump)
    ]
    turns = [call for pair in itertools.zip_longest(*kinds) for call in pair if call]
    return sorted(call.number for call in turns[: share(MOST)])


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_fault_does_no_harm(play: Play, fault: Fault) -> None:
    name, stage, course = play
    assert not course.done.result.get("failed"), course.done.result["msg"]
    assert course.goal != course.start
    numbers = sample(course.done.calls, fault, name)
    if not numbers:
        return
    observations = stage.namespace.call(with_fault, stage, fault, numbers, timeout=PATIENCE)
    assert any(observation.done.struck for observation in observations)
    for observation in observations:
        problems = list(faults_of(observation, course))
        if fault.how == "interrupted" and stage.scenario.module != "conntrack_snapshot":
            # A restore reads the table only to interpret answers that are lost later
            assert observation.done.result.get("failed"), "the module used an inconsistent list"
        assert not problems, f"call {observation.number}: {problems}. It reported: {outline(observation.done.result)}"


@pytest.mark.parametrize("fault", LASTING, ids=[fault.name for fault in LASTING])
def test_a_lasting_fault_does_no_harm(play: Play, fault: Fault) -> None:
    """All calls of one kind fail from the chosen one on, so the module can neither read back nor undo a change."""
    name, stage, course = play
    numbers = sample(course.done.calls, fault, name)
    if not numbers:
        return
    for observation in stage.namespace.call(with_fault, stage, fault, numbers, True, timeout=PATIENCE):
        problems = [problem for problem in faults_of(observation, course) if not is_half_done(problem, observation)]
        assert not problems, f"call {observation.number}: {problems}. It reported: {outline(observation.done.result)}"


def is_half_done(problem: str, observation: Observation) -> bool:
    """Return whether the first of two requests can be neither completed nor undone, and the result reports it.

    The second run then creates only declared values, and does not change the timeout of an existing expectation.
    """
    result = observation.done.result
    if not (HALF_DONE.search(problem) and result.get("failed") and result["changed"]):
        return False
    return bool(re.search("unknown|could not be restored|timeout was not set", result["msg"]))


def test_each_module_that_writes_has_a_scenario() -> None:
    assert {scenario.module for scenario in SCENARIOS.values()} == set(WRITING)


def faults_of(observation: Observation, course: Course) -> Iterator[str]:
    """Yield the violated guarantees."""
    _number, start, now, done, end, again = observation
    result = done.result
    yield from unwanted(start, now, course.goal)
    actual = changed_things(start, now)
    total = sum(actual.values())
    if total and not result["changed"]:
        yield f"{actual} and changed is false"
    if not total and result["changed"] and not result.get("failed") and not result.get("unknown"):
        yield "changed is true, but nothing changed"
    if not total and result.get("failed") and result["changed"] and not MAYBE.search(result["msg"]):
        yield "changed is true, but nothing changed"
    if not result.get("failed"):
        if lasting(now) != lasting(course.goal):
            yield "the task did not fail, but the values are not the declared ones"
        seen, usual = (comparable(one) for one in (result, course.done.result))
        if seen != usual and not result.get("unknown"):
            yield f"the result differs: {sorted(key for key in {**seen, **usual} if seen.get(key) != usual.get(key))}"
    count = reported(result)
    if count > total:
        yield f"{count} reported, {total} changed: {actual}"
    if result.get("failed") and total > count + slack(result):
        yield f"only {count} reported, {total} changed: {actual}"
    if again.result.get("failed"):
        yield f"the second run failed: {again.result['msg']}"
    elif lasting(end) != lasting(course.goal):
        yield f"the second run did not complete it: {changed_things(course.goal, end)}"


def outline(result: Document) -> Document:
    """Return a result without its lists."""
    return {key: value for key, value in result.items() if not isinstance(value, list) and key not in LONG}


def comparable(result: Document) -> dict[str, str]:
    """Return the parts of a result that are the same in every run."""
    kept = {
        key: value
        for key, value in result.items()
        if key not in ("invocation", "snapshot", "checksum", "total", "warnings")
    }
    # A timeout that is read again after a fault has decreased if the machine stood still in between
    varies = r"'(id|timeout|use)': ({[^}]*}|[^,}]+)"
    return {key: re.sub(varies, "", str(kept[key])) for key in kept}


def reported(result: Document) -> int:
    """Return the number of changes that a result reports."""
    for key in ("flushed", "updated", "zeroed"):
        if key in result:
            return int(result[key])
    if "counts" in result:
        counts = [result["counts"], result.get("expectation_counts", {})]
        return sum(one.get(key, 0) for one in counts for key in ("created", "updated", "replaced", "deleted"))
    if "operation" in result:
        return int(result["operation"] != "unchanged" and not result.get("failed"))
    return len(result["changes"])


def slack(result: Document) -> float:
    """Return the number of further changes that are possible according to the result."""
    if "zeroed" in result:
        return float("inf") if "may be zeroed and lost" in result["msg"] else 0
    if "counts" in result:
        counts = [result["counts"], result.get("expectation_counts", {})]
        return int(result.get("unknown", 0)) + sum(one.get("failed", 0) for one in counts)
    if "operation" in result:
        return int(result["operation"] != "unchanged")
    if "flushed" in result:
        lost = re.search(r"the answers for (\d+) of them were lost", result["msg"])
        return int(lost[1]) if lost else 0
    return int(result.get("refused", 0))
