# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rates of entries: their counters are read twice, and the difference is divided by the time between."""

from __future__ import annotations

from typing import Any, Dict, Mapping

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

    def __init__(self) -> None:
        self._counters: dict[int, tuple[int, ...]] = {}

    def on(self, layout: MessageLayout) -> Action:
        names, read = layout.part((*_IDENTITY, *_COUNTED))
        if not set(_COUNTED) <= set(names) or not set(_IDENTITY[:3]) <= set(names):
            return lambda data: self.add_all(layout.entries(data))
        identity = [names.index(name) for name in _IDENTITY if name in names]
        counted = [names.index(name) for name in _COUNTED]

        def act(data: bytes) -> None:
            columns = list(zip(*read(data)))
            keys = map(hash, zip(*map(columns.__getitem__, identity)))
            self._counters.update(zip(keys, zip(*map(columns.__getitem__, counted))))

        return act

    def add(self, entry: Entry) -> None:
        self._counters[_identity(entry)] = tuple(entry.get(key, 0) for key in _COUNTED)

    def moved_since(self, entry: Entry) -> list[int]:
        """Return the differences of the counters of an entry since this reading.

        An entry that was not there began since then. Counters that are lower were reset since then.
        """
        before = self._counters.get(_identity(entry), (0,) * len(_COUNTED))
        now = [entry.get(key, 0) for key in _COUNTED]
        return [new - old if new >= old else new for new, old in zip(now, before)]


def _identity(entry: Entry) -> int:
    return hash(tuple(entry[key] for key in _IDENTITY if key in entry))


def rated(entry: Mapping[str, Any], moved: list[int], elapsed: float) -> RatedEntry:
    """Return an entry with its rates, from what it moved in a number of seconds."""
    found = RatedEntry(entry)
    size = len(COUNTERS)
    found.rate = {
        direction: {what: number / elapsed for what, number in zip(COUNTERS, moved[place * size :])}
        for place, direction in enumerate(DIRECTIONS)
    }
    return found
