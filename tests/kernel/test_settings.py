# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Set the settings of a network namespace, and read them back from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._reconcile import sysctl_files
from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.settings import (
    SettingsFailed,
    declared_settings,
    reconcile,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.host import sysctl
from tests import features
from tests.lab import Namespace

pytestmark = pytest.mark.every_kernel


@pytest.fixture
def inside(namespace: Namespace) -> Iterator[Namespace]:
    with namespace.entered():
        yield namespace


def declare(check_mode: bool = False, persist_in: Path | None = None, **declared: Any) -> dict[str, Any]:
    return reconcile(declared_settings(declared), persist_in and str(persist_in), check_mode)


def sysctls(namespace: Namespace) -> dict[str, int]:
    """Return all conntrack sysctls, read from the files in the sysctl directory."""
    found = {}
    with namespace.entered():
        folder = os.open("/proc/sys/net/netfilter", os.O_RDONLY)
        for name in os.listdir(folder):
            if name.startswith(("nf_conntrack_", "nf_flowtable_")) and name != "nf_conntrack_count":
                file = os.open(name, os.O_RDONLY, dir_fd=folder)
                found[name] = int(os.read(file, 100))
                os.close(file)
        os.close(folder)
    return found


#: A namespace that may write these changes them for the whole machine.
OF_ALL_NAMESPACES = ("hooks_lwtunnel",)
#: Settings with limits that depend on others, or that only the initial namespace can set.
UNBOUNDED = ("max", "buckets", "expect_max", "frag6_high_thresh", "frag6_low_thresh")


def is_writable(file: str) -> bool:
    return bool(Path("/proc/sys/net/netfilter", file).stat().st_mode & 0o200)


def bounds(name: str) -> tuple[int, int]:
    """Return the lowest and the highest value of a setting on this kernel."""
    lowest, highest = sysctl.BOUNDS.get(name, (0, 10**6))
    return (lowest, 1) if name == "events" and features.lacks("events_on_demand") else (lowest, highest)


def test_each_writable_setting_is_set(inside: Namespace) -> None:
    """Increase each setting by one if the kernel allows it. No other file changes."""
    present = sysctl.flat(sysctl.read_all())
    assert {"accounting", "tcp_loose", "timeouts.tcp_established", "timeouts.udp"} <= set(present)
    before = sysctls(inside)
    for name, value in present.items():
        file = sysctl.file_of(name)
        if file is None or not is_writable(file) or name in OF_ALL_NAMESPACES or name.startswith("frag6_"):
            continue
        highest = bounds(name)[1]
        wanted = value + 1 if value < highest else value - 1
        key, _dot, state = name.partition(".")
        document = {key: {state: wanted} if state else wanted}
        predicted = declare(check_mode=True, **document)
        assert int(inside.sysctl(file)) == value
        done = declare(**document)
        assert done == predicted
        assert done["changes"] == [{"key": name, "where": "kernel", "before": value, "after": wanted}]
        before[file] = wanted
        assert sysctls(inside) == before
        assert not declare(**document)["changed"]


def test_bounds_agree_with_the_kernel(inside: Namespace) -> None:
    """The kernel accepts the values within the limits and rejects the others."""
    for name in sysctl.BOUNDS:
        lowest, highest = bounds(name)
        if name in UNBOUNDED or name in OF_ALL_NAMESPACES or sysctl.read(name) is None:
            continue
        for value in (lowest, highest):
            sysctl.write(name, value)
            assert sysctl.read(name) == value
        if name == "tcp_max_retrans" and features.lacks("events_on_demand"):
            continue  # kernels of that age accept any number
        with pytest.raises(sysctl.CannotSet, match=f"{name}: the kernel did not accept {highest + 1}: .*EINVAL"):
            sysctl.write(name, highest + 1)


@pytest.mark.parametrize("name", ["max", "buckets"])
def test_settings_of_the_initial_namespace_are_refused(inside: Namespace, name: str) -> None:
    before = sysctls(inside)
    value = sysctl.read(name)
    assert value is not None
    if is_writable(sysctl.NAMES[name]):
        assert name == "max", "newer kernels have this setting in each namespace"
        assert declare(**{name: value * 2})["changed"]
        return
    with pytest.raises(SettingsFailed, match=f"^{name}: cannot be set here, only the initial network namespace may"):
        declare(accounting=True, **{name: value * 2})
    assert sysctls(inside) == before
    assert not declare(**{name: value})["changed"], "a setting that has the value needs no privilege"


def test_thresholds_for_fragments_change_together(inside: Namespace) -> None:
    """The kernel rejects an upper threshold below the lower one, so the order of the writes matters.

    Linux 5.10 also rejects more than the value of the initial namespace.
    """
    names = ("frag6_low_thresh", "frag6_high_thresh")
    before = {name: sysctl.read(name) or 0 for name in names}
    if not all(before.values()):
        pytest.skip("this kernel does not reassemble IPv6 fragments")
    # The old lower threshold is above the new upper threshold
    for wanted in ({name: value // 4 for name, value in before.items()}, before):
        assert declare(**wanted)["changed"]
        assert {name: int(inside.sysctl(sysctl.NAMES[name])) for name in names} == wanted


def test_a_timeout_of_0_is_gathered_and_declared(inside: Namespace) -> None:
    inside.sysctl("nf_conntrack_sctp_timeout_shutdown_sent", 0)
    gathered = sysctl.read_all()
    assert gathered["timeouts"]["sctp_shutdown_sent"] == 0
    assert not declare(timeouts=gathered["timeouts"])["changed"]


def test_gathered_settings_are_unchanged(inside: Namespace) -> None:
    gathered = sysctl.read_all()
    assert not declare(**gathered)["changed"]


def test_refused_setting_keeps_earlier_changes(inside: Namespace, tmp_path: Path) -> None:
    """The module rejects timeouts that exceed a clock of 100 Hz. The kernel rejects those that exceed its own."""
    with pytest.raises(
        SettingsFailed, match=r"^timeouts.udp: the kernel did not accept .*EINVAL.*changed: accounting"
    ) as failure:
        declare(accounting=True, timeouts={"udp": sysctl.LONGEST_TIMEOUT}, persist_in=tmp_path)
    assert failure.value.result["settings"]["accounting"] == 1
    assert inside.sysctl("nf_conntrack_acct") == "1"
    assert list(tmp_path.iterdir()) == []


def test_persisted_settings_are_restored_at_boot(inside: Namespace, tmp_path: Path) -> None:
    declared = {"accounting": True, "timestamps": True, "timeouts": {"tcp_established": 7200, "udp_stream": 60}}
    predicted = declare(check_mode=True, persist_in=tmp_path, **declared)
    assert list(tmp_path.iterdir()) == []
    assert declare(persist_in=tmp_path, **declared) == predicted
    assert not declare(persist_in=tmp_path, **declared)["changed"]
    assert "nf_conntrack" in (tmp_path / sysctl_files.MODULES_FILE).read_text().splitlines()
    done = sysctls(inside)
    with Namespace("rebooted") as rebooted:
        for line in (tmp_path / sysctl_files.SYSCTL_FILE).read_text().splitlines():
            name, equals, value = line.partition("=")
            if equals and not line.startswith("#"):
                rebooted.sysctl(name.strip(), value.strip())
        inside.sysctl("nf_conntrack_events", rebooted.sysctl("nf_conntrack_events"))
        assert sysctls(rebooted) == {**done, "nf_conntrack_events": 1}


def test_boot_files_are_refused_in_this_namespace(inside: Namespace) -> None:
    """This runs in check mode, so that nothing is written even if the check is broken."""
    with pytest.raises(InvalidValue, match="not the namespace of process 1"):
        declare(check_mode=True, accounting=True, persist_in=Path("/etc"))
