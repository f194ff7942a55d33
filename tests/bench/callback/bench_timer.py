# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prints, one JSON line each, when every task of a play begins, and what went wrong."""

from __future__ import annotations

DOCUMENTATION = r"""
name: bench_timer
type: stdout
short_description: When tasks begin
description:
  - Prints when every task begins and when the play is over, as JSON lines. It belongs to make bench.
"""

import json  # noqa: E402
import time  # noqa: E402
from typing import Any  # noqa: E402

from ansible.plugins.callback import CallbackBase  # noqa: E402


class CallbackModule(CallbackBase):  # type: ignore[misc]  # of Ansible, which has no types
    """One line for the begin of a task, for each host that failed, and for the end."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "bench_timer"

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._tell(task=task.get_name())

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._tell(task="")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._tell(failure=str(getattr(result, "result", None) or result._result.get("msg")))

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self.v2_runner_on_failed(result)

    def _tell(self, **what: Any) -> None:
        print(json.dumps({"at": time.monotonic(), **what}), flush=True)
