# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options `max_count`, `min_count` and `timeout`: what is waited for, and how long."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule

from .._module import check_not_negative

if TYPE_CHECKING:
    from .._operations.wait import Goal

#: Seconds.
TIMEOUT = 300
WAIT: dict[str, Any] = {
    "max_count": {"type": "int"},
    "min_count": {"type": "int"},
    "timeout": {"type": "float", "default": TIMEOUT},
}


def goal_of(module: AnsibleModule) -> Goal:
    """What is waited for: that nothing is left, unless one of the options says otherwise."""
    from .._operations.wait import Goal

    for option in ("max_count", "min_count"):
        number = module.params[option]
        if number is not None:
            check_not_negative(module, option)
            return Goal(number, rising=option == "min_count")
    return Goal(0)


def seconds_of(module: AnsibleModule) -> float:
    """How long to wait."""
    seconds: float = module.params["timeout"]
    if seconds < 0 or not math.isfinite(seconds):
        from ..client.errors import InvalidValue

        raise InvalidValue("timeout", f"{seconds} is {'negative' if seconds < 0 else 'no number'}; write 0 or more")
    return seconds
