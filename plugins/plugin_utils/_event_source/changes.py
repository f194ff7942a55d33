# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Count changes of the host after which flows may be stale."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from ...module_utils.client.entry.nested import Document
from ...module_utils.client.reevaluate.changes import KINDS, Change, ChangeSubscription, Process
from .options import Changes
from .payloads import neutralize_templates

#: Maximum number of datagrams to read from a subscription before the caller checks the time again.
_STRIDE = 64
#: Maximum number of processes to name in an event.
_PROCESSES = 10


class ChangeWindow:
    """Counts the changes of a window, which begins with the first change. Under a constant stream, each window ends.

    Changes that arrive while the caller is busy wait in the receive buffers of the subscriptions.
    """

    def __init__(self, changes: Changes, subscriptions: Sequence[ChangeSubscription]) -> None:
        self._window = changes.window
        self._subscriptions = subscriptions
        self._begin()

    def _begin(self) -> None:
        self._counts: Counter[str] = Counter()
        self._processes: dict[Process, None] = {}
        self._overrun = False
        #: Time at which the window ends, on the clock that the caller passes to `take`.
        self.due = math.inf

    def filenos(self) -> list[int]:
        """The file descriptors that are readable when changes are available."""
        return [subscription.fileno() for subscription in self._subscriptions]

    def take(self, now: float) -> list[Document]:
        """Count the available changes, and return the event if the window has ended."""
        for subscription in self._subscriptions:
            for change in subscription.receive(_STRIDE):
                self._add(change, now)
        if now < self.due:
            return []
        document = self._document()
        self._begin()
        return [document]

    def _add(self, change: Change, now: float) -> None:
        if not self._counts:
            self.due = now + self._window
        self._counts[change.kind] += 1
        self._overrun = self._overrun or change.lost
        if change.process is not None and len(self._processes) < _PROCESSES:
            self._processes[change.process] = None

    def _document(self) -> Document:
        return {
            "type": "change",
            "window": self._window,
            "counts": {kind: self._counts[kind] for kind in KINDS},
            "processes": [neutralize_templates(process._asdict()) for process in self._processes],
            "overrun": self._overrun,
        }
