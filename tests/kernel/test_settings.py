# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The settings of a namespace of its own, set here and read back by a plain look into /proc."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils import persistence
from ansible_collections.netops.conntrack.plugins.module_utils.client import settings
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.settings import (
    SettingsFailed,
    declared_settings,
    reconcile,
)
from tests import features
from tests.lab import Namespace


@pytest.fixture
def inside(namespace: Namespace) -> Iterator[Namespace]:
    with namespace.entered():
        yield namespace


def declare(check_mode: bool = False, persist_in: Path | None = None, **declared: Any) -> dict[str, Any]:
    return reconcile(declared_settings(declared), persist_in and str(persist_in), check_mode)


def sysctls(namespace: Namespace) -> dict[str, int]:
    """All of them by their files, through the eyes of sysctl's directory itself."""
    with namespace.entered():
        files = [path.name for path in Path("/proc/sys/net/netfilter").glob("nf_conntrack_*")]
    return {file: int(namespace.sysctl(file)) for file in files if file != "nf_conntrack_count"}


def bounds(name: str) -> tuple[int, int]:
    """What may be set, on this kernel."""
    lowest, highest = settings.BOUNDS.get(name, (0, 10**6))
    return (lowest, 1) if name == "events" and features.lacks("events_on_demand") else (lowest, highest)


def test_each_that_this_namespace_may_set(inside: Namespace) -> None:
    """Up by one where that is allowed, and only the one file."""
    present = settings.flat(settings.read_all())
    assert {"accounting", "tcp_loose", "timeouts.tcp_established", "timeouts.udp"} <= set(present)
    for name, value in present.items():
        file = settings.file_of(name)
        if name in ("max", "buckets", "expect_max") or file is None or "frag6" in file:
            continue
        highest = bounds(name)[1]
        wanted = value + 1 if value < highest else value - 1
        key, _dot, state = name.partition(".")
        document = {key: {state: wanted} if state else wanted}
        before = sysctls(inside)
        foreseen = declare(check_mode=True, **document)
        assert sysctls(inside) == before
        done = declare(**document)
        assert done == foreseen
        assert done["changes"] == [{"key": name, "where": "kernel", "before": value, "after": wanted}]
        assert sysctls(inside) == {**before, file: wanted}
        assert not declare(**document)["changed"]


def test_bounds_are_the_kernels(inside: Namespace) -> None:
    """What is taken here the kernel takes, and what is not it would not either."""
    for name in settings.BOUNDS:
        lowest, highest = bounds(name)
        if name in ("max", "buckets", "expect_max") or settings.read(name) is None:
            continue
        for value in (lowest, highest):
            settings.write(name, value)
            assert settings.read(name) == value
        if name == "tcp_max_retrans" and features.lacks("events_on_demand"):
            continue  # kernels as old as that take any number
        with pytest.raises(settings.CannotSet, match=f"{name}: the kernel did not take {highest + 1}: .*EINVAL"):
            settings.write(name, highest + 1)


@pytest.mark.parametrize("name", ["max", "buckets"])
def test_what_only_the_initial_namespace_may_set(inside: Namespace, name: str) -> None:
    before = sysctls(inside)
    value = settings.read(name)
    assert value is not None
    with pytest.raises(SettingsFailed, match=f"^{name}: cannot be set here, only the initial network namespace may"):
        declare(accounting=True, **{name: value * 2})
    assert sysctls(inside) == before
    assert not declare(**{name: value})["changed"], "what is so already needs no right"


def test_all_that_is_gathered_can_be_declared(inside: Namespace) -> None:
    gathered = settings.read_all()
    assert not declare(**gathered)["changed"]


def test_a_refusal_in_the_middle(inside: Namespace, tmp_path: Path) -> None:
    """Longer than a clock of 100 ticks allows is refused before; what a faster one allows the kernel knows."""
    with pytest.raises(
        SettingsFailed, match=r"^timeouts.udp: the kernel did not take .*EINVAL.*same: accounting"
    ) as failure:
        declare(accounting=True, timeouts={"udp": settings.LONGEST_TIMEOUT}, persist_in=tmp_path)
    assert failure.value.result["settings"]["accounting"] == 1
    assert inside.sysctl("nf_conntrack_acct") == "1"
    assert list(tmp_path.iterdir()) == []


def test_what_is_persisted_a_boot_brings_back(inside: Namespace, tmp_path: Path) -> None:
    declared = {"accounting": True, "timestamps": True, "timeouts": {"tcp_established": 7200, "udp_stream": 60}}
    foreseen = declare(check_mode=True, persist_in=tmp_path, **declared)
    assert list(tmp_path.iterdir()) == []
    assert declare(persist_in=tmp_path, **declared) == foreseen
    assert not declare(persist_in=tmp_path, **declared)["changed"]
    assert "nf_conntrack" in (tmp_path / persistence.MODULES_FILE).read_text().splitlines()
    done = sysctls(inside)
    with Namespace("rebooted") as rebooted:
        for line in (tmp_path / persistence.SYSCTL_FILE).read_text().splitlines():
            name, equals, value = line.partition("=")
            if equals and not line.startswith("#"):
                rebooted.sysctl(name.strip(), value.strip())
        inside.sysctl("nf_conntrack_events", rebooted.sysctl("nf_conntrack_events"))
        assert sysctls(rebooted) == {**done, "nf_conntrack_events": 1}


def test_the_boots_files_are_not_for_this_namespace(inside: Namespace) -> None:
    """In check mode, so that nothing is written even if this fails."""
    with pytest.raises(InvalidValue, match="not that of process 1"):
        declare(check_mode=True, accounting=True, persist_in=Path("/etc"))
