# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Test the bench without measurements: results of several machines in a folder, ratios and limits, text and drawing."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.netops.conntrack.tests.bench import archive, child, machine, page, plot, report
from ansible_collections.netops.conntrack.tests.bench.rows import OURS, Curve, Limit, Results, Row, Side
from ansible_collections.netops.conntrack.tests.collection_tree import CHECKOUT

DOCS = CHECKOUT / "docs"
SVG = {"": "http://www.w3.org/2000/svg"}
EPYC = ("AMD EPYC", 2, "x86_64")
XEON = ("Intel(R) Xeon(R) Platinum", 2, "x86_64")


def results(key: tuple[str, int, str], rows: list[Row] | None = None, **about: Any) -> Results:
    described = {
        "date": "2026-01-31",
        "kernel": "6.18.1",
        "processor": key[0],
        "processors": key[1],
        "architecture": key[2],
        "threads_per_core": 2,
        "load_at_start": 0.0,
        "steal_percent": 0.0,
        "python": "3.13.0",
        "ansible_core": "2.21.5",
        "pyroute2": "0.9.7",
        "vishvananda_netlink": None,
        "conntrack": "1.4.7",
    }
    return Results({**described, **about}, {"quick": False, "runs": 1}, [reading(), *(rows or [])])


def reading(name: str = "read", limits: list[Limit] | None = None, ours: float = 3.0) -> Row:
    """Read 100 entries in 1 s and 3 s of processor time; conntrack reads 50 in 2 s and 2 s."""
    sides = [Side(OURS, [1.0], [ours], [14.0]), Side("conntrack -L", [2.0], [2.0], [2.0], entries=50)]
    return Row(name, f"work: {name}", sides, limits or [], entries=100)


# results of several machines in one folder


def machines(folder: Path) -> dict[tuple[str, int, str], Any]:
    found = archive.read(folder)
    assert len({machine.key(one["machine"]) for one in found}) == len(found)
    return {machine.key(one["machine"]): one for one in found}


def test_a_run_replaces_only_the_results_of_its_own_machine(tmp_path: Path) -> None:
    others = [XEON, ("AMD EPYC", 4, "x86_64"), ("AMD EPYC", 2, "aarch64")]
    for number, key in enumerate([EPYC, *others]):
        archive.add(tmp_path / "new", results(key, date=f"2026-01-0{number + 1}"))
    before = machines(tmp_path / "new")
    assert list(before) == sorted([EPYC, *others])
    archive.add(tmp_path / "new", results(EPYC, date="2026-02-02"))
    after = machines(tmp_path / "new")
    assert list(after) == list(before)
    assert after.pop(EPYC)["machine"]["date"] == "2026-02-02"
    del before[EPYC]
    assert after == before


def test_results_of_another_machine_keep_unknown_keys(tmp_path: Path) -> None:
    archive.add(tmp_path, results(XEON))
    document = json.loads((tmp_path / archive.DATA).read_text())
    document["machines"][0]["later"] = {"values": [1.23456789]}
    (tmp_path / archive.DATA).write_text(json.dumps(document))
    archive.add(tmp_path, results(EPYC))
    assert machines(tmp_path)[XEON] == document["machines"][0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"format": 1, "machine": {}, "rows": []}', "has format 1 instead of 2: .*--output"),
        ("[]", "has format None instead of 2: .*--output"),
        ("{", "is not JSON .*--output"),
    ],
)
def test_a_file_in_another_format_is_refused_and_kept(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / archive.DATA).write_text(text)
    with pytest.raises(archive.Unreadable, match=reason):
        archive.add(tmp_path, results(EPYC))
    assert (tmp_path / archive.DATA).read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == [archive.DATA]


def test_file_is_refused_before_the_measurements(tmp_path: Path) -> None:
    (tmp_path / archive.DATA).write_text('{"format": 1}')
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--quick", "--output", str(tmp_path)],
        check=False,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{tmp_path / archive.DATA} has format 1")
    assert done.stderr.count("\n") == 1


def test_results_are_the_same_after_reading_them_back() -> None:
    curve = Curve("read", [1, 2], [[0.1, 0.2]], [[0.3, 0.4]])
    written = results(EPYC, [reading("pinned", [Limit(0.6, "conntrack -L", processor=True)])])
    written.rows[1].processors = 1
    written.curves.append(curve)
    document = json.loads(json.dumps(written.as_document()))
    assert Results.from_document(document).as_document() == document


def test_the_published_results_can_be_read_and_are_drawn() -> None:
    found = archive.read(DOCS)
    assert EPYC in {machine.key(one["machine"]) for one in found}
    drawn = plot.svg([Results.from_document(one) for one in found])
    assert (DOCS / archive.DRAWING).read_text(encoding="utf-8") == drawn, "run 'python -m tests.bench --draw'"


