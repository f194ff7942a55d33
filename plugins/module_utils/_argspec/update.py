# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that change entries."""

from __future__ import annotations

from typing import Any

from .tuple import NUMBER, TEXT, TEXTS, group

_CHANGES = {
    "mark": TEXT,
    "labels_add": TEXTS,
    "labels_remove": TEXTS,
    "timeout": NUMBER,
    "status": TEXTS,
    "helper": TEXT,
}
#: The options `set` and `timeout_min`.
SET: dict[str, Any] = {
    "set": {**group(_CHANGES), "required": True},
    "timeout_min": {**NUMBER, "default": 0},
}
