# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Report when the use of SNAT ports crosses a threshold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...module_utils.client.entry.nested import Document
from .options import Threshold
from .usage_threshold import ThresholdCheck

#: The keys that identify flows which share ports.
_KEYS = ("address", "destination", "destination_port", "protocol", "zone")


class SnatPortUsage(ThresholdCheck["list[Document]"]):
    """Reports once when a use of SNAT ports rises above the threshold and once when it falls.

    Measured are all uses, the highest first, in the form of the fact `snat_ports`.
    """

    def __init__(self, threshold: Threshold, measure: Callable[[], list[Document]]) -> None:
        super().__init__(threshold, measure)
        #: The last use of those that were reported as above the threshold.
        self._above: dict[tuple[Any, ...], Document] = {}

    def _crossings(self, measured: list[Document]) -> list[Document]:
        threshold = self._threshold
        uses = {tuple(use[key] for key in _KEYS): use for use in measured}
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
