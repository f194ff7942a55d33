# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read entries to declare from a file on the controller."""

from __future__ import annotations

from typing import Any, ClassVar

from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.entries import NO_COUNTS
from ansible_collections.netops.conntrack.plugins.module_utils._source.file import entries_in
from ansible_collections.netops.conntrack.plugins.plugin_utils._src_action import DeclaringAction
from ansible_collections.netops.conntrack.plugins.plugin_utils._src_task import as_lines


class ActionModule(DeclaringAction):
    """The action of the module conntrack_entries."""

    MODULE = "netops.conntrack.conntrack_entries"
    DECLARED = "entries"
    NOTHING_DONE: ClassVar[dict[str, Any]] = {"counts": NO_COUNTS, "kept": 0, "changes": [], "failed_entries": []}

    def arguments(self) -> dict[str, Any]:
        path = self.own_source()
        if path is None:
            return dict(self._task.args)
        text = as_lines(entries_in(self.loaded(path), path))
        return {**self._task.args, **self.sent_text(text, "entries.jsonl")}
