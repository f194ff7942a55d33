# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run conntrack_wait in several turns, and show the progress between them.

A module returns nothing before it ends. The plugin therefore runs it several times, each time with a part of the
timeout, and merges the results. A turn reads the table at its beginning, so it sees changes between two turns. If
the play is interrupted, the module on the host ends with its current turn.
"""

from __future__ import annotations

import itertools
import math
import sys
import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.wait import TIMEOUT

MODULE = "netops.conntrack.conntrack_wait"
#: Duration of the first turns and of all later ones, in seconds.
FIRST_TURNS, TURN = (5, 15, 30), 60

display = Display()


class ActionModule(ActionBase):
    """Runs the module in turns, or once in check mode and for asynchronous tasks."""

    _supports_async = True
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp  # has no effect
        asynchronous = bool(self._task.async_val)
        timeout = seconds(self._task.args.get("timeout", TIMEOUT))
        if asynchronous or self._task.check_mode or timeout is None:
            options = representable(self._task.args)
            found = self._execute_module(
                module_name=MODULE, module_args=options, task_vars=task_vars, wrap_async=asynchronous
            )
        else:
            found = self._take_turns(timeout, task_vars)
        if not asynchronous:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        result.update(found)
        return result

    def _take_turns(self, timeout: float, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        began = time.monotonic()
        found: dict[str, Any] = {}
        initial: int | None = None
        before = 0
        unchanged: float = 0
        ended = 0
        wanted = self._task.args.get("min_count")
        for turn in itertools.chain(FIRST_TURNS, itertools.repeat(TURN)):
            waited = time.monotonic() - began
            options = {**self._task.args, "timeout": min(turn, max(0, timeout - waited))}
            if ended:  # in the turns before
                options["min_count"] = int(wanted) - ended
            found = self._execute_module(module_name=MODULE, module_args=options, task_vars=task_vars)
            if "elapsed" not in found:  # the module did not complete the turn
                break
            if initial is None:
                initial = before = found["initial"]
            ended += found.get("ended", 0)
            found.update(initial=initial, elapsed=round(waited + found["elapsed"], 3), ended=ended)
            found.get("invocation", {}).get("module_args", {}).update(
                {"timeout": timeout, **({"min_count": int(wanted)} if ended else {})}
            )
            if not found["timed_out"] or time.monotonic() - began >= timeout:
                break
            count = found["remaining"] + ended
            unchanged = unchanged + turn if count == before else 0
            if not self._task.no_log:
                line = progress(before, count, found["elapsed"], turn, self._task.args, unchanged)
                # To the standard error, because the standard output of a callback plugin may be JSON.
                display.display(f"[{(task_vars or {}).get('inventory_hostname')}] conntrack_wait: {line}", stderr=True)
            before = count
        return found


def seconds(timeout: Any) -> float | None:
    """The timeout as a number, or None for an invalid value, which the module reports."""
    try:
        number = float(timeout)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if not isinstance(timeout, bool) and 0 <= number < math.inf else None


def representable(options: dict[str, Any]) -> dict[str, Any]:
    """The options, with an infinite timeout instead of an integer that is too large for a float.

    Ansible raises an exception for such an integer. The module reports an infinite timeout as invalid.
    """
    timeout = options.get("timeout")
    if isinstance(timeout, int) and abs(timeout) > sys.float_info.max:
        return {**options, "timeout": "inf" if timeout > 0 else "-inf"}
    return options


def progress(before: int, now: int, elapsed: float, turn: float, options: dict[str, Any], unchanged: float = 0) -> str:
    """The number of matching entries, its rate of change, and an estimate of the remaining time.

    `before` and `now` match at the beginning and at the end of a turn of `turn` seconds. The number has not changed
    for `unchanged` seconds.
    """
    rising = options.get("min_count") is not None
    wanted = int(options.get("min_count" if rising else "max_count") or 0)
    line = (
        f"{now} {'entry matches' if now == 1 else 'entries match'} after {elapsed:.0f} s "
        f"(target: {'at least' if rising else 'at most'} {wanted})"
    )
    if now == before:
        return f"{line}, unchanged for {unchanged or turn:.0f} s"
    rate = abs(now - before) / turn
    shown = f"{rate:.0f} per second" if rate >= 10 else f"{60 * rate:.0f} per minute"
    line = f"{line}, {'rising' if now > before else 'falling'} by {shown}"
    if (now > before) != rising:
        return line
    return f"{line}, about {duration(abs(now - wanted) / rate)} left"


def duration(left: float) -> str:
    """A duration as text: `45 s`, `12 min`, `3 h`."""
    for size, unit in ((3600, "h"), (60, "min")):
        if left >= 2 * size:
            return f"{left / size:.0f} {unit}"
    return f"{math.ceil(left)} s"
