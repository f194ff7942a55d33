# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the benchmark on small tables. It measures every row and every limit, and leaves nothing behind."""

from __future__ import annotations

import json
import math
import os
import re
import socket
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests import programs
from tests.bench import go_client, process, room, sizes, tasks
from tests.bench.machine import label
from tests.bench.payload import modules
from tests.bench.process import MACHINE, Runner, WorkFailed, workshop
from tests.bench.stage import GO, Stage
from tests.lab import Namespace

CHECKOUT = Path(__file__).parents[2]
HOSTS = sizes.QUICK.hosts
HAS_CONNTRACK = programs.exists("conntrack")

#: Every row, with the programs that it is compared with.
ROWS = {
    "read": ["bare receive loop", "conntrack -L", GO, "pyroute2"],
    "read as flat dictionaries": [],
    "read as documents": ["pyroute2"],
    "narrowed dump": ["conntrack -L -p tcp --dport 443"],
    "many matches": ["reading all"],
    "many ranges": ["reading all"],
    "facts": ["bare receive loop"],
    "facts: memory": [],
    "facts with top": [],
    "facts with top: memory": [],
    "group by destination_port": ["bare receive loop"],
    "group by destination_port: memory": [],
    "group by destination_port, state": ["bare receive loop"],
    "group by destination_port, state: memory": [],
    "group by source": ["bare receive loop"],
    "group by source: memory": [],
    "group by source, state": ["bare receive loop"],
    "group by source, state: memory": [],
    "info": [],
    "info: memory": [],
    "wait": [],
    "wait: memory": [],
    "read, on one core": ["bare receive loop", "conntrack -L", GO],
    "facts, on one core": ["bare receive loop"],
    "flush by port": ["conntrack -D", GO],
    "flush by port: memory": [],
    "flush by port, on one core": ["conntrack -D", GO],
    "flush by network": ["conntrack -D", GO],
    "flush by network: memory": [],
    "flush by network, on one core": ["conntrack -D", GO],
    "judge": ["bare replay"],
    "judge: memory": [],
    "SNAT ports": ["bare receive loop"],
    "SNAT ports: memory": [],
    "create": ["conntrack -R"],
    "create prepared": ["conntrack -R"],
    "restore": ["conntrack -R"],
    "create, on one core": ["conntrack -R"],
    "restore, on one core": ["conntrack -R"],
    "save all": [],
    "save all: memory": [],
    "restore all": [],
    "restore all: memory": [],
    "one create": ["pyroute2"],
    "one get": ["pyroute2"],
    "one delete": ["pyroute2"],
    "import": ["compiling the client"],
    "scaling": [],
    "namespaces": ["bare receive loop", "one task, 1 namespace", f"{sizes.QUICK.namespaces} tasks"],
}
TASKS = {
    "conntrack_flush task, 1 host": ["command: conntrack -D"],
    "conntrack_info task, 1 host": ["command: conntrack -L"],
    f"conntrack_flush task, {HOSTS} hosts": ["command: conntrack -D"],
    f"conntrack_flush of all task, {HOSTS} hosts": ["command: conntrack -F"],
}
#: The limits of elapsed time and of memory, and the side to which each limit applies
LIMITS = {
    "read": [(1.15, "bare receive loop"), (0.65, "conntrack -L")],
    "many matches": [(2.0, "reading all")],
    "many ranges": [(2.0, "reading all")],
    "facts": [(1.3, "bare receive loop")],
    "facts: memory": [(40, None)],
    "facts with top: memory": [(64, None)],
    "info: memory": [(64, None)],
    "wait: memory": [(64, None)],
    "read, on one core": [(0.6, "conntrack -L")],
    "facts, on one core": [],
    "flush by port": [(0.35, "conntrack -D")],
    "flush by port: memory": [(64, None)],
    "flush by port, on one core": [(0.65, "conntrack -D")],
    "flush by network": [(0.5, "conntrack -D")],
    "flush by network: memory": [(64, None)],
    "flush by network, on one core": [(0.65, "conntrack -D")],
    "judge": [(1.5, "bare replay")],
    "judge: memory": [(64, None)],
    "create": [(0.6, "conntrack -R")],
    "create prepared": [(0.4, "conntrack -R")],
    "restore": [(1.0, "conntrack -R")],
    "save all: memory": [(64, None)],
    "restore all: memory": [(64, None)],
    "one create": [(30, None)],
    "one get": [(30, None)],
    "one delete": [(30, None)],
    "import": [(15, None)],
    "conntrack_flush task, 1 host": [(1.15, "command: conntrack -D")],
    "conntrack_info task, 1 host": [(1.15, "command: conntrack -L")],
    f"conntrack_flush task, {HOSTS} hosts": [(1.15, "command: conntrack -D")],
    f"conntrack_flush of all task, {HOSTS} hosts": [(1.15, "command: conntrack -F")],
}
PROCESSOR_LIMITS = {
    "read": [(1.9, "bare receive loop")],
    "facts": [(1.6, "bare receive loop")],
    "flush by port": [(0.6, "conntrack -D")],
    "flush by network": [(0.6, "conntrack -D")],
    "create": [(0.75, "conntrack -R")],
    "create prepared": [(0.6, "conntrack -R")],
    "restore": [(1.0, "conntrack -R")],
}
TIME = ("s", "ms", "µs", "times")


