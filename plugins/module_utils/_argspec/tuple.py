# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that describe a tuple, and types of options, which entries and expectations share."""

from __future__ import annotations

from typing import Any

TEXT = {"type": "str"}
NUMBER = {"type": "int"}
TEXTS = {"type": "list", "elements": "str"}
DICTIONARY = {"type": "dict"}

TUPLE: dict[str, Any] = {
    **dict.fromkeys(("source", "destination"), TEXT),
    **dict.fromkeys(("source_port", "destination_port", "icmp_type", "icmp_code", "icmp_id"), NUMBER),
    **{key: {**NUMBER, "no_log": False} for key in ("source_key", "destination_key")},
}


def group(options: dict[str, Any]) -> dict[str, Any]:
    """Return an option that is a dictionary with these suboptions."""
    return {"type": "dict", "options": options}
