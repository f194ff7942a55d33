# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Print a JSON line for the start of each task of a play, and for each failure."""

from __future__ import annotations

DOCUMENTATION = r"""
name: bench_timer
type: stdout
short_description: When tasks begin
description:
  - Prints a JSON line with the elapsed and the processor time when a task begins and when the play ends.
    It belongs to make bench.
"""

import json  # noqa: E402
import multiprocessing  # noqa: E402
import resource  # noqa: E402
import time  # noqa: E402
from typing import Any  # noqa: E402

from ansible.plugins.callback import CallbackBase  # noqa: E402


class CallbackModule(CallbackBase):  # type: ignore[misc]  # of Ansible, which has no types
    """Print one line for the start of a task, for each failed host, and for the end."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "bench_timer"

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._report_task(task.get_name())

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._report_task("")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._report(failure=str(getattr(result, "result", None) or result._result.get("msg")))

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self.v2_runner_on_failed(result)

    def _report_task(self, name: str) -> None:
        """Report a task that starts, and when the task before it ended.

        When a worker has ended, the kernel adds the processor time of the worker, of its modules and of their programs
        to that of this process. The workers of the previous task have sent their results and are about to end.
        """
        ended = time.monotonic()
        for worker in multiprocessing.active_children():
            worker.join()
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        processor = sum(one.ru_utime + one.ru_stime for one in used)
        self._report(task=name, ended=ended, processor=processor, at=time.monotonic())

    def _report(self, **what: Any) -> None:
        print(json.dumps(what), flush=True)
