# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Report when the usage of the table crosses a threshold."""

from __future__ import annotations

from collections.abc import Callable

from ...module_utils.client.entry.nested import Document
from .options import Threshold

#: The number of entries and the maximum, or None if the kernel does not return the maximum.
Measure = Callable[[], tuple[int, int | None]]


class Fill:
    """Checks the usage at intervals, and reports once when it rises above the threshold and once when it falls."""

    def __init__(self, threshold: Threshold, measure: Measure) -> None:
        self._threshold = threshold
        self._measure = measure
        self._above = False
        #: Time of the next check.
        self.due = 0.0

    def take(self, now: float) -> list[Document]:
        """The event of a crossing, if a check is due and the threshold was crossed."""
        if now < self.due:
            return []
        threshold = self._threshold
        self.due = now + threshold.interval
        count, most = self._measure()
        if not most:  # 0 means no limit
            return []
        share = 100 * count / most
        above = share >= (threshold.below if self._above else threshold.percent)
        if above == self._above:
            return []
        self._above = above
        return [
            {
                "type": "threshold",
                "crossed": "above" if above else "below",
                "count": count,
                "max": most,
                "usage_percent": round(share, 2),
                "percent": threshold.percent,
                "below": threshold.below,
            }
        ]
