# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options for settings."""

from __future__ import annotations

from typing import Any

#: The settings as options.
SETTINGS: dict[str, Any] = {
    "max": {"type": "int"},
    "buckets": {"type": "int"},
    "expect_max": {"type": "int"},
    "accounting": {"type": "bool"},
    "timestamps": {"type": "bool"},
    "events": {"type": "int"},
    "checksum": {"type": "bool"},
    "log_invalid": {"type": "int"},
    "tcp_loose": {"type": "bool"},
    "tcp_be_liberal": {"type": "bool"},
    "tcp_max_retrans": {"type": "int"},
    "tcp_ignore_invalid_rst": {"type": "bool"},
    "dccp_loose": {"type": "bool"},
    "helper": {"type": "bool"},
    "frag6_high_thresh": {"type": "int"},
    "frag6_low_thresh": {"type": "int"},
    "hooks_lwtunnel": {"type": "bool"},
    "timeouts": {"type": "dict"},
}
#: Whether to store the settings for the next boot, and in which directory.
PERSISTENCE: dict[str, Any] = {
    "persist": {"type": "bool", "default": False},
    "persist_in": {"type": "path", "default": "/etc"},
}
