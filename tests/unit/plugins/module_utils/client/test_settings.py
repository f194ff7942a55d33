# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings are read from the files that this kernel has, under the names of the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client import settings
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue

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
    "nf_log_all_netns": "0\n",
}


@pytest.fixture
def directory(tmp_path: Path) -> str:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="ascii")
    return str(tmp_path)


def test_every_setting_that_is_there_and_its_timeouts(directory: str) -> None:
    assert settings.read_all(directory) == {
        "max": 262144,
        "accounting": 0,
        "timestamps": 1,
        "log_invalid": 255,
        "timeouts": {
            "generic": 600,
            "icmpv6": 30,
            "sctp_shutdown_ack_sent": 3,
            "tcp_established": 432000,
            "udp": 30,
            "udp_stream": 120,
        },
    }


def test_zero_is_a_value_and_absence_is_none(directory: str) -> None:
    """Whether accounting is off, or this kernel cannot say, decides on an error message."""
    assert settings.read("accounting", directory) == 0
    assert settings.read("buckets", directory) is None


def test_a_host_without_conntrack_has_no_settings(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    assert settings.read_all(absent) == {"timeouts": {}}
    assert settings.read("max", absent) is None


def test_a_file_that_cannot_be_read_is_left_out(directory: str, tmp_path: Path) -> None:
    (tmp_path / "nf_conntrack_max").write_text("no number\n", encoding="ascii")
    (tmp_path / "nf_conntrack_udp_timeout").unlink()
    (tmp_path / "nf_conntrack_udp_timeout").mkdir()
    found = settings.read_all(directory)
    assert "max" not in found
    assert "udp" not in found["timeouts"]
    assert "udp_stream" in found["timeouts"]


@pytest.mark.parametrize(
    ("declared", "says"),
    [({"max": 99}, "max: 99 is below the 100 entries"), ({"buckets": 1}, "buckets: 1 would put the 100 entries")],
)
def test_a_table_is_not_made_too_small_for_what_is_in_it(tmp_path: Path, declared: dict[str, int], says: str) -> None:
    """Every new connection would be dropped, the next SSH session among them."""
    (tmp_path / "nf_conntrack_count").write_text("100\n")
    with pytest.raises(settings.CannotSet, match=says):
        settings.check_room(declared, str(tmp_path))
    settings.check_room({"max": 100, "buckets": 2}, str(tmp_path))
    settings.check_room({"max": 0}, str(tmp_path))  # no limit


def test_no_timeout_is_0() -> None:
    """With the next packet of each connection it would be gone."""
    with pytest.raises(InvalidValue, match=r"timeouts\.tcp_established: 0 is out of range; write an integer from 1"):
        settings.parse({"timeouts": {"tcp_established": 0}})
