# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who comes most often among a million, without a count for each of the million."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

#: So many keys are counted at the same time.
CAPACITY = 20_000


class HeavyHitters:
    """Counts by key, as many as there is room for: when it is used up, the rare ones are forgotten.

    `counts` are exact until then, and afterwards at most `uncertainty` too low; a key that comes more often
    than that is not missed. Add to `counts` and call `tidy` now and then.

    Source: J. Misra, D. Gries, "Finding repeated elements", 1982, of which this is a variant that
    forgets half of the keys at a time.
    """

    def __init__(self, capacity: int | None = None) -> None:
        self.counts: defaultdict[Any, int] = defaultdict(int)
        self.uncertainty = 0
        self.capacity = CAPACITY if capacity is None else capacity

    def tidy(self) -> None:
        """Make room if it is needed."""
        counts = self.counts
        if len(counts) <= self.capacity:
            return
        rare = sorted(counts.values())[len(counts) // 2]
        kept = {key: count for key, count in counts.items() if count > rare}
        counts.clear()
        counts.update(kept)
        self.uncertainty += rare

    def most(self, number: int) -> list[tuple[Any, int]]:
        """The most frequent with their counts; ties in the order of their keys."""
        return sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:number]
