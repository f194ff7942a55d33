# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run parts of the test suite with nox and print one line for each part at the end.

The arguments are passed to nox unchanged: no argument runs everything, ``-k unit`` the unit tests.
With STRICT=1 in the environment each skipped test counts as failed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.processes import ending_with_this

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / ".nox/results"
REPORT = RESULTS / "report.json"
#: Messages with which ansible-test skips a test because there is nothing to test
NOT_APPLICABLE = re.compile(r"No tests applicable|on Python 3\.14 because it could not be found")
#: A feature that the running kernel lacks. Such a test cannot run on any machine with this kernel, so it is not skipped
LACKING = re.compile(r"this kernel lacks \w+")
#: Number of failures of each part that are named at the end, where the last lines of the output show them
NAMED = 10


@dataclass
class Part:
    """The result of one session: its tests if it counts them, otherwise the session as one check."""

    name: str
    seconds: float = 0.0
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    #: reasons why tests were skipped, and how many times
    reasons: Counter[str] = field(default_factory=Counter)
    #: each failure with the first line of its message; or the reason why the part failed as a whole
    failures: list[str] = field(default_factory=list)

    def outcome(self, strict: bool) -> str:
        if self.failed or (strict and self.skipped):
            return "FAILED"
        return "passed" if self.passed else "skipped"


def run_nox(arguments: list[str]) -> list[dict]:
    """Run the sessions, three at a time, and return nox's own report. Those that use namespaces often wait."""
    shutil.rmtree(RESULTS, ignore_errors=True)
    RESULTS.mkdir(parents=True)
    nox = [sys.executable, "-m", "nox", "--parallel", "3", "--report", str(REPORT)]
    with ending_with_this():
        subprocess.Popen([*nox, *arguments], cwd=ROOT).wait()
    return json.loads(REPORT.read_text())["sessions"] if REPORT.exists() else []


def account(session: dict) -> Part:
    """Combine nox's result of a session with the JUnit file of its tests."""
    part = Part(session["signatures"][0], session["duration"])
    result = session["result"]
    if result == "skipped":
        part.skipped = 1
        part.reasons[session["reason"]] += 1
        return part
    good = result == "success"
    if reports := sorted((RESULTS / part.name).glob("*.xml")):
        count = count_targets if part.name.startswith("integration") else count_tests
        for report in reports:
            count(part, ET.parse(report), good)
    elif good and not (RESULTS / part.name).exists():
        part.passed = 1
    if not good and not part.failed:
        part.failed = 1
        part.failures.append(session["reason"] or "see its output above")
    elif not part.passed + part.failed + part.skipped:
        part.failed = 1
        part.failures.append("ran no test")
    return part


def failures(report: ET.ElementTree) -> list[str]:
    """Return the name of each failed test, with the first line of its message."""
    found = []
    for case in report.iter("testcase"):
        for fault in (*case.findall("failure"), *case.findall("error")):
            first_line = (fault.get("message") or fault.text or "").strip().partition("\n")[0]
            found.append(f"{case.get('classname', '')} {case.get('name', '')}: {first_line[:200]}".strip())
    return found


def count_tests(part: Part, report: ET.ElementTree, good: bool) -> None:
    part.failures += failures(report)
    for case in report.iter("testcase"):
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            part.failed += 1
        elif skip is None:
            part.passed += 1
        else:
            reason = skip.get("message") or (skip.text or "").strip() or "no reason given"
            if found := LACKING.search(reason):
                part.reasons[found[0]] += 1
            elif not NOT_APPLICABLE.search(reason):
                part.skipped += 1
                part.reasons[reason] += 1


def count_targets(part: Part, report: ET.ElementTree, good: bool) -> None:
    """Count one play as one test, because single tasks may be skipped, or fail and be rescued."""
    faults = failures(report)
    if faults and not good:
        part.failed += 1
        part.failures += faults
    else:
        part.passed += 1


def main(arguments: list[str]) -> int:
    strict = os.environ.get("STRICT", "") not in ("", "0")
    parts = [account(session) for session in run_nox(arguments)]
    print("\nSummary")
    for part in parts:
        counts = f"{part.passed} passed, {part.failed} failed, {part.skipped} skipped"
        print(f"  {part.name:20} {part.outcome(strict):8} {counts:38} {part.seconds:5.0f} s")
        for reason, times in part.reasons.items():
            print(f"  {'':20} {times} x {reason}")
    for table in sorted(RESULTS.glob("*/table.txt")):
        print(table.read_text().rstrip())
    for part in parts:
        for failure in part.failures[:NAMED]:
            print(f"FAILED {part.name}: {failure}")
        if more := len(part.failures[NAMED:]):
            print(f"FAILED {part.name}: {more} more")
    totals = [sum(getattr(part, key) for part in parts) for key in ("passed", "failed", "skipped")]
    bad = not sum(totals) or any(part.outcome(strict) == "FAILED" for part in parts)
    if strict and totals[2]:
        print("STRICT: skipped tests count as failed")
    print("{} passed, {} failed, {} skipped".format(*totals))
    return int(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