def test_the_page_has_the_published_results() -> None:
    text = page.PUBLISHED.read_text(encoding="utf-8")
    found = [Results.from_document(one) for one in archive.read(DOCS)]
    assert text == page.with_tables(text, found), "run 'python -m tests.bench --draw'"
    assert all(machine.label(results.machine) in text for results in found)


def test_the_page_compares_every_machine_with_every_program_and_shows_limits() -> None:
    compared = [Limit(0.2, "conntrack -L"), Limit(0.8, "conntrack -L", processor=True)]
    memory = Row("memory", "memory: read", [Side(OURS, [41.0])], [Limit(40.0)], unit="MB")
    first = results(EPYC, [reading("compared", compared), memory], load_at_start=1.5)
    lines = page.tables([first, results(XEON)]).splitlines()
    at = lines.index("    * - work: compared")
    assert lines[at + 1 : at + 4] == [
        "      - ``conntrack -L``",
        "      - 0.25 (limit 0.2, exceeded)",
        "      - 0.75 (limit 0.8)",
    ]
    assert lines[lines.index("    * - memory: read") + 1] == "      - 41 MB (limit 40, exceeded)"
    assert lines.count("    * - work: read") == 2
    assert [line for line in lines if line.startswith("The figures")] == [
        "The figures are doubtful: the load was 1.5 on 2 processors before the run."
    ]
    for label in ("AMD EPYC, 2 processors", "Intel Xeon Platinum, 2 processors"):
        assert any(line.startswith(label) for line in lines)


def test_only_the_tables_of_the_page_are_replaced() -> None:
    old = f"before\n{page.BEGIN}\nold\n{page.END}after\n"
    new = page.with_tables(old, [results(EPYC)])
    assert new.startswith(f"before\n{page.BEGIN}\nAMD EPYC, ")
    assert new.endswith(f"\n{page.END}after\n")
    assert page.with_tables(new, [results(EPYC)]) == new
    for comment in (page.BEGIN, page.END):
        with pytest.raises(ValueError, match=r"guide_performance\.rst lacks the comment"):
            page.with_tables(old.replace(comment, ""), [])


# ratios and limits


def test_processor_time_is_compared_by_entry_like_elapsed_time() -> None:
    row = reading()
    assert row.ratios(row.sides[1]) == [0.25]
    assert row.ratios(row.sides[1], processor=True) == [0.75]
    (_ours, theirs) = results(EPYC).as_document()["rows"][0]["sides"]
    assert (theirs["ratios"], theirs["processor_ratios"]) == ([0.25], [0.75])


@pytest.mark.parametrize("lost", [0, 1])
def test_missing_processor_time_is_not_compared(lost: int) -> None:
    row = reading(limits=[Limit(0.1, "conntrack -L", processor=True)])
    row.sides[lost].processor.clear()
    assert row.ratios(row.sides[1], processor=True) == []
    assert row.ratios(row.sides[1]) == [0.25]
    assert row.holds(row.limits[0]) is None
    assert row.kept(row.limits[0])


@pytest.mark.parametrize(("ours", "kept"), [(2.39, True), (2.41, False)])
def test_a_limit_of_processor_time_ignores_elapsed_time(ours: float, kept: bool) -> None:
    row = reading(limits=[Limit(0.26, "conntrack -L"), Limit(0.6, "conntrack -L", processor=True)], ours=ours)
    assert [row.kept(limit) for limit in row.limits] == [True, kept]
    found = results(EPYC, [row])
    assert len(found.broken()) == (not kept)
    assert [one["kept"] for one in found.as_document()["rows"][1]["limits"]] == [True, kept]


def test_a_row_without_a_limit_is_shown_with_both_ratios() -> None:
    shown = report.text(results(EPYC))
    assert "0 of 0 limits hold" in shown
    (line,) = (line for line in shown.splitlines() if "conntrack -L" in line)
    assert line.split("ratio")[1].split() == ["0.25,", "processor", "0.75"]


def test_several_runs_of_a_row_are_one_row_with_all_processor_times() -> None:
    found = results(EPYC)
    found.add(reading(ours=5.0))
    (row,) = found.rows
    assert row.sides[0].processor == [3.0, 5.0]
    assert row.ratios(row.sides[1], processor=True) == [0.75, 1.25]


