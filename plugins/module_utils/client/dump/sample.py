# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Count entries in one pass, and keep the first ones and those with the longest remaining timeout.

Only these few entries are kept, so that memory use does not grow with the table.
"""

from __future__ import annotations

import heapq
from itertools import chain

from ..codec.codec import Values
from ..codec.layout import MessageLayout
from ..entry.entry import Entry
from .scan import Action, Visitor


class EntrySample(Visitor):
    """Counts the entries, and keeps the first `shown` of them and the `kept` ones with the longest timeout.

    The timeout of an entry without one counts as 0.
    """

    def __init__(self, shown: int, kept: int) -> None:
        self.count = 0
        self.first: list[Entry] = []
        self._shown = shown
        self._kept = kept
        self._longest: list[tuple[int, int, Entry]] = []

    @property
    def longest(self) -> list[Entry]:
        """The entries with the longest remaining timeout, in descending order."""
        return [entry for _seconds, _number, entry in sorted(self._longest, key=lambda kept: -kept[0])]

    def on(self, layout: MessageLayout) -> Action:
        keys, read = layout.part(("timeout",))
        size, longest = layout.size, self._longest

        def act(data: bytes) -> None:
            count = len(data) // size
            self.first += layout.entries(data[: size * max(self._shown - len(self.first), 0)])
            if self._kept:
                timeouts = list(chain.from_iterable(read(data))) if keys else [0] * count
                if len(longest) < self._kept or max(timeouts) > longest[0][0]:
                    for number, (seconds, entry) in enumerate(zip(timeouts, layout.entries(data)), self.count):
                        self._keep(seconds, number, entry)
            self.count += count

        return act

    def add(self, entry: Values) -> None:
        if len(self.first) < self._shown:
            self.first.append(entry)
        if self._kept:
            self._keep(entry.get("timeout", 0), self.count, entry)
        self.count += 1

    def _keep(self, seconds: int, number: int, entry: Entry) -> None:
        held = (seconds, -number, entry)
        if len(self._longest) < self._kept:
            heapq.heappush(self._longest, held)
        else:
            heapq.heappushpop(self._longest, held)
