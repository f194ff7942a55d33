# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The JUnit file fails if the task fails, and names the host."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

from ansible_collections.netops.conntrack.plugins.plugin_utils._report import junit, thresholds
from ansible_collections.netops.conntrack.plugins.plugin_utils._report.model import report
from ansible_collections.netops.conntrack.tests.unit.support import fleets

LIMITS = {"usage_percent_above": 15.0, "chain_toolong_above": 0.0}


def suite_of(results: Any, **limits: float) -> ET.Element:
    document = report(results, thresholds.parse(limits), title="R&D <gateways>", gathered=fleets.GATHERED)
    return ET.fromstring(junit.render(document))[0]


def outcomes(suite: ET.Element) -> dict[tuple[str, str], str]:
    return {(case.attrib["classname"], case.attrib["name"]): "".join(child.tag for child in case) for case in suite}


def having(usage: int, **counters: int) -> Any:
    return {"ansible_facts": {"conntrack": {"count": usage, "max": 100, "statistics": {"total": counters}}}}


def test_each_threshold_is_a_test_case_of_each_host() -> None:
    suite = suite_of({"a": having(20, chain_toolong=0), "b": having(10)}, **LIMITS)
    assert outcomes(suite) == {
        ("a", "facts"): "",
        ("a", "usage_percent_above"): "failure",
        ("a", "chain_toolong_above"): "",
        ("b", "facts"): "",
        ("b", "usage_percent_above"): "",
        ("b", "chain_toolong_above"): "skipped",
    }
    assert (
        suite.find(".//failure").attrib["message"].replace("\u202f", " ")
        == "usage_percent is 20.0 %, and may be 15.0 %"
    )
    assert {name: suite.attrib[name] for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "6",
        "failures": "1",
        "errors": "0",
        "skipped": "1",
    }
    assert suite.attrib["name"] == "R&D <gateways>"
    assert suite.attrib["timestamp"] == "2026-03-14T09:26:53"


def test_unknown_figures_are_skipped_and_exceeded_ones_have_enough_digits() -> None:
    def judged(**verdicts: int) -> Any:
        every = {**dict.fromkeys(("unchanged", "nat_changed", "refused", "untracked", "uncertain"), 0), **verdicts}
        return {"ansible_facts": {"conntrack": {"stale": {"verdicts": every, "rules": []}}}}

    suite = suite_of({"a": judged(), "b": judged(unchanged=9897, refused=103)}, refused_percent_above=1)
    assert outcomes(suite) == {
        ("a", "facts"): "",
        ("a", "refused_percent_above"): "skipped",
        ("b", "facts"): "",
        ("b", "refused_percent_above"): "failure",
    }
    messages = [suite.find(f".//{outcome}").attrib["message"] for outcome in ("skipped", "failure")]
    assert [message.replace("\u202f", " ") for message in messages] == [
        "refused_percent is unknown on this host",
        "refused_percent is 1.03 %, and may be 1.00 %",
    ]


def test_host_without_facts_is_an_error_if_the_report_fails() -> None:
    hosts = {"gone": {"unreachable": True, "msg": "no ]]> route \x00 & <b>"}}
    assert outcomes(suite_of(hosts)) == {("gone", "facts"): "skipped"}
    assert outcomes(suite_of(hosts, hosts_without_facts_above=1)) == {("gone", "facts"): "skipped"}
    suite = suite_of(hosts, drop_above=0)
    assert outcomes(suite) == {("gone", "facts"): "error"}
    assert suite.find(".//error").attrib["message"] == "It could not be reached: no ]]> route \ufffd & <b>"
