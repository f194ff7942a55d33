# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that change entries."""

from __future__ import annotations

from typing import Any

from .tuple import group

_LIST = {"type": "list", "elements": "str"}

#: The options `set` and `timeout_min`.
SET: dict[str, Any] = {
    "set": {
        **group(
            {
                "mark": {"type": "str"},
                "labels_add": _LIST,
                "labels_remove": _LIST,
                "timeout": {"type": "int"},
                "status": _LIST,
                "helper": {"type": "str"},
            }
        ),
        "required": True,
    },
    "timeout_min": {"type": "int", "default": 0},
}
