# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of connection tracking in one network namespace.

Source: Documentation/networking/nf_conntrack-sysctl.rst. Times are in seconds.
"""

from __future__ import annotations

import os
import re
from typing import Any

DIRECTORY = "/proc/sys/net/netfilter"

#: The name of a setting here, and of its file after `nf_conntrack_`.
NAMES: dict[str, str] = {
    "max": "max",
    "buckets": "buckets",
    "expect_max": "expect_max",
    "accounting": "acct",
    "timestamps": "timestamp",
    "events": "events",
    "checksum": "checksum",
    "log_invalid": "log_invalid",
    "tcp_loose": "tcp_loose",
    "tcp_be_liberal": "tcp_be_liberal",
    "tcp_max_retrans": "tcp_max_retrans",
    "tcp_ignore_invalid_rst": "tcp_ignore_invalid_rst",
}

_TIMEOUT = re.compile(r"nf_conntrack_([a-z0-9]+)_timeout(?:_(\w+))?$")


def read(name: str, directory: str = DIRECTORY) -> int | None:
    """One setting of `NAMES`, or None where this kernel or namespace has none."""
    return _number(os.path.join(directory, f"nf_conntrack_{NAMES[name]}"))


def read_all(directory: str = DIRECTORY) -> dict[str, Any]:
    """Every setting that is there by its name in `NAMES`, and `timeouts` by protocol and state."""
    found: dict[str, Any] = {}
    for name in NAMES:
        value = read(name, directory)
        if value is not None:
            found[name] = value
    found["timeouts"] = read_timeouts(directory)
    return found


def read_timeouts(directory: str = DIRECTORY) -> dict[str, int]:
    """`{"tcp_established": 432000, "udp": 30, "udp_stream": 120, …}`."""
    timeouts: dict[str, int] = {}
    try:
        files = sorted(os.listdir(directory))
    except OSError:
        return timeouts
    for file in files:
        match = _TIMEOUT.match(file)
        value = _number(os.path.join(directory, file)) if match else None
        if match and value is not None:
            timeouts["_".join(part for part in match.groups() if part)] = value
    return timeouts


def _number(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
