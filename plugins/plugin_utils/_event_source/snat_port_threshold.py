# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Report when the use of SNAT ports crosses a threshold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...module_utils.client.entry.nested import Document
from .options import Threshold

#: The uses of SNAT ports, the highest first, in the form of the fact `snat_ports`.
Measure = Callable[[], list[Document]]
#: The keys that identify flows which share ports.
_KEYS = ("address", "destination", "destination_port", "protocol", "zone")


class PortUse:
    """Checks the use at intervals, and reports once when one rises above the threshold and once when it falls."""

    def __init__(self, threshold: Threshold, measure: Measure) -> None:
        self._threshold = threshold
        self._measure = measure
        #: The last use of those that were reported as above the threshold.
        self._above: dict[tuple[Any, ...], Document] = {}
        #: Time of the next check.
        self.due = 0.0

    def take(self, now: float) -> list[Document]:
        """The events of all crossings, if a check is due."""
        if now < self.due:
            return []
        threshold = self._threshold
        self.due = now + threshold.interval
        uses = {tuple(use[key] for key in _KEYS): use for use in self._measure()}
        events = []
        for key, use in uses.items():
            if key not in self._above and use["usage_percent"] >= threshold.percent:
                events.append(self._event("above", use))
                self._above[key] = use
        for key, before in list(self._above.items()):
            use = uses.get(key, {**before, "used": 0, "usage_percent": 0.0, "sources": []})
            if use["usage_percent"] < threshold.below:
                events.append(self._event("below", use))
                del self._above[key]
        return events

    def _event(self, crossed: str, use: Document) -> Document:
        threshold = self._threshold
        return {
            "type": "snat_ports",
            "crossed": crossed,
            **use,
            "percent": threshold.percent,
            "below": threshold.below,
        }
