# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that describe a timeout policy."""

from __future__ import annotations

from typing import Any

#: The keys of a timeout policy as options.
TIMEOUT_POLICY: dict[str, Any] = {
    "name": {"type": "str"},
    "default": {"type": "bool", "default": False},
    "family": {"type": "str", "choices": ["ipv4", "ipv6"]},
    "protocol": {"type": "str"},
    "timeouts": {"type": "dict"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "replace": {"type": "bool", "default": False},
    "use": {"type": "int"},
}
