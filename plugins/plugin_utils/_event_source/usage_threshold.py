# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Report when the usage of the table crosses a threshold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

from ...module_utils.client.entry.nested import Document
from .options import Threshold

_Measured = TypeVar("_Measured")


class ThresholdCheck(ABC, Generic[_Measured]):
    """Measures at intervals, and returns the events of crossings of the threshold."""

    def __init__(self, threshold: Threshold, measure: Callable[[], _Measured]) -> None:
        self._threshold = threshold
        self._measure = measure
        #: Time of the next check.
        self.due = 0.0

    def take(self, now: float) -> list[Document]:
        """Return the events of all crossings, if a check is due."""
        if now < self.due:
            return []
        self.due = now + self._threshold.interval
        return self._crossings(self._measure())

    @abstractmethod
    def _crossings(self, measured: _Measured) -> list[Document]:
        """Return an event for each crossing since the last check."""


class TableUsage(ThresholdCheck["tuple[int, int | None]"]):
    """Reports once when the usage of the table rises above the threshold and once when it falls.

    Measured are the number of entries and the maximum, None if the kernel does not return it.
    """

    _above = False

    def _crossings(self, measured: tuple[int, int | None]) -> list[Document]:
        threshold = self._threshold
        count, most = measured
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
