# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the thresholds as JUnit XML, with a failure or error for each one that the task fails for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as ET  # only written, never parsed

from .html import xml_text
from .thresholds import OF_HOSTS, WITHOUT_FACTS, compared, value_of

#: The name of a test case, its outcome (None if it passed), and the message.
_Case = tuple[str, "str | None", str]


def render(document: dict[str, Any]) -> str:
    """One test case for the facts of each host, and one for each threshold of a host with facts."""
    suite = ET.Element("testsuite", name=xml_text(document["title"]))
    if document["gathered"]:
        suite.set("timestamp", document["gathered"].rstrip("Z"))
    outcomes: list[str | None] = []
    for host in document["hosts"]:
        for name, outcome, said in _cases(host, document):
            case = ET.SubElement(suite, "testcase", classname=xml_text(host["name"]), name=name)
            if outcome:
                ET.SubElement(case, outcome, message=xml_text(said))
            outcomes.append(outcome)
    suite.set("tests", str(len(outcomes)))
    for outcome, count in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(count, str(outcomes.count(outcome)))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _cases(host: dict[str, Any], document: dict[str, Any]) -> Iterator[_Case]:
    figures = host["figures"]
    if figures is None:
        missed = any(one["threshold"] == WITHOUT_FACTS for one in document["exceeded"])
        yield "facts", "error" if missed else "skipped", host["reasons"][0]["text"]
        return
    yield "facts", None, ""
    above = {one["threshold"]: one for one in host["exceeded"]}
    for name, limit in document["fail_when"].items():
        if name not in OF_HOSTS:
            continue
        value = value_of(name, figures)
        if value is None:
            yield name, "skipped", f"{OF_HOSTS[name]} is unknown on this host"
            continue
        shown, most = compared(name, value, limit)
        yield name, "failure" if name in above else None, f"{OF_HOSTS[name]} is {shown}, and may be {most}"
