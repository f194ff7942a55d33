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
#: The event comes at the latest this number of windows after the first change, even if the changes never stop.
_LONGEST = 6


class ChangeWindow:
    """Counts changes until none has come for a window, so that rules see a reload of several steps as a whole.

    Under a constant stream, the event comes `_LONGEST` windows after the first change. Changes that arrive while the
    caller is busy wait in the receive buffers of the subscriptions.
    """

    def __init__(self, changes: Changes, subscriptions: Sequence[ChangeSubscription]) -> None:
        self._window = changes.window
        self._subscriptions = subscriptions
        self._begin()

    def _begin(self) -> None:
        self._counts: Counter[str] = Counter()
        self._processes: dict[Process, None] = {}
        self._overrun = False
        self._latest = math.inf
        #: Time of the event, on the clock that the caller passes to `take`. Each change can move it.
        self.due = math.inf

    def filenos(self) -> list[int]:
        """The file descriptors that are readable when changes are available."""
        return [subscription.fileno() for subscription in self._subscriptions]

    def take(self, now: float) -> list[Document]:
        """Count the available changes, and return the event if they have settled."""
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
            self._latest = now + _LONGEST * self._window
        self.due = min(now + self._window, self._latest)
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
