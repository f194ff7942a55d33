# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rates of entries: their counters are read twice, and the difference is divided by the time between."""

from __future__ import annotations

import time
from itertools import repeat
from typing import Any, Callable, Dict

from ..codec.layout import MessageLayout
from ..entry.entry import Entry
from .scan import Action, Visitor

#: What distinguishes entries. The id is a hash of 32 bits, which alone would not be enough for a large table.
_IDENTITY = ("id", "original.source", "original.destination", "original.source_port")
DIRECTIONS, COUNTERS = ("original", "reply"), ("bytes", "packets")
_COUNTED = tuple(f"counters.{direction}.{what}" for direction in DIRECTIONS for what in COUNTERS)


class RatedEntry(Dict[str, Any]):
    """An entry with its bytes and packets per second: `{"original": {"bytes": 12.5, "packets": 1.0}, "reply": {…}}`."""

    rate: dict[str, dict[str, float]]

    def total(self, what: str) -> float:
        """Return the bytes or packets per second of both directions."""
        return sum(rate[what] for rate in self.rate.values())


class CounterReading(Visitor):
    """The counters of entries by what distinguishes them. Takes about 300 bytes of memory for each entry."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        #: The counters of each entry, and the time at which they were read.
        self._counters: dict[int, tuple[tuple[int, ...], float]] = {}

    def on(self, layout: MessageLayout) -> Action:
        names, read = layout.part((*_IDENTITY, *_COUNTED))
        if not set(_COUNTED) <= set(names) or not set(_IDENTITY[:3]) <= set(names):
            return lambda data: self.add_all(layout.entries(data))
        identity = [names.index(name) for name in _IDENTITY if name in names]
        counted = [names.index(name) for name in _COUNTED]

        def act(data: bytes) -> None:
            columns = list(zip(*read(data)))
            keys = map(hash, zip(*map(columns.__getitem__, identity)))
            counters = zip(*map(columns.__getitem__, counted))
            self._counters.update(zip(keys, zip(counters, repeat(self._clock()))))

        return act

    def add(self, entry: Entry) -> None:
        self._counters[_identity(entry)] = tuple(entry.get(key, 0) for key in _COUNTED), self._clock()

    def rated(self, entry: Entry) -> RatedEntry:
        """Return an entry that was read now with its rates since this reading.

        An entry that was not there began since then. Counters that are lower were reset since then.
        """
        before, read_at = self._counters.get(_identity(entry), ((0,) * len(_COUNTED), self._began))
        now = [entry.get(key, 0) for key in _COUNTED]
        elapsed = self._clock() - read_at
        rates = [(new - old if new >= old else new) / elapsed for new, old in zip(now, before)]
        found = RatedEntry(entry)
        size = len(COUNTERS)
        found.rate = {
            direction: dict(zip(COUNTERS, rates[place * size :])) for place, direction in enumerate(DIRECTIONS)
        }
        return found


def _identity(entry: Entry) -> int:
    return hash(tuple(entry[key] for key in _IDENTITY if key in entry))
