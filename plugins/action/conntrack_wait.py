# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let conntrack_wait wait in turns, and say how far it is between two of them.

A module says nothing until it ends. So it is run several times, each time with a part of the timeout, and what the
turns return becomes one result. What happens between two turns, the next one sees at its beginning. Whoever
interrupts the play leaves no module behind that goes on for longer than a turn.
"""

from __future__ import annotations

import itertools
import math
import time

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.netops.conntrack.plugins.module_utils.options.wait import TIMEOUT

MODULE = "netops.conntrack.conntrack_wait"
#: Seconds of the first turns, and of all that come after them.
FIRST_TURNS, TURN = (15, 30), 60

display = Display()


class ActionModule(ActionBase):
    """One run of the module where nobody is to be told anything meanwhile, else turns."""

    _supports_async = True
    _supports_check_mode = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        del tmp  # it has no effect any more
        asynchronous = bool(self._task.async_val)
        timeout = seconds(self._task.args.get("timeout", TIMEOUT))
        if asynchronous or self._task.check_mode or timeout is None:
            found = self._execute_module(module_name=MODULE, task_vars=task_vars, wrap_async=asynchronous)
        else:
            found = self._take_turns(timeout, task_vars)
        if not asynchronous:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        result.update(found)
        return result

    def _take_turns(self, timeout, task_vars):
        began = time.monotonic()
        found, initial, before = {}, None, None
        for turn in itertools.chain(FIRST_TURNS, itertools.repeat(TURN)):
            waited = time.monotonic() - began
            options = {**self._task.args, "timeout": min(turn, max(0, timeout - waited))}
            found = self._execute_module(module_name=MODULE, module_args=options, task_vars=task_vars)
            if "elapsed" not in found:  # the module did not come to its end
                break
            if initial is None:
                initial = before = found["initial"]
            found.update(initial=initial, elapsed=round(waited + found["elapsed"], 3))
            found.get("invocation", {}).get("module_args", {}).update(timeout=timeout)
            if not found["timed_out"] or time.monotonic() - began >= timeout:
                break
            if not self._task.no_log:
                line = progress(before, found["remaining"], found["elapsed"], turn, self._task.args)
                # It is no part of what a callback writes to the standard output, which may be JSON.
                display.display(f"[{task_vars['inventory_hostname']}] conntrack_wait: {line}", stderr=True)
            before = found["remaining"]
        return found


def seconds(timeout):
    """The timeout as a number, or None for what only the module can say something about."""
    try:
        number = float(timeout)
    except (TypeError, ValueError):
        return None
    return number if not isinstance(timeout, bool) and 0 <= number < math.inf else None


def progress(before, now, elapsed, turn, options):
    """How far it is: how many match, how quickly that changes, and how long it will take if it goes on like this.

    `before` and `now` match at the beginning and at the end of a turn of so many seconds.
    """
    rising = options.get("min_count") is not None
    wanted = int(options.get("min_count" if rising else "max_count") or 0)
    line = f"{now} entries match after {elapsed:.0f} s, waiting for {'at least' if rising else 'at most'} {wanted}"
    done, verb = ((now - before) / turn, "come") if rising else ((before - now) / turn, "go")
    if done <= 0:
        return f"{line}; no {'more' if rising else 'fewer'} than {turn} s ago"
    rate = f"{done:.0f} {verb} in a second" if done >= 10 else f"{60 * done:.0f} {verb} in a minute"
    return f"{line}; {rate}, so about {duration(abs(now - wanted) / done)} to go"


def duration(left):
    """Seconds for a human: `45 s`, `12 min`, `3 h`."""
    for size, unit in ((3600, "h"), (60, "min")):
        if left >= 2 * size:
            return f"{left / size:.0f} {unit}"
    return f"{math.ceil(left)} s"