def burn(seconds: float) -> None:
    """Use this amount of processor time in this thread."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_processor_time_includes_other_threads_and_ended_child_processes() -> None:
    program = "import time\nwhile time.process_time() < 0.15: pass"

    def work() -> int:
        thread = threading.Thread(target=burn, args=[0.1])
        thread.start()
        thread.join()
        subprocess.run([sys.executable, "-S", "-c", program], check=True)
        return 7

    done, seconds, processor = child.measure(work)
    assert done == 7
    assert processor >= 0.1 + 0.15 - 0.02  # the kernel counts the time of children in ticks of 10 ms
    assert seconds >= 0.1 + 0.15 - 0.02


def test_work_can_measure_its_own_time() -> None:
    assert child.measure(lambda: (3, 0.5, 0.25)) == (3, 0.5, 0.25)


# the machine

ARM = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor : 0\nmodel : 17\nmodel name : AMD EPYC\n\nprocessor : 1\nmodel name : B\n", "AMD EPYC"),
        ("processor : 0\ncpu : POWER9, altivec supported\nclock : 2.3GHz\n", "POWER9, altivec supported"),
        (ARM + "CPU revision : 1\n", "CPU implementer 0x41, part 0xd0c"),
        ("", "unknown"),
    ],
)
def test_the_name_of_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str) -> None:
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    machine.CPUINFO.write_text(text)
    assert machine.processor_name() == name


@pytest.mark.parametrize(("listed", "threads"), [("0\n", 1), ("0-1\n", 2), ("0,32\n", 2), ("0-1,64-65\n", 4)])
def test_threads_per_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: str, threads: int) -> None:
    monkeypatch.setattr(machine, "SIBLINGS", str(tmp_path / "cpu{}"))
    (tmp_path / "cpu3").write_text(listed)
    assert machine.threads_per_core(3) == threads
    assert machine.threads_per_core(4) is None


def test_steal_is_a_share_of_the_elapsed_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "STAT", tmp_path / "stat")
    taken = []
    for line in ("cpu  100 0 50 850 0 0 0 40 100 0", "cpu  300 0 150 1500 20 0 5 65 300 0"):
        machine.STAT.write_text(f"{line}\ncpu0 1 2 3 4 5 6 7 8 9 10\n")
        taken.append(machine.processor_times())
    # 200 user, 100 system, 650 idle, 20 iowait, 5 softirq, 25 steal; guest time is part of the user time
    assert machine.steal_percent(*taken) == 2.5
    assert machine.steal_percent(taken[0], taken[0]) is None
    assert machine.steal_percent(None, taken[0]) is None


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({}, []),
        ({"load_at_start": 0.5, "steal_percent": 2.0}, []),
        ({"load_at_start": 0.51, "steal_percent": None}, ["load was 0.51 on 2 processors"]),
        ({"steal_percent": 2.01}, ["2.01 % of the processor time"]),
        ({"load_at_start": 3.0, "steal_percent": 9.0}, ["load was 3", "9 %"]),
    ],
)
def test_load_and_steal_make_figures_doubtful(about: dict[str, Any], words: list[str]) -> None:
    found = results(EPYC, **about)
    doubts = [line for line in report.text(found).splitlines() if line.startswith("DOUBTFUL")]
    assert len(doubts) == len(words)
    assert all(word in doubt for word, doubt in zip(words, doubts, strict=True))
    assert plot.svg([found]).count(">doubtful: ") == len(words)


# the drawing


def test_the_drawing_shows_every_machine_with_both_ratios() -> None:
    compared = [Limit(0.2, "conntrack -L"), Limit(0.8, "conntrack -L", processor=True)]
    first = results(EPYC, [reading("compared", compared), reading("only here", compared)])
    second = results(XEON, [reading("newer", compared), reading("compared", compared, ours=4.0)], date="2026-03-01")
    drawing = ET.fromstring(plot.svg([first, second]))
    texts = ["".join(element.itertext()) for element in drawing.findall("text", SVG)]
    description = drawing.findtext("desc", "", SVG)
    for name in ("A: AMD EPYC, 2 processors", "B: Intel Xeon Platinum, 2 processors"):
        assert any(text.startswith(name) for text in texts)
        assert name in description
    at = texts.index("compared")
    assert texts[at : at + 8] == [
        *("compared", "against conntrack -L"),
        *("A", "0.25 (limit 0.2, exceeded)", "0.75 (limit 0.8)"),
        *("B", "0.25 (limit 0.2, exceeded)", "1 (limit 0.8, exceeded)"),
    ]
    at = texts.index("only here")
    assert texts[at + 2 : at + 5] == ["A", "0.25 (limit 0.2, exceeded)", "0.75 (limit 0.8)"]
    assert "compared, against conntrack -L, B: 0.25 (limit 0.2, exceeded), processor time 1 (limit 0.8" in description
    # In the order of the newest results, then of others
    assert texts.index("newer") < texts.index("compared") < texts.index("only here")


def test_rows_on_one_core_are_drawn_without_a_limit() -> None:
    row = reading("read, on one core")
    assert "on one core" not in plot.svg([results(EPYC, [row])])
    row.processors = 1
    drawing = plot.svg([results(EPYC, [row])])
    assert ">read, on one core</text>" in drawing
    assert drawing.count('class="plain') == 2
    assert 'class="limit"' not in drawing


def test_unknown_processor_time_is_not_drawn() -> None:
    row = reading("old", [Limit(0.3, "conntrack -L")])
    row.sides[0].processor.clear()
    drawing = plot.svg([results(EPYC, [row])])
    assert drawing.count('class="kept"') == 1
    assert ' processor"' not in drawing