class Bench(NamedTuple):
    """The output and the files of a quick run."""

    shown: str
    progress: str
    json: str
    svg: str

    @property
    def found(self) -> dict[str, Any]:
        (machine,) = json.loads(self.json)["machines"]
        assert isinstance(machine, dict)
        return machine

    def rows(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in self.found["rows"]}


@pytest.fixture(scope="module")
def bench(root: None, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("bench")
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--quick", "--output", str(folder)],
        check=False,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Bench(done.stdout, done.stderr, *((folder / f"bench.{kind}").read_text() for kind in ("json", "svg")))


def is_available(side: str) -> bool:
    if side == GO:
        return programs.exists("go") and go_client.version() is not None
    return HAS_CONNTRACK or not side.startswith("conntrack")


@pytest.mark.thorough
def test_every_row_exists(bench: Bench) -> None:
    payloads = {f"payload of {path.stem}" for path in modules()}
    of_tasks = set(TASKS) if HAS_CONNTRACK else set()
    assert bench.rows().keys() == ROWS.keys() | of_tasks | payloads
    assert not bench.found["failures"]


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "others"), {**ROWS, **TASKS}.items())
def test_row_has_values_for_every_side(bench: Bench, name: str, others: list[str]) -> None:
    if name in TASKS:
        programs.require("conntrack")
    row = bench.rows()[name]
    first, *rest = row["sides"]
    assert [side["name"] for side in rest] == [other for other in others if is_available(other)]
    for side in row["sides"]:
        assert len(side["values"]) == 1
        assert all(math.isfinite(value) and value > 0 for value in side["values"])
        # A fast program can end before its memory is measured
        assert all(memory > 0 or side is not first for memory in side["peak_memory_mb"])
        assert len(side["processor_time"]) == (row["unit"] in TIME)
        assert all(math.isfinite(value) and value > 0 for value in side["processor_time"])
    for side in rest:
        for times, ratios in (("values", "ratios"), ("processor_time", "processor_ratios")):
            per_entry = [one[times][0] / (one["entries"] or 1) for one in (first, side)]
            assert side[ratios] == [pytest.approx(per_entry[0] / per_entry[1], rel=0.01)]


@pytest.mark.thorough
def test_rows_on_one_core_run_all_sides_on_one_core(bench: Bench) -> None:
    ran = Counter(re.findall(r" s    (.+), on one core: [\d.]+ s \(turn 1\)", bench.progress))
    reading = ["read", "facts", "bare receive loop", "conntrack -L", GO]
    flushing, creating = ["this collection", "conntrack -D", GO] * 2, ["create", "restore", "conntrack -R"]
    assert ran == Counter(filter(is_available, reading + flushing + creating))
    pinned = {name for name, row in bench.rows().items() if row["processors"] == 1}
    assert pinned == {name for name in ROWS if name.endswith(", on one core")}


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "limits"), LIMITS.items())
def test_limits_of_a_row_are_applied(bench: Bench, name: str, limits: list[tuple[float, str | None]]) -> None:
    if name in TASKS:
        programs.require("conntrack")
    row = bench.rows()[name]
    for expected, processor in ((limits, False), (PROCESSOR_LIMITS.get(name, []), True)):
        found = [(one["at_most"], one["of"]) for one in row["limits"] if one["processor_time"] == processor]
        assert found == expected
    for limit in row["limits"]:
        if limit["of"] is None or is_available(limit["of"]):
            (measured,), (holds,) = limit["measured"], limit["holds"]
            assert holds == (measured <= limit["at_most"]) or measured == pytest.approx(limit["at_most"], rel=0.001)


