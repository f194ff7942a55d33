# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fuzz the readers of untrusted input, guided by coverage (`make fuzz`).

Each target runs in a process of its own, one after another. Every finding is written to `tests/output/fuzz`: the
input, and beside it the traceback. The exit status is 1 if there is any finding.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests import collection_tree  # noqa: E402

collection_tree.use()

from ansible_collections.netops.conntrack.tests.fuzz.targets import TARGETS, Target  # noqa: E402

FINDINGS = ROOT / "tests/output/fuzz"
#: Inputs of earlier runs that added coverage.
GROWN = ROOT / ".cache/fuzz"
#: Seconds that a process may take beyond its time, to start and to end.
_GRACE = 120


def main() -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", choices=sorted(TARGETS), help="fuzz this target; can be repeated")
    parser.add_argument("--seconds", type=int, default=60, help="time of each target (default: 60)")
    parser.add_argument("--memory", type=int, default=1024, help="most MiB of each process (default: 1024)")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers (default: another one in each run)")
    parser.add_argument("--fresh", action="store_true", help="begin with the corpus of the repository alone")
    parser.add_argument("--input", type=Path, help="check this one file, with the target that --only names")
    parser.add_argument("--samples", action="store_true", help="write the corpus again from the samples of the tests")
    options = parser.parse_args()
    targets = [TARGETS[name] for name in options.only or TARGETS]
    if options.samples:
        for target in targets:
            write_corpus(target)
        return 0
    if options.input is not None:
        if len(targets) != 1:
            parser.error("--input: name one target with --only")
        return check(targets[0], options.input)
    if options.fresh:
        shutil.rmtree(GROWN, ignore_errors=True)
    return int(sum(fuzz(target, options) for target in targets) > 0)


def write_corpus(target: Target) -> None:
    """Write the samples of a target into its corpus, and remove all other files."""
    shutil.rmtree(target.corpus, ignore_errors=True)
    target.corpus.mkdir(parents=True)
    for name, data in target.samples().items():
        (target.corpus / f"{name}.bin").write_bytes(data)


def check(target: Target, path: Path) -> int:
    """Check one input, as a test does."""
    from ansible_collections.netops.conntrack.tests.fuzz.guard import limited

    with limited():
        target.run(path.read_bytes())
    print(f"{target.name}: {path} is handled")
    return 0


def fuzz(target: Target, options: argparse.Namespace) -> int:
    """Fuzz a target and return the number of findings.

    If libFuzzer itself ends the process, for example because of its memory, the target starts again.
    """
    findings, grown = FINDINGS / target.name, GROWN / target.name
    grown.mkdir(parents=True, exist_ok=True)
    findings.mkdir(parents=True, exist_ok=True)
    before = set(findings.glob("*.bin"))
    log_file = findings / "log.txt"
    log_file.write_text("", encoding="utf-8")
    end = time.monotonic() + options.seconds
    print(f"{target.name}: {options.seconds} s, log in {log_file.relative_to(ROOT)}", flush=True)
    while (left := int(end - time.monotonic())) > 0:
        found = set(findings.glob("*.bin"))
        command = [sys.executable, "-m", "tests.fuzz.child", target.name, str(findings)]
        command += [f"-max_total_time={left}", f"-rss_limit_mb={options.memory}", f"-malloc_limit_mb={options.memory}"]
        command += [f"-max_len={target.longest}", "-timeout=60", f"-seed={options.seed}", "-print_final_stats=1"]
        command += [f"-artifact_prefix={findings}/", str(grown), str(target.corpus)]
        command += [str(target.regressions)] if target.regressions.is_dir() else []
        try:
            with open(log_file, "a", encoding="utf-8") as log:
                status = subprocess.run(
                    command, cwd=ROOT, timeout=left + _GRACE, check=False, stdout=log, stderr=subprocess.STDOUT
                ).returncode
        except subprocess.TimeoutExpired:
            raise SystemExit(f"{target.name}: the fuzzer did not end {_GRACE} s after its time") from None
        keep_artifacts(findings, status)
        if status and set(findings.glob("*.bin")) == found:
            raise SystemExit(f"{target.name}: the fuzzer ended with status {status} and names no input")
        if not status:
            break
    runs = sum(map(int, re.findall(r"number_of_executed_units: *(\d+)", log_file.read_text("utf-8", "replace"))))
    print(f"{target.name}: {runs} inputs", flush=True)
    new = sorted(set(findings.glob("*.bin")) - before)
    for path in new:
        print(f"{target.name}: finding {path.relative_to(ROOT)}, traceback in {path.with_suffix('.txt').name}")
    return len(new)


def keep_artifacts(findings: Path, status: int) -> None:
    """Treat the inputs at which libFuzzer itself stopped (memory, time, a crash of the interpreter) as findings."""
    for path in findings.iterdir():
        if path.suffix or not path.name.startswith(("crash-", "oom-", "timeout-", "leak-", "slow-unit-")):
            continue
        data = path.read_bytes()
        path.unlink()
        if path.name.startswith("slow-unit-") or any(data == known.read_bytes() for known in findings.glob("*.bin")):
            continue
        kept = findings / f"{path.name[:24]}.bin"
        kept.write_bytes(data)
        kept.with_suffix(".txt").write_text(f"libFuzzer ended with status {status}: {path.name}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
