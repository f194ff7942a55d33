# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the most frequent keys in a large table without a count for each key."""

from __future__ import annotations

from collections import Counter
from typing import Any

#: The maximum number of keys that are counted at the same time.
CAPACITY = 20_000


class HeavyHitters:
    """Counts by key with a limited capacity. When it is exceeded, the rarer half of the keys is dropped.

    Until then `counts` are exact, and after that at most `uncertainty` too low. A key with more occurrences than that
    is never missing. Add to `counts` directly, and call `tidy` from time to time.

    Source: J. Misra, D. Gries, "Finding repeated elements", 1982. This is a variant that drops half of the keys at a
    time.
    """

    def __init__(self, capacity: int | None = None) -> None:
        self.counts: Counter[Any] = Counter()
        self.uncertainty: float = 0
        self.capacity = CAPACITY if capacity is None else capacity

    def tidy(self) -> None:
        """Drop the rarer half of the keys if there are more than `capacity`."""
        counts = self.counts
        if len(counts) <= self.capacity:
            return
        rare = sorted(counts.values())[len(counts) // 2]
        kept = {key: count for key, count in counts.items() if count > rare}
        counts.clear()
        counts.update(kept)
        self.uncertainty += rare

    def most(self, number: int) -> list[tuple[Any, int]]:
        """Return the `number` most frequent keys with their counts. Keys with equal counts are in ascending order."""
        return sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:number]