@pytest.mark.thorough
def test_the_curves_have_every_size(bench: Bench) -> None:
    curves = {curve["name"]: curve for curve in bench.found["curves"]}
    assert curves.keys() == {"bare sending", "create", "bare receive loop", "read", "facts", "flush"}
    for curve in curves.values():
        assert curve["entries"] == list(sizes.QUICK.scaling)
        for times in (curve["seconds"], curve["processor_seconds"]):
            assert [len(run) for run in times] == [len(sizes.QUICK.scaling)]
            assert all(seconds > 0 for seconds in times[0])


@pytest.mark.thorough
def test_results_describe_the_machine_without_its_name(bench: Bench) -> None:
    machine = bench.found["machine"]
    assert machine["kernel"].split(".")[0] == os.uname().release.split(".")[0]
    assert machine["processors"] == len(os.sched_getaffinity(0))
    assert machine["processor"] != "unknown" or not Path("/proc/cpuinfo").exists()
    assert label(machine) in bench.shown
    assert 0 <= machine["steal_percent"] <= 100
    assert all(machine[name] for name in ("python", "ansible_core", "pyroute2"))
    assert bool(machine["conntrack"]) == HAS_CONNTRACK
    for text in (bench.json, bench.svg):
        for name in (str(CHECKOUT), str(Path.home()), socket.gethostname()):
            assert not re.search(rf"(?<![\w/]){re.escape(name)}(?!\w)", text)


@pytest.mark.thorough
def test_output_shows_progress_and_results(bench: Bench) -> None:
    assert all(f"run 1 of 1: {step}" in bench.progress for step in ("read", "flush", "create", "scaling", "tasks"))
    for row in bench.rows().values():
        assert row["work"] in bench.shown


@pytest.mark.thorough
def test_drawing_is_well_formed_and_complete(bench: Bench) -> None:
    names = {"": "http://www.w3.org/2000/svg"}
    drawing = ET.fromstring(bench.svg)
    title, description = (drawing.findtext(name, "", names) for name in ("title", "desc"))
    assert title
    assert "prefers-color-scheme: dark" in bench.svg
    words = " ".join(drawing.itertext())
    measured = [row["name"] for row in bench.found["rows"] if any(limit["holds"] for limit in row["limits"])]
    assert measured
    for name in [*measured, *(curve["name"] for curve in bench.found["curves"])]:
        assert name in words
        assert name in description


def test_table_of_the_machine_is_never_changed(namespace: Namespace) -> None:
    with workshop() as folder:
        runner = Runner(folder)
        with namespace.entered():
            runner.environment[MACHINE] = os.readlink("/proc/thread-self/ns/net")
        for work in (["fill", "20"], ["empty"]):
            with pytest.raises(WorkFailed, match="the machine's own"):
                runner.work(namespace, "bare", *work)
    assert namespace.count() == 0


def test_work_and_programs_run_on_one_core(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process, "CHILD", tmp_path / "child.py")
    allowed = "import os; (processor,) = os.sched_getaffinity(0)"
    process.CHILD.write_text(f"{allowed}; print(processor, 1, 1, 1024)")
    runner = Runner(tmp_path)
    for processor in os.sched_getaffinity(0):
        runner.processors = {processor}
        assert runner.work(namespace, "any", "work").done == processor
        program = [sys.executable, "-c", f"{allowed}; raise SystemExit(processor)"]
        assert runner.program(namespace, program, statuses=[processor]).done == processor


@pytest.mark.thorough
def test_the_processor_time_of_a_task_includes_its_programs(namespace: Namespace) -> None:
    program = "import time\nwhile time.process_time() < 0.7: pass"
    busy = {tasks.COMMAND: {"argv": [sys.executable, "-S", "-c", program]}}
    with workshop() as folder:
        stage = Stage(folder, sizes.QUICK)
        first, second = tasks.play(stage, [namespace], [busy, {"ansible.builtin.debug": {"msg": "idle"}}])
    assert first.processor >= 0.7
    assert first.processor >= second.processor + 0.5


def test_too_many_entries_are_reported_with_a_remedy(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(room, "SETTING", tmp_path / "absent/nf_conntrack_max")
    monkeypatch.setattr(room, "BYTES", 0)
    entries = int(namespace.sysctl("nf_conntrack_max")) + 1
    with (
        pytest.raises(room.NoRoom, match=r"sysctl net\.netfilter\.nf_conntrack_max=\d+.*--quick"),
        room.room_for(entries),
    ):
        pass
