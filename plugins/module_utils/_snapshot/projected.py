# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Entries that would be there by now, had what check mode foresees been done: who is in whose way among them."""

from __future__ import annotations

from typing import Any, Hashable, Mapping

from .._reconcile.plan import is_exactly_translated, is_translated
from ..client.entry.entry import Entry
from ..client.entry.tuple import tuple_key
from ..client.entry.zone import any_zone, zone_of
from .hash_set import Fingerprints

_ENDS = ("original", "reply")


class ProjectedEntries:
    """The entries that were added, which may be as many as `expected`."""

    def __init__(self, expected: int) -> None:
        self._tuples = Fingerprints(2 * expected)
        #: By `master_key`, those that have a helper.
        self.masters: set[Hashable] = set()

    def add(self, entry: Entry) -> None:
        for end in _ENDS:
            self._tuples.add((end, _tuple_in_zone(entry, end)))
        if "helper" in entry:
            self.masters.add(master_key(entry))

    def has(self, entry: Entry) -> bool:
        """Whether this very entry is among them."""
        return ("original", _tuple_in_zone(entry, "original")) in self._tuples

    def has_master_of(self, entry: Entry) -> bool:
        """Whether the entry's master is among them, by one of its tuples."""
        if "master.source" not in entry:
            return False
        masters = ((end, _tuple_in_zone(entry, "master", zone_of(entry, end))) for end in _ENDS)
        return any(master in self._tuples for master in masters)

    def conflict_of(self, entry: Entry) -> str | None:
        """The end of an entry whose tuple one of them has, None where it has room."""
        for end in ("original",) if is_translated(entry) and not is_exactly_translated(entry) else _ENDS:
            zones = {zone_of(entry, other) for other in (_ENDS if end == "original" else ("reply",))}
            for other in _ENDS:
                # An entry is kept apart from another by the zone that both have in the direction of that one's tuple
                zone = zone_of(entry, other)
                if zone in zones and (other, _tuple_in_zone(entry, end, zone)) in self._tuples:
                    return end
        return None


def master_key(entry: Mapping[str, Any]) -> Hashable:
    """What an expectation says of its master."""
    return any_zone(entry), tuple_key(entry, "original")


def _tuple_in_zone(entry: Entry, direction: str, zone: int | None = None) -> Hashable:
    """The tuple of a direction, or that of the master, in its zone or in another."""
    zone = zone_of(entry, direction) if zone is None else zone
    return zone, tuple_key(entry, direction)
