# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that settings are read and written through the kernel's files, under the names in the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.host import sysctl

pytestmark = pytest.mark.portability

FILES = {
    "nf_conntrack_max": "262144\n",
    "nf_conntrack_acct": "0\n",
    "nf_conntrack_timestamp": "1\n",
    "nf_conntrack_count": "17\n",
    "nf_conntrack_log_invalid": "255\n",
    "nf_conntrack_generic_timeout": "600\n",
    "nf_conntrack_icmpv6_timeout": "30\n",
    "nf_conntrack_tcp_timeout_established": "432000\n",
    "nf_conntrack_udp_timeout": "30\n",
    "nf_conntrack_udp_timeout_stream": "120\n",
    "nf_conntrack_sctp_timeout_shutdown_ack_sent": "3\n",
    "nf_flowtable_tcp_timeout": "30\n",
    "nf_flowtable_udp_timeout": "20\n",
    "nf_conntrack_frag6_timeout": "60\n",
    "nf_conntrack_frag6_high_thresh": "4194304\n",
    "nf_conntrack_frag6_low_thresh": "3145728\n",
    "nf_conntrack_helper": "0\n",
    "nf_conntrack_dccp_loose": "1\n",
    "nf_hooks_lwtunnel": "0\n",
    "nf_log_all_netns": "0\n",
}


@pytest.fixture
def directory(tmp_path: Path) -> str:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="ascii")
    return str(tmp_path)


def test_all_existing_settings_are_read(directory: str) -> None:
    assert sysctl.read_all(directory) == {
        "max": 262144,
        "accounting": 0,
        "timestamps": 1,
        "log_invalid": 255,
        "dccp_loose": 1,
        "helper": 0,
        "frag6_high_thresh": 4194304,
        "frag6_low_thresh": 3145728,
        "hooks_lwtunnel": 0,
        "timeouts": {
            "flowtable_tcp": 30,
            "flowtable_udp": 20,
            "frag6": 60,
            "generic": 600,
            "icmpv6": 30,
            "sctp_shutdown_ack_sent": 3,
            "tcp_established": 432000,
            "udp": 30,
            "udp_stream": 120,
        },
    }


def test_zero_is_distinguished_from_a_missing_setting(directory: str) -> None:
    """The error message depends on whether accounting is off or unknown to this kernel."""
    assert sysctl.read("accounting", directory) == 0
    assert sysctl.read("buckets", directory) is None


def test_a_host_without_conntrack_has_no_settings(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    assert sysctl.read_all(absent) == {"timeouts": {}}
    assert sysctl.read("max", absent) is None


def test_unreadable_file_is_omitted(directory: str, tmp_path: Path) -> None:
    (tmp_path / "nf_conntrack_max").write_text("no number\n", encoding="ascii")
    (tmp_path / "nf_conntrack_udp_timeout").unlink()
    (tmp_path / "nf_conntrack_udp_timeout").mkdir()
    found = sysctl.read_all(directory)
    assert "max" not in found
    assert "udp" not in found["timeouts"]
    assert "udp_stream" in found["timeouts"]


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"max": 99}, "max: 99 is below the current 100 entries"),
        ({"buckets": 1}, "buckets: 1 would put the current 100 entries"),
    ],
)
def test_table_size_below_the_current_count_is_refused(tmp_path: Path, declared: dict[str, int], message: str) -> None:
    """The kernel would drop every new connection, including the next SSH session."""
    (tmp_path / "nf_conntrack_count").write_text("100\n")
    with pytest.raises(sysctl.CannotSet, match=message):
        sysctl.check_room(declared, str(tmp_path))
    sysctl.check_room({"max": 100, "buckets": 2}, str(tmp_path))
    sysctl.check_room({"max": 0}, str(tmp_path))  # no limit


def test_timeout_of_0_is_refused() -> None:
    """A timeout of 0 would remove the entry of each connection. A declaration that repeats an existing 0 is valid."""
    assert sysctl.parse({"timeouts": {"tcp_established": 0}}) == {"timeouts.tcp_established": 0}
    with pytest.raises(sysctl.CannotSet, match="0 would remove every entry immediately; write 1 or more"):
        sysctl.check_values({"timeouts.tcp_established": 0}, {})
    sysctl.check_values({"accounting": 0}, {"timeouts.tcp_established": 0})
    with pytest.raises(InvalidValue, match=r"timeouts\.udp: -1 is out of range"):
        sysctl.parse({"timeouts": {"udp": -1}})


LOW, HIGH = "frag6_low_thresh", "frag6_high_thresh"


@pytest.mark.parametrize(
    ("low", "high", "first"), [(5, 6, HIGH), (1, 2, LOW), (3, 4, LOW)], ids=["both up", "both down", "as they are"]
)
def test_thresholds_are_written_in_an_order_that_the_kernel_accepts(low: int, high: int, first: str) -> None:
    actual = {LOW: 3, HIGH: 4}
    ordered = sysctl.in_order({HIGH: high, "accounting": 1, LOW: low}, actual)
    assert ordered[1 if first == LOW else 0][0] == first
    for name, value in ordered:
        actual[name] = value
        assert actual[LOW] <= actual[HIGH]


def test_contradictory_thresholds_are_refused() -> None:
    with pytest.raises(sysctl.CannotSet, match="frag6_low_thresh: 5 is above frag6_high_thresh, which is 4"):
        sysctl.check_values({LOW: 5}, {LOW: 3, HIGH: 4})
    sysctl.check_values({LOW: 5, HIGH: 5}, {LOW: 3, HIGH: 4})
    sysctl.check_values({"accounting": 1}, {LOW: 5, HIGH: 4})


def test_missing_proc_is_reported_with_advice(tmp_path: Path) -> None:
    with pytest.raises(sysctl.CannotSet, match=r"sys does not exist.*; mount /proc"):
        sysctl.check_mounted(str(tmp_path / "sys/net/netfilter"))
    (tmp_path / "sys").mkdir()
    sysctl.check_mounted(str(tmp_path / "sys/net/netfilter"))


@pytest.mark.parametrize("name", ["max", "buckets"])
def test_writable_settings_are_determined_by_their_files(name: str, directory: str) -> None:
    """A later kernel can have a maximum for each namespace."""
    Path(directory, sysctl.NAMES[name]).touch()
    sysctl.check_writable(name, directory)
