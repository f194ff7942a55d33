# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a plan distinguishes entries as the kernel does; otherwise check mode predicts a wrong result."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.entries import Outcome, plan_all
from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.plan import Policy, ProjectedTable
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.tests.unit.support.fake_kernel import Kernel

FLOW: dict[str, Any] = {
    "protocol": "udp",
    "original": {"source": "10.0.0.1", "destination": "10.0.0.2", "source_port": 1000, "destination_port": 53},
    "timeout": 60,
}
BACK = {"source": "10.0.0.2", "destination": "10.0.0.1", "source_port": 53, "destination_port": 1000}
ORIGINAL_IN_5 = {"original": {**FLOW["original"], "zone": 5}}
REPLY_IN_5 = {"reply": {**BACK, "zone": 5}}


def planned(*documents: Any) -> Outcome:
    """Plan entries for an empty table, and return the outcome for the last one."""
    with Kernel().table() as table:
        declared = [from_document({**FLOW, **document}) for document in documents]
        return plan_all(ProjectedTable(table), declared, Policy(on_existing="keep"))[-1]


@pytest.mark.parametrize(
    ("there", "second", "expected"),
    [
        ({}, {}, "unchanged"),
        ({}, {"mark": 5}, "unchanged"),
        ({}, {"original": {**FLOW["original"], "source_port": 1001}}, "created"),
        ({}, {"original": BACK}, "its original tuple is taken by udp 10.0.0.1:1000"),
        ({}, {"zone": 5}, "created"),
        ({"zone": 5}, {"zone": 5, "original": BACK}, "its original tuple is taken by"),
        (ORIGINAL_IN_5, ORIGINAL_IN_5, "unchanged"),
        (ORIGINAL_IN_5, REPLY_IN_5, "created"),
        (ORIGINAL_IN_5, {}, "its reply tuple is taken by"),
        (REPLY_IN_5, {}, "its original tuple is taken by"),
    ],
)
def test_planned_entries_exclude_each_other(there: Any, second: Any, expected: str) -> None:
    assert planned(second).operation == "created"
    outcome = planned(there, second)
    assert expected in (outcome.operation if outcome.error is None else str(outcome.error))


#: Two flows to one server, both with the same address after source NAT.
MASQUERADED = {"nat": {"source": {"address": "198.51.100.1", "port": 1000}}}
OTHER = {"original": {**FLOW["original"], "source": "10.0.0.3"}}


@pytest.mark.parametrize("port", [None, 1000])
def test_nat_uses_another_port_only_if_the_kernel_may_choose_it(port: Any) -> None:
    nat = {"source": {"address": "198.51.100.1", **({"port": port} if port else {})}}
    outcome = planned(MASQUERADED, {**OTHER, "nat": nat})
    assert ("its reply tuple is taken by" in str(outcome.error)) is bool(port)
    assert outcome.operation == ("unchanged" if port else "created")


@pytest.mark.parametrize("end", [FLOW["original"], BACK], ids=["original", "reply"])
def test_planned_masters_are_found_by_either_tuple(end: Any) -> None:
    child = {"original": {**FLOW["original"], "source_port": 2000}, "master": {"protocol": "udp", **end}}
    assert "there is no entry with the tuple of its master" in str(planned(child).error)
    assert planned({}, child).operation == "created"


def test_expectations_are_kept_only_if_the_master_keeps_its_helper() -> None:
    kernel = Kernel()
    with kernel.table() as table:
        masters = [
            from_document({**FLOW, "helper": "sip", "original": {**FLOW["original"], "source_port": port}})
            for port in range(1, 5)
        ]
        for master in masters:
            table.create(master)
        view = ProjectedTable(table, [lambda entry: bool(entry["original.source_port"] == 2)])
        without_helper = {**masters[2], "helper": ""}
        assert [one.operation for one in plan_all(view, [without_helper], Policy())] == ["updated"]
        view.dropped_expectations.add(7)
        kept = [view.keeps_expectation({"id": 1}, master) for master in masters]
        assert kept == [True, False, False, True]
        assert not view.keeps_expectation({"id": 7}, masters[0])
        assert "helper" not in (view.find_by_tuple(masters[2]) or {"helper": ""})
        assert view.find_by_tuple(masters[1]) is None
