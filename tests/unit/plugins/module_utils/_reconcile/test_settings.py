# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that all settings are checked before the first write and that a failure reports the settings written so far."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._reconcile import settings as reconciler
from ansible_collections.netops.conntrack.plugins.module_utils._reconcile import sysctl_files
from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.settings import SettingsFailed
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.host import sysctl

FILES = {
    "nf_conntrack_max": 262144,
    "nf_conntrack_buckets": 65536,
    "nf_conntrack_acct": 0,
    "nf_conntrack_udp_timeout": 30,
}
PAGE = os.sysconf("SC_PAGE_SIZE") // 8


class Namespace:
    """The settings of a namespace as files, and a directory for the boot configuration."""

    def __init__(self, folder: Path) -> None:
        self.proc = folder / "proc"
        self.etc = folder / "etc"
        for made in (self.proc, self.etc):
            made.mkdir()
        for name, value in FILES.items():
            (self.proc / name).write_text(f"{value}\n")

    def declare(self, check_mode: bool = False, persist: bool = False, **declared: Any) -> dict[str, Any]:
        parsed = reconciler.declared_settings(declared)
        return reconciler.reconcile(parsed, str(self.etc) if persist else None, check_mode, str(self.proc))

    def fails(self, message: str, **declared: Any) -> dict[str, Any]:
        with pytest.raises(SettingsFailed, match=message) as failure:
            self.declare(**declared)
        return failure.value.result

    def values(self) -> dict[str, int]:
        return {name: int((self.proc / name).read_text()) for name in FILES}


@pytest.fixture
def namespace(tmp_path: Path) -> Namespace:
    return Namespace(tmp_path)


def test_check_mode_predicts_the_changes_and_writes_nothing(namespace: Namespace) -> None:
    declared = {"accounting": True, "timeouts": {"udp": 60}, "max": 262144, "persist": True}
    predicted = namespace.declare(check_mode=True, **declared)
    assert namespace.values() == FILES
    assert list(namespace.etc.iterdir()) == []
    done = namespace.declare(**declared)
    assert done == predicted
    assert done["changed"]
    assert done["before"] == {"max": 262144, "buckets": 65536, "accounting": 0, "timeouts": {"udp": 30}}
    assert done["settings"] == {"max": 262144, "buckets": 65536, "accounting": 1, "timeouts": {"udp": 60}}
    assert done["changes"][:2] == [
        {"key": "accounting", "where": "kernel", "before": 0, "after": 1},
        {"key": "timeouts.udp", "where": "kernel", "before": 30, "after": 60},
    ]
    assert [(change["key"], change["after"]) for change in done["changes"][2:]] == [
        ("net.netfilter.nf_conntrack_max", "262144"),
        ("net.netfilter.nf_conntrack_acct", "1"),
        ("net.netfilter.nf_conntrack_udp_timeout", "60"),
        ("nf_conntrack", "loaded"),
    ]
    assert done["diff"][0]["before"] == {"accounting": 0, "max": 262144, "timeouts.udp": 30}
    assert done["diff"][0]["after"] == {"accounting": 1, "max": 262144, "timeouts.udp": 60}
    assert done["diff"][1]["after"].endswith("net.netfilter.nf_conntrack_udp_timeout = 60\n")
    again = namespace.declare(**declared)
    assert not again["changed"]
    assert again["changes"] == []
    assert again["diff"] == [{**done["diff"][0], "before": done["diff"][0]["after"]}]


def test_without_persist_no_file_is_touched(namespace: Namespace) -> None:
    assert namespace.declare(accounting=True)["changed"]
    assert list(namespace.etc.iterdir()) == []


def test_unchanged_settings_are_persisted(namespace: Namespace) -> None:
    done = namespace.declare(accounting=False, persist=True)
    assert [change["where"] for change in done["changes"]] == [
        str(namespace.etc / sysctl_files.SYSCTL_FILE),
        str(namespace.etc / sysctl_files.MODULES_FILE),
    ]


def test_buckets_rounded_up_by_the_kernel_are_unchanged(namespace: Namespace) -> None:
    (namespace.proc / "nf_conntrack_buckets").write_text(str(2 * PAGE))
    assert not namespace.declare(buckets=PAGE + 1)["changed"]
    assert namespace.declare(buckets=PAGE)["changed"]


