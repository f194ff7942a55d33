# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that the facts module gathers only the requested facts and reads no more than they need."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils._operations import facts
from ansible_collections.netops.conntrack.plugins.module_utils._operations.facts import SUBSETS, chosen, gather
from ansible_collections.netops.conntrack.plugins.module_utils.client import probe, timeout_policy
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import (
    InvalidValue,
    NotPermitted,
    Overrun,
    Unavailable,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.expectation import expectation
from ansible_collections.netops.conntrack.plugins.module_utils.client.host import sysctl
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import parse_match
from ansible_collections.netops.conntrack.tests.unit.support.declarations import FLOW, filled

EVERY = set(SUBSETS)
COUNTED = {"matched", "by_family", "by_protocol", "by_state", "by_zone", "by_mark", "nat", "status"}


@pytest.mark.parametrize(
    ("requested", "found"),
    [
        ([], EVERY),
        (["all"], EVERY),
        (["min"], {"min"}),
        (["top"], {"min", "top"}),
        (["!top"], EVERY - {"top"}),
        (["all", "!top"], EVERY - {"top"}),
        (["!all"], {"min"}),
        (["!all", "!min"], set()),
        (["!all", "top"], {"min", "top"}),
        (["top", "!all"], {"min", "top"}),
        (["!all", "!min", "top"], {"top"}),
        (["!min", "!capabilities"], EVERY - {"min", "capabilities"}),
    ],
)
def test_subsets_have_the_semantics_of_gather_subset(requested: list[str], found: set[str]) -> None:
    assert chosen(requested) == found


@given(st.lists(st.sampled_from(["all", "!all", *SUBSETS, *(f"!{name}" for name in SUBSETS)])))
def test_any_list_of_subsets_is_accepted(requested: list[str]) -> None:
    found = chosen(requested)
    assert found <= EVERY
    assert {name for name in requested if name in EVERY} <= found


def test_unknown_subset_is_reported() -> None:
    with pytest.raises(InvalidValue, match="'!tpo' is not a subset; write all, min, "):
        chosen(["!tpo"])


def test_table_is_read_at_most_once_and_only_if_needed() -> None:
    kernel = filled([{"protocol": "tcp", "original": FLOW}, {"protocol": "udp", "original": FLOW}])
    with kernel.table() as table:
        assert gather(table, {"min"}) == {"count": 2, "max": 262144, "usage_percent": 0.0}
        assert [request.type for request in kernel.requests] == [0x0105]
        kernel.forget()
        found = gather(table, {"summary", "top"}, parse_match({"family": "ipv4", "protocol": "udp"}))
    assert set(found) == {*COUNTED, "top"}
    assert found["by_protocol"] == {"udp": 1}
    assert len(found["top"]["sources"]["by_flows"]) == 1
    assert [request.type for request in kernel.requests] == [0x0101]
    assert not kernel.writes


def test_usage_without_a_maximum_from_the_kernel(monkeypatch: Any) -> None:
    """The kernel reports no maximum before Linux 4.18; the module then uses the sysctl, if it exists."""
    for most, percent in ((8, 25.0), (None, None)):
        kernel = filled([{"protocol": "tcp", "original": FLOW}, {"protocol": "udp", "original": FLOW}])
        with kernel.table() as table:
            monkeypatch.setattr(table, "statistics", lambda: {"entries": 2})
            monkeypatch.setattr(sysctl, "read", lambda name, most=most: most)
            assert gather(table, {"min"}) == {"count": 2, "max": most, "usage_percent": percent}


def test_statistics_are_summed_over_the_cpus(monkeypatch: Any) -> None:
    with filled([]).table() as table:
        monkeypatch.setattr(table, "statistics_per_cpu", lambda: {1: {"found": 2, "drop": 1}, 0: {"found": 3}})
        found = gather(table, {"statistics"})["statistics"]
    assert found["total"] == {"found": 5, "drop": 1}
    assert list(found["per_cpu"].items()) == [("0", {"found": 3}), ("1", {"found": 2, "drop": 1})]


def test_expectations_are_counted_by_helper(monkeypatch: Any) -> None:
    found = [{"helper": "ftp"}, {"helper": "ftp"}, {}]
    monkeypatch.setattr(expectation, "read_all", lambda table: iter(found))
    monkeypatch.setattr(sysctl, "read", lambda name: 256)
    with filled([]).table() as table:
        facts_ = gather(table, {"expectations"})
    assert facts_["expectations"] == {"count": 3, "max": 256, "by_helper": {"ftp": 2, "none": 1}}


def test_timeout_policies_in_the_order_of_their_names(monkeypatch: Any) -> None:
    monkeypatch.setattr(timeout_policy, "read_all", lambda table: iter([{"name": "b"}, {"name": "a"}]))
    with filled([]).table() as table:
        assert gather(table, {"timeout_policies"}) == {"timeout_policies": [{"name": "a"}, {"name": "b"}]}


def test_unavailable_policies_are_null_but_a_failed_read_raises(monkeypatch: Any) -> None:
    for error in (
        Unavailable("reading timeout policies", errno.EINVAL),
        NotPermitted("reading timeout policies", errno.EPERM),
        Overrun("reading timeout policies", errno.ENOBUFS),
    ):

        def failing(table: Any, error: Exception = error) -> Any:
            raise error

        monkeypatch.setattr(timeout_policy, "read_all", failing)
        with filled([]).table() as table:
            if isinstance(error, Unavailable):
                assert gather(table, {"timeout_policies"}) == {"timeout_policies": None}
            else:
                with pytest.raises(type(error)):
                    gather(table, {"timeout_policies"})


def test_settings_and_capabilities_are_returned_unchanged(monkeypatch: Any) -> None:
    monkeypatch.setattr(sysctl, "read_all", lambda: {"max": 5})
    monkeypatch.setattr(probe, "probe", lambda: {"probed": False})
    with filled([]).table() as table:
        assert gather(table, {"settings", "capabilities"}) == {
            "settings": {"max": 5},
            "capabilities": {"probed": False},
        }
    assert facts.SUBSETS[0] == "min"
