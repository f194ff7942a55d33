# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measure tasks of real plays: a module of this collection and the equivalent command, in turn."""

from __future__ import annotations

import contextlib
import itertools
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tests.lab import Namespace
from tests.lab.isolation import end_with_parent

from .process import TIMEOUT, WorkFailed
from .rows import OURS, Limit, Results, Row, Side
from .stage import BARE, Stage

FORKS = 10
#: Entries in each host's table: those of a small gateway, so that the time of the task itself dominates.
ENTRIES = 100
COMMAND = "ansible.builtin.command"
TIMER = Path(__file__).parent / "callback"

Task = dict[str, Any]


class Times(NamedTuple):
    """Elapsed seconds of a task, and processor seconds of Ansible, its workers, the modules and their programs."""

    seconds: float
    processor: float


class Pair(NamedTuple):
    """Two equivalent tasks, and the name of what they do."""

    name: str
    ours: Task
    theirs: Task


FLUSH = Pair(
    "conntrack_flush",
    {"netops.conntrack.conntrack_flush": {"match": {"protocol": "udp", "destination_port": 53, "source": "10.9.9.9"}}},
    {
        COMMAND: "conntrack -D -p udp --dport 53 -s 10.9.9.9",
        "register": "removed",
        "changed_when": "removed.rc == 0",
        "failed_when": "removed.rc > 1",
    },
)
INFO = Pair(
    "conntrack_info",
    {"netops.conntrack.conntrack_info": {"match": {"protocol": "tcp", "destination_port": 443}}},
    {COMMAND: "conntrack -L -p tcp --dport 443", "changed_when": False},
)
EMPTY = Pair(
    "conntrack_flush of all",
    {"netops.conntrack.conntrack_flush": {"all": True}},
    {COMMAND: "conntrack -F"},
)


def measure(stage: Stage, results: Results) -> None:
    """Measure one host, then many. Each host is a namespace that the connection plugin netns enters."""
    if stage.conntrack is None:
        return
    sizes = stage.sizes
    for pairs, hosts, turns in (
        ([FLUSH, INFO], 1, sizes.tasks),
        ([FLUSH, EMPTY], sizes.hosts, sizes.tasks_of_hosts),
    ):
        on = f"{hosts} host{'s' * (hosts > 1)}"
        stage.say(f"tasks with our modules and with conntrack, in turn, on {on}")
        times = iter(_times(stage, pairs, hosts, turns))
        for pair in pairs:
            command = "command: " + " ".join(pair.theirs[COMMAND].split()[:2])
            sides = [_side(name, next(times)) for name in (OURS, command)]
            stage.say(f"  {pair.name} {sides[0].values[0]:.3f} s, {command} {sides[1].values[0]:.3f} s")
            results.add(
                Row(
                    f"{pair.name} task, {on}",
                    f"a task with {pair.name}, {on}",
                    sides,
                    [Limit(1.15, command)],
                    note=f"the median of {turns} in one play, in turn, after a first one of each; connection netns "
                    f"with pipelining, {FORKS} forks, {ENTRIES} entries on each host, none to remove after the first",
                )
            )


#: Namespaces in which tasks of one namespace, and bare receive loops, are measured. Their mean stands for all, which
#: would take a minute.
MEASURED = 10
ONE_NAMESPACE = "one task, 1 namespace"


def measure_namespaces(stage: Stage, results: Results) -> None:
    """Measure one task that reads many namespaces of a host, a task that reads one, and a task for each namespace."""
    number = stage.sizes.namespaces
    stage.say(f"one task with {number} namespaces, and a task for each")
    with contextlib.ExitStack() as stack:
        namespaces = [stack.enter_context(Namespace("bench")) for _namespace in range(number)]
        for namespace in namespaces:
            stage.fill(namespace, ENTRIES)
        paths = [namespace.path for namespace in namespaces]
        tasks = [_read(paths)] + [_read(path) for path in paths[:MEASURED]]
        # The first task builds the payload
        numbered = [{"name": f"task {position}", **task} for position, task in enumerate([_read(paths[0]), *tasks])]
        _first, ours, *others = play(stage, namespaces[:1], numbered)
        loops = [stage.work(namespace, "bare", "receive") for namespace in namespaces[:MEASURED]]
    one = _mean(others)
    loop = _mean([Times(sample.seconds, sample.processor) for sample in loops])
    every = f"{number} tasks"
    sides = [
        _side(OURS, [ours]),
        _side(BARE, [Times(*(value * number for value in loop))]),
        _side(ONE_NAMESPACE, [one]),
        _side(every, [Times(*(value * number for value in one))]),
    ]
    stage.say(f"  {number} namespaces in one task {ours.seconds:.3f} s, {ONE_NAMESPACE} {one.seconds:.3f} s")
    results.add(
        Row(
            "namespaces",
            f"read {number} network namespaces of a host with conntrack_info, in one task",
            sides,
            [Limit(0.1, every), Limit(0.1, every, processor=True)] if number >= MEASURED else [],
            note=f"{ENTRIES} entries in each. {every}, {BARE}: the mean in {len(others)} namespaces, times {number}",
        )
    )


