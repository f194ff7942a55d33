# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the table is too full."""

from __future__ import annotations

from collections.abc import Callable

from ...module_utils.client.entry.nested import Document
from .options import Threshold

#: How many entries there are, and how many there may be; None where the kernel does not say.
Measure = Callable[[], tuple[int, int | None]]


class Fill:
    """Looks now and then, and tells when the threshold is crossed: once up, once down again."""

    def __init__(self, threshold: Threshold, measure: Measure) -> None:
        self._threshold = threshold
        self._measure = measure
        self._above = False
        #: When to look next.
        self.due = 0.0

    def take(self, now: float) -> list[Document]:
        """The event of a crossing, if it is time to look and there was one."""
        if now < self.due:
            return []
        threshold = self._threshold
        self.due = now + threshold.interval
        count, most = self._measure()
        if not most:  # 0 is no limit
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
