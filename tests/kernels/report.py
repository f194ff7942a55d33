# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What came of the tests on one kernel, and of all kernels as a table."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

#: How a test says that it cannot be, with the feature's name in `conntrack_facts`, subset `capabilities`
LACKS = re.compile(r"this kernel lacks (\w+)")


@dataclass
class Outcome:
    """The tests on one kernel; `lacking` is what the kernel says itself, `unmet` counts the tests that need it."""

    release: str
    seconds: float
    passed: int = 0
    failures: list[str] = field(default_factory=list)
    lacking: tuple[str, ...] = ()
    unmet: Counter[str] = field(default_factory=Counter)


def judge(release: str, seconds: float, report: ET.Element) -> Outcome:
    """Count, and turn into failures what was skipped for any reason but a feature that the kernel lacks."""
    outcome = Outcome(release, seconds)
    lacking = report.find(".//property[@name='lacking']")
    outcome.lacking = tuple((lacking.get("value") or "").split()) if lacking is not None else ()
    for case in report.iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        skip = case.find("skipped")
        if skip is not None:
            reason = skip.get("message") or "no reason given"
            found = LACKS.search(reason)
            if found and found[1] in outcome.lacking:
                outcome.unmet[found[1]] += 1
                continue
            skip.tag = "failure"
            skip.set("message", f"skipped, though no feature is lacking: {reason}")
        fault = next((each for each in case if each.tag in ("failure", "error")), None)
        if fault is None:
            outcome.passed += 1
        else:
            outcome.failures.append(f"{name}: {(fault.get('message') or '').splitlines()[0]}")
    return outcome


def dead(release: str, seconds: float, problem: str) -> tuple[Outcome, ET.Element]:
    """A kernel from which nothing was heard, as one failed test."""
    summary = problem.splitlines()[0]
    suite = ET.Element("testsuite", name=release)
    case = ET.SubElement(suite, "testcase", classname="tests.kernels", name=f"boot[{release}]", time=f"{seconds:.0f}")
    ET.SubElement(case, "failure", message=summary).text = problem
    return Outcome(release, seconds, failures=[summary]), suite


def skipped(reason: str) -> ET.Element:
    """What is told of a machine that cannot do any of this."""
    suite = ET.Element("testsuite", name="kernels")
    case = ET.SubElement(suite, "testcase", classname="tests.kernels", name="boot")
    ET.SubElement(case, "skipped", message=reason)
    return suite


def table(outcomes: Sequence[Outcome]) -> str:
    """One line for each kernel, and below it what the kernel lacks, with how many tests cannot be without it."""
    width = max(len(outcome.release) for outcome in outcomes)
    lines = [f"{'Kernel':{width}}  passed  failed  lacking  seconds"]
    for each in outcomes:
        counts = f"{each.passed:6}  {len(each.failures):6}  {each.unmet.total():7}"
        lines.append(f"{each.release:{width}}  {counts}  {each.seconds:7.0f}")
        if each.lacking:
            needed = (f"{name} ({each.unmet[name]})" if each.unmet[name] else name for name in each.lacking)
            lines.append(f"{'':{width}}  lacks {', '.join(needed)}")
    return "\n".join(lines)
