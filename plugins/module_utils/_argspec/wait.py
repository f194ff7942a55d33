# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options `max_count`, `min_count` and `timeout`: the goal, and the maximum time to wait."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule

from .._module import check_numbers

if TYPE_CHECKING:
    from .._operations.wait import Goal

#: The default timeout in seconds.
TIMEOUT = 300
WAIT: dict[str, Any] = {
    "max_count": {"type": "int"},
    "min_count": {"type": "int"},
    "timeout": {"type": "float", "default": TIMEOUT},
}


def goal_of(module: AnsibleModule) -> Goal:
    """Return the goal that the options set. By default, no entry may match. Raises `InvalidValue`."""
    from .._operations.wait import Goal

    for option in ("max_count", "min_count"):
        number = module.params[option]
        if number is not None:
            check_numbers(module, option)
            return Goal(number, rising=option == "min_count")
    return Goal(0)


def seconds_of(module: AnsibleModule) -> float:
    """Return the timeout in seconds. Raises `InvalidValue` if it is negative or not finite."""
    seconds: float = module.params["timeout"]
    if seconds < 0 or not math.isfinite(seconds):
        from ..client.errors import InvalidValue

        raise InvalidValue("timeout", f"{seconds} is {'negative' if seconds < 0 else 'not a number'}; write 0 or more")
    return seconds