def _mean(times: list[Times]) -> Times:
    return Times(*(statistics.mean(values) for values in zip(*times, strict=True)))


def _read(netns: Any) -> Task:
    """Return a task that reads the entries of a namespace, or of each of a list."""
    match = {"protocol": "tcp", "destination_port": 443}
    return {"netops.conntrack.conntrack_info": {"netns": netns, "match": match, "limit": 10}}


def _side(name: str, times: list[Times]) -> Side:
    seconds, processor = (statistics.median(values) for values in zip(*times, strict=True))
    return Side(name, [seconds], [processor])


def _times(stage: Stage, pairs: list[Pair], hosts: int, turns: int) -> list[list[Times]]:
    """Return the time of each task of each pair, turn by turn."""
    with contextlib.ExitStack() as stack:
        namespaces = [stack.enter_context(stage.table()) for _host in range(hosts)]
        for namespace in namespaces:
            stage.fill(namespace, ENTRIES)
        # The first task of each kind builds the payload for all hosts and all later tasks, so it does not count.
        wanted = [task for pair in pairs for task in (pair.ours, pair.theirs)]
        plays = [{**task, "run_once": True} for task in wanted] + wanted * turns
        times = play(stage, namespaces, [{"name": f"task {number}", **task} for number, task in enumerate(plays)])
    return [times[len(wanted) + position :: len(wanted)] for position in range(len(wanted))]


def play(stage: Stage, namespaces: list[Namespace], tasks: list[Task]) -> list[Times]:
    """Return the time of each task of a play."""
    folder = stage.folder
    (folder / "ansible.cfg").touch()
    playbook, inventory = folder / "play.json", folder / "inventory.json"
    playbook.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    inventory.write_text(json.dumps(_inventory(namespaces)))
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "--inventory", str(inventory), str(playbook)],
        check=False,
        capture_output=True,
        text=True,
        env={**stage.runner.environment, **_settings(folder)},
        timeout=TIMEOUT,
        preexec_fn=end_with_parent,  # pylint: disable=subprocess-popen-preexec-fn
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    failures = [line["failure"] for line in lines if "failure" in line]
    begins = [line for line in lines if "task" in line]
    if done.returncode or failures or len(begins) != len(tasks) + 1:
        raise WorkFailed(f"the play: {(failures or [done.stderr.strip() or done.stdout.strip()])[0]}")
    return [
        Times(after["ended"] - before["at"], after["processor"] - before["processor"])
        for before, after in itertools.pairwise(begins)
    ]


def _inventory(namespaces: list[Namespace]) -> dict[str, Any]:
    return {
        "all": {
            "vars": {
                "ansible_connection": "netops.conntrack.netns",
                "ansible_python_interpreter": sys.executable,
                "ansible_pipelining": True,
            },
            "hosts": {f"host{number}": {"ansible_netns_name": one.path} for number, one in enumerate(namespaces)},
        }
    }


def _settings(folder: Path) -> dict[str, str]:
    return {
        "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
        "ANSIBLE_HOME": str(folder / "home"),
        "ANSIBLE_REMOTE_TMP": str(folder / "remote"),
        "ANSIBLE_COLLECTIONS_PATH": str(folder / "collections"),
        "ANSIBLE_CALLBACK_PLUGINS": str(TIMER),
        "ANSIBLE_STDOUT_CALLBACK": "bench_timer",
        "ANSIBLE_FORKS": str(FORKS),
        "ANSIBLE_RETRY_FILES_ENABLED": "False",
    }
