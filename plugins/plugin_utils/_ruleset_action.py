# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Base class of actions whose module judges entries by a ruleset that is not loaded yet."""

from __future__ import annotations

from typing import Any

from ._src_action import SourceAction
from ._src_task import decrypted


class RulesetAction(SourceAction):
    """Copies the file in `ruleset` to the target, byte for byte. The program nft parses it there."""

    SOURCE = "ruleset"
    #: The paths of the copy and of the file, if it was copied.
    _paths: tuple[str, str] | None = None

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        message = result.get("msg")
        if self._paths is not None and isinstance(message, str) and self._paths[0] in message:
            result["msg"] = message.replace(*self._paths)
            result.pop("exception", None)  # has the message, too, and would be shown instead
        return result

    def arguments(self) -> dict[str, Any]:
        given: dict[str, Any] = self._task.args
        own = self.own_source()
        if own is None:
            return given
        with decrypted(self._loader, own, self.SOURCE) as real:
            copied = self.sent("ruleset.nft", lambda path: self._transfer_file(real, path))
        self._paths = copied[self.SOURCE], own
        return {**given, **copied}
