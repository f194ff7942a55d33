# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Count entries in one pass, and keep the first ones and those with the longest remaining timeout.

Only these few entries are kept, so that memory use does not grow with the table.
"""

from __future__ import annotations

import heapq

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
        keys, unpack = layout.part(("timeout",))
        entry, first, longest = layout.entry, self.first, self._longest
        timed, shown, kept = bool(keys), self._shown, self._kept

        def act(datagram: bytes, start: int, message: int) -> None:
            self.count += 1
            if len(first) < shown:
                first.append(entry(datagram, start))
            if kept:
                seconds = unpack(datagram, start)[-1] if timed else 0
                if len(longest) < kept or seconds > longest[0][0]:
                    self._keep(seconds, entry(datagram, start))

        return act

    def add(self, entry: Values) -> None:
        self.count += 1
        if len(self.first) < self._shown:
            self.first.append(entry)
        if self._kept:
            self._keep(entry.get("timeout", 0), entry)

    def _keep(self, seconds: int, entry: Entry) -> None:
        held = (seconds, -self.count, entry)
        if len(self._longest) < self._kept:
            heapq.heappush(self._longest, held)
        else:
            heapq.heappushpop(self._longest, held)
