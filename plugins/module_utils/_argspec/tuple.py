# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that describe a tuple. Entries and expectations share them."""

from __future__ import annotations

from typing import Any

TUPLE: dict[str, Any] = {
    "source": {"type": "str"},
    "destination": {"type": "str"},
    "source_port": {"type": "int"},
    "destination_port": {"type": "int"},
    "icmp_type": {"type": "int"},
    "icmp_code": {"type": "int"},
    "icmp_id": {"type": "int"},
    "source_key": {"type": "int", "no_log": False},
    "destination_key": {"type": "int", "no_log": False},
}


def group(options: dict[str, Any]) -> dict[str, Any]:
    """Return an option that is a dictionary with these suboptions."""
    return {"type": "dict", "options": options}
