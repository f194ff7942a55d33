# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measure on tables in private namespaces, and show the results as text, as JSON and as a plot."""

from __future__ import annotations

import argparse
import itertools
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tests import programs
from tests.lab import Forbidden, become_root

from . import archive, go_client, machine, page, report
from .process import CHECKOUT, WorkFailed, workshop
from .room import NoRoom, room_for
from .rows import Results
from .sizes import FULL, QUICK, Sizes
from .stage import Stage
from .steps import STEPS, elapsed

#: The folders for the results of whole runs, of all machines, and of other runs
KEPT, PASSING = CHECKOUT / "docs", CHECKOUT / ".cache/bench"
INTERRUPTED = 130


def main() -> int:
    options = _options()
    programs.extend_path()
    try:
        if options.draw:
            archive.draw(options.output or KEPT)
            _write_page(options.output or KEPT)
            return 0
        archive.read(options.output or KEPT)  # before the run, because a failure later would lose its results
    except archive.Unreadable as reason:
        print(f"{reason}.", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _end)
    sizes = QUICK if options.quick else FULL
    names = [name for name in STEPS if not options.only or name in options.only]
    try:
        become_root()
        with room_for(sizes.largest):
            results = _measure(sizes, names, options)
    except (Forbidden, NoRoom) as reason:
        print(f"The bench cannot run here: {reason}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; all settings are restored.", file=sys.stderr)
        return INTERRUPTED
    _keep(results, options)
    if results.interrupted:
        return INTERRUPTED
    return 1 if results.failures or (options.check and results.broken()) else 0


def _measure(sizes: Sizes, names: list[str], options: argparse.Namespace) -> Results:
    """Run the steps. If a step fails or is interrupted, still show the results so far."""
    start = time.monotonic()
    with workshop() as folder:
        stage = Stage(folder, sizes)
        before = machine.processor_times()
        results = Results(machine.describe(stage.conntrack), {"quick": options.quick, "runs": options.runs})
        results.options.update(sizes._asdict())
        if stage.conntrack is None:
            results.missing.append("anything by conntrack(8), which is absent (on Debian: apt-get install conntrack)")
        if stage.go_client is None:
            results.missing.append(go_client.MISSING)
        try:
            for run, name in itertools.product(range(options.runs), names):
                stage.say(f"run {run + 1} of {options.runs}: {name}")
                try:
                    STEPS[name](stage, results)
                except WorkFailed as reason:
                    stage.say(f"FAILED: {reason}")
                    results.failures.append(f"{name}: {reason}")
        except KeyboardInterrupt:
            results.interrupted = True
            results.missing.append("everything after the interruption")
        results.machine["steal_percent"] = machine.steal_percent(before, machine.processor_times())
    print(f"\n{report.text(results)}\nIt took {elapsed(start)}.")
    return results


def _keep(results: Results, options: argparse.Namespace) -> None:
    whole = not options.quick and not options.only and not results.interrupted
    folder = options.output or (KEPT if whole else PASSING)
    if folder == PASSING:
        (folder / archive.DATA).unlink(missing_ok=True)
    archive.add(folder, results)
    _write_page(folder)
    shown = folder.relative_to(CHECKOUT) if folder.is_relative_to(CHECKOUT) else folder
    print(f"See {shown / archive.DATA} and {shown / archive.DRAWING}.")


def _write_page(folder: Path) -> None:
    """Write the results in the folder `docs` to the page of the documentation."""
    if folder == KEPT:
        page.write([Results.from_document(one) for one in archive.read(folder)])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small tables, half a minute; figures are not reliable")
    parser.add_argument("--runs", type=_positive, default=1, metavar="N", help="number of times to measure everything")
    parser.add_argument("--only", action="append", choices=STEPS, help="only this step; can be repeated")
    parser.add_argument("--check", action="store_true", help="fail if a limit is exceeded")
    parser.add_argument(
        "--output",
        type=Path,
        help="folder of bench.json and bench.svg, in which the results of other machines stay; by default docs for "
        "whole runs",
    )
    parser.add_argument(
        "--draw", action="store_true", help="measure nothing, only write bench.svg and the page from bench.json"
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _end(*_: Any) -> None:
    """End as after Ctrl-C, so that all settings are restored."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