def test_setting_that_this_kernel_lacks_is_refused(namespace: Namespace) -> None:
    result = namespace.fails(
        "^timestamps: this kernel has no such setting. Nothing was changed.$", max=1, timestamps=True
    )
    assert result["changes"] == []
    assert not result["changed"]
    assert result["before"] == result["settings"]
    namespace.fails("^timeouts.dccp_open: .*; it has timeouts of udp. Nothing", max=1, timeouts={"dccp_open": 1})
    assert namespace.values() == FILES


def test_timeout_of_0_is_accepted_only_if_it_is_already_0(namespace: Namespace) -> None:
    namespace.fails("^timeouts.udp: 0 would remove every entry immediately.*Nothing was changed", timeouts={"udp": 0})
    (namespace.proc / "nf_conntrack_udp_timeout").write_text("0\n")
    assert not namespace.declare(timeouts={"udp": 0})["changed"]
    assert namespace.declare(timeouts={"udp": 1})["changed"]


def test_thresholds_are_raised_together(namespace: Namespace) -> None:
    for name, value in (("high", 4), ("low", 3)):
        (namespace.proc / f"nf_conntrack_frag6_{name}_thresh").write_text(f"{value}\n")
    declared = {"frag6_low_thresh": 30, "frag6_high_thresh": 40}
    predicted = namespace.declare(check_mode=True, **declared)
    done = namespace.declare(**declared)
    assert done == predicted
    assert [change["key"] for change in done["changes"]] == ["frag6_high_thresh", "frag6_low_thresh"]


def test_missing_proc_is_reported_instead_of_missing_settings(tmp_path: Path) -> None:
    with pytest.raises(sysctl.CannotSet, match="does not exist, so the settings cannot be read; mount /proc"):
        reconciler.reconcile({"accounting": 1}, None, False, str(tmp_path / "proc/sys/net/netfilter"))


def test_read_only_setting_is_refused_before_any_write(namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chmod(namespace.proc / "nf_conntrack_max", 0o444)
    monkeypatch.setattr(os, "access", lambda path, mode: bool(os.stat(path).st_mode & 0o200))
    for check_mode in (True, False):
        namespace.fails(
            "^max: cannot be set here, only the initial network namespace may set it.*Nothing was changed",
            accounting=True,
            max=5,
            check_mode=check_mode,
        )
    assert namespace.values() == FILES
    assert namespace.declare(accounting=True, max=262144)["changed"], (
        "a setting that is already as declared needs no permission"
    )


def test_refusal_reports_the_settings_written_before(namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    write = sysctl.write

    def refusing(name: str, value: int, directory: str) -> None:
        if name == "timeouts.udp":
            raise sysctl.CannotSet(f"{name}: the kernel did not accept {value}: Invalid argument (EINVAL)")
        write(name, value, directory)

    monkeypatch.setattr(sysctl, "write", refusing)
    result = namespace.fails(
        r"EINVAL\). These were changed: accounting \(kernel\)\.$", accounting=True, timeouts={"udp": 9}, persist=True
    )
    assert result["changed"]
    assert result["changes"] == [{"key": "accounting", "where": "kernel", "before": 0, "after": 1}]
    assert result["before"]["accounting"] == 0
    assert result["settings"]["accounting"] == 1
    assert list(namespace.etc.iterdir()) == [], "a refused setting must not be applied at boot"


def test_write_without_effect_is_a_failure(namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysctl, "write", lambda name, value, directory: None)
    namespace.fails("accounting: the kernel made 0 of 1. These were changed: accounting", accounting=True)


def test_a_file_that_cannot_be_written(namespace: Namespace) -> None:
    (namespace.etc / "modules-load.d").write_text("in the way")
    result = namespace.fails("modules-load.d/conntrack.conf: cannot be .*Nothing was changed", max=1, persist=True)
    assert result["changes"] == []
    assert namespace.values() == FILES


def test_overriding_file_causes_a_warning(namespace: Namespace) -> None:
    (namespace.etc / "sysctl.conf").write_text("net.netfilter.nf_conntrack_acct = 0\n")
    (sentence,) = namespace.declare(accounting=True, persist=True)["warnings"]
    assert "sysctl.conf sets net.netfilter.nf_conntrack_acct to 0, and is read after" in sentence
    assert namespace.declare(accounting=True)["warnings"] == []


def test_declaration_without_settings_is_refused() -> None:
    with pytest.raises(InvalidValue, match="^No setting is declared"):
        reconciler.declared_settings({"netns": "x", "max": None, "timeouts": {}})
