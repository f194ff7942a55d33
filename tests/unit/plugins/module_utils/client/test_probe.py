# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that the probe detects a feature by its effect; a kernel can ignore a filter without an error and flush all."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client import probe
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import KernelError, Unavailable
from ansible_collections.netops.conntrack.plugins.module_utils.client.host import sysctl
from ansible_collections.netops.conntrack.tests.unit.support.fake_kernel import DCCP, UDPLITE, Kernel

WORK = ("dump", "flush")
#: The filters that each version supports. It refuses an unsupported filter by tuple and ignores the others.
KERNELS = {
    "5.4": {("dump", "mark"), ("flush", "mark")},
    "5.10": {("dump", "mark"), ("flush", "mark"), ("dump", "tuple")},
    "6.1": {*((work, by) for work in WORK for by in ("mark", "status")), ("dump", "tuple")},
    "6.12": {(work, by) for work in WORK for by in ("mark", "status", "zone", "tuple")},
}


@pytest.fixture(autouse=True)
def settings_of_another_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redirect the settings that the probe writes; a unit test must not change those of the machine."""
    (tmp_path / "nf_conntrack_events").write_text("1\n")
    monkeypatch.setattr(sysctl, "write", functools.partial(sysctl.write, directory=str(tmp_path)))


def run_probe(kernel: Kernel) -> dict[str, Any]:
    """Return the result of the probe on this kernel."""
    found = {}
    with kernel.table() as table:
        for name, attempt in probe._ATTEMPTS.items():
            try:
                found[name] = attempt(table)
            except KernelError:
                found[name] = False
            probe._clear(table)
            assert not kernel.connections, "each attempt must remove its entries"
    return found


@pytest.mark.parametrize("version", KERNELS)
def test_filters_are_detected_by_their_effect(version: str) -> None:
    kernel = Kernel()
    kernel.filters = KERNELS[version]
    found = run_probe(kernel)
    for work in WORK:
        for by in ("mark", "status", "zone", "tuple"):
            assert found[f"{work}_by_{by}"] is ((work, by) in KERNELS[version]), (work, by)


def test_trackers_are_detected_by_the_stored_entry() -> None:
    kernel = Kernel()
    found = run_probe(kernel)
    assert [found[f"tracks_{name}"] for name in ("sctp", "gre", "dccp", "udplite")] == [True, True, False, False]
    kernel.untracked -= {DCCP, UDPLITE}
    found = run_probe(kernel)
    assert (found["tracks_dccp"], found["tracks_udplite"]) == (True, True)


def test_child_process_returns_the_result_to_its_parent(monkeypatch: Any) -> None:
    parent = os.getpid()
    answer = {"dump_by_zone": True, "tracks_dccp": None}
    monkeypatch.setattr(probe, "_in_a_new_namespace", lambda: answer if os.getpid() != parent else {})
    assert probe.probe() == {"probed": True, **answer}


def failing() -> Any:
    raise Unavailable("opening a netfilter netlink socket", 93)


@pytest.mark.parametrize("child", [dict, failing])
def test_probe_without_a_namespace_reports_no_features(monkeypatch: Any, child: Any) -> None:
    monkeypatch.setattr(probe, "_in_a_new_namespace", child)
    assert probe.probe() == {"probed": False}
