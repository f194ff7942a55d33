# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Build tables in private namespaces, measure, and show what was found as a table, as JSON and as a plot."""

from __future__ import annotations

import argparse
import itertools
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tests.lab import Forbidden, become_root

from . import machine, plot, report
from .process import CHECKOUT, WorkFailed, workshop
from .room import NoRoom, room_for
from .rows import Results
from .sizes import FULL, QUICK, Sizes
from .stage import Stage
from .steps import STEPS, elapsed

#: Where the results of a whole run are kept, and those of any other.
KEPT, PASSING = CHECKOUT / "docs", CHECKOUT / ".cache/bench"
INTERRUPTED = 130


def main() -> int:
    options = _options()
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
        print("Interrupted; everything is as it was before.", file=sys.stderr)
        return INTERRUPTED
    whole = not options.quick and not options.only and not results.interrupted
    _keep(results, options.output or (KEPT if whole else PASSING))
    if results.interrupted:
        return INTERRUPTED
    return 1 if results.failures or (options.check and results.broken()) else 0


def _measure(sizes: Sizes, names: list[str], options: argparse.Namespace) -> Results:
    """Run the steps; what was found so far is shown, too, when the rest fails or is interrupted."""
    start = time.monotonic()
    with workshop() as folder:
        stage = Stage(folder, sizes)
        results = Results(machine.describe(stage.conntrack), {"quick": options.quick, "runs": options.runs})
        results.options.update(sizes._asdict())
        if stage.conntrack is None:
            results.missing.append("anything by conntrack(8), which is absent (on Debian: apt-get install conntrack)")
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
            results.missing.append("all that was to come after the interruption")
    print(f"\n{report.text(results)}\nIt took {elapsed(start)}.")
    return results


def _keep(results: Results, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(report.json_text(results), encoding="utf-8")
    (folder / "bench.svg").write_text(plot.svg(results), encoding="utf-8")
    shown = folder.relative_to(CHECKOUT) if folder.is_relative_to(CHECKOUT) else folder
    print(f"See {shown / 'bench.json'} and {shown / 'bench.svg'}.")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small tables, half a minute; the figures mean little")
    parser.add_argument("--runs", type=_positive, default=1, metavar="N", help="measure all so many times")
    parser.add_argument("--only", action="append", choices=STEPS, help="this step alone; may be repeated")
    parser.add_argument("--check", action="store_true", help="fail if a limit was not kept")
    parser.add_argument("--output", type=Path, help="a folder for bench.json and bench.svg; docs for a whole run")
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _end(*_: Any) -> None:
    """End as by Ctrl-C, so that all is put back."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
