# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The results of the tests on one kernel, and a table of all kernels."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

#: The reason of a skipped test, with the feature's name in `conntrack_facts`, subset `capabilities`
LACKS = re.compile(r"this kernel lacks (\w+)")


@dataclass
class Outcome:
    """The tests on one kernel; `lacking` is reported by the kernel itself, `unmet` counts the tests that require it."""

    release: str
    seconds: float
    passed: int = 0
    failures: list[str] = field(default_factory=list)
    lacking: tuple[str, ...] = ()
    unmet: Counter[str] = field(default_factory=Counter)


def judge(release: str, seconds: float, report: ET.Element) -> Outcome:
    """Count the tests. A skipped test counts as failed, unless its reason is a feature that the kernel lacks."""
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
    """Return a kernel without any result, as one failed test."""
    summary = problem.splitlines()[0]
    suite = ET.Element("testsuite", name=release)
    case = ET.SubElement(suite, "testcase", classname="tests.kernels", name=f"boot[{release}]", time=f"{seconds:.0f}")
    ET.SubElement(case, "failure", message=summary).text = problem
    return Outcome(release, seconds, failures=[summary]), suite


def skipped(reason: str) -> ET.Element:
    """Return the report of a machine that cannot run these tests."""
    suite = ET.Element("testsuite", name="kernels")
    case = ET.SubElement(suite, "testcase", classname="tests.kernels", name="boot")
    ET.SubElement(case, "skipped", message=reason)
    return suite


def table(outcomes: Sequence[Outcome]) -> str:
    """Return one line for each kernel, and below it the features that it lacks, with the number of affected tests."""
    width = max(len(outcome.release) for outcome in outcomes)
    lines = [f"{'Kernel':{width}}  passed  failed  lacking  seconds"]
    for each in outcomes:
        counts = f"{each.passed:6}  {len(each.failures):6}  {each.unmet.total():7}"
        lines.append(f"{each.release:{width}}  {counts}  {each.seconds:7.0f}")
        if each.lacking:
            needed = (f"{name} ({each.unmet[name]})" if each.unmet[name] else name for name in each.lacking)
            lines.append(f"{'':{width}}  lacks {', '.join(needed)}")
    return "\n".join(lines)
