# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options `max_count`, `min_count` and `timeout`: what is waited for, and how long."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule

if TYPE_CHECKING:
    from ..wait import Goal

#: Seconds.
TIMEOUT = 300
WAIT: dict[str, Any] = {
    "max_count": {"type": "int"},
    "min_count": {"type": "int"},
    "timeout": {"type": "float", "default": TIMEOUT},
}


def goal_of(module: AnsibleModule) -> Goal:
    """What is waited for: that nothing is left, unless one of the options says otherwise."""
    from ..wait import Goal

    for option in ("max_count", "min_count"):
        number = module.params[option]
        if number is not None:
            _check(option, number)
            return Goal(number, rising=option == "min_count")
    return Goal(0)


def seconds_of(module: AnsibleModule) -> float:
    """How long to wait."""
    seconds: float = module.params["timeout"]
    _check("timeout", seconds)
    return seconds


def _check(option: str, number: float) -> None:
    if number < 0 or not math.isfinite(number):
        from ..client.errors import InvalidValue

        raise InvalidValue(option, f"{number} is {'negative' if number < 0 else 'no number'}; write 0 or more")
