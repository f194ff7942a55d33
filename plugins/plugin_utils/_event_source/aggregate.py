# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Count events by keys."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ...module_utils.client.codec.attributes import ENTRY
from ...module_utils.client.dump.heavy_hitters import HeavyHitters
from ...module_utils.client.entry.entry import Entry
from ...module_utils.client.entry.nested import Document, present_family
from ...module_utils.client.events.subscription import ENTRY_GROUPS, Event
from .options import BY, Aggregate
from .payloads import neutralize_templates

#: Values of keys that the kernel omits if they are 0.
_UNSHOWN = {"zone": 0, "mark": 0}
_KINDS = {row.key: row.kind for row in ENTRY}


class Tally:
    """Counts the events of a window, which begins with the first event.

    The number of groups in memory is limited as in `HeavyHitters`. The counts come with their maximum error.
    """

    def __init__(self, aggregate: Aggregate, capacity: int | None = None) -> None:
        self._aggregate = aggregate
        self._capacity = capacity
        self._keys = [BY[name] for name in aggregate.by]
        self._begin()

    def _begin(self) -> None:
        self._counts = HeavyHitters(self._capacity)
        self._all: Counter[str] = Counter()
        #: Time at which the window ends, on the clock that the caller passes to `add`.
        self.due = math.inf

    def add(self, event: Event, now: float) -> None:
        """Count an event."""
        if not self._all:
            self.due = now + self._aggregate.window
        self._all[event.kind] += 1
        group = tuple(_found(keys, event.entry) for keys in self._keys)
        self._counts.counts[group, event.kind] += 1
        self._counts.tidy()

    def take(self, now: float) -> list[Document]:
        """The counts if the window has ended: the groups with the most events first, then the total of all others."""
        if now < self.due:
            return []
        groups: dict[tuple[Any, ...], Counter[str]] = {}
        for (group, kind), count in self._counts.counts.items():
            groups.setdefault(group, Counter())[kind] += count
        ranked = sorted(groups.items(), key=lambda item: -item[1].total())[: self._aggregate.limit]
        documents = [self._document("aggregate", counts, by=self._shown(group)) for group, counts in ranked]
        rest = self._all - sum((counts for _group, counts in ranked), Counter())
        if rest:
            documents.append(self._document("aggregate_rest", rest))
        self._begin()
        return documents

    def _shown(self, group: tuple[Any, ...]) -> Document:
        shown = zip(self._aggregate.by, group, strict=True)
        return {name: _present(name, *found) for name, found in shown if found is not None}

    def _document(self, kind: str, counts: Mapping[str, int], **more: Any) -> Document:
        document = {
            "type": kind,
            "window": self._aggregate.window,
            "counts": {kind: counts.get(kind, 0) for kind in ENTRY_GROUPS},
            **more,
        }
        if self._counts.uncertainty:
            document["uncertainty"] = self._counts.uncertainty
        return document


def _found(keys: tuple[str, ...], entry: Entry) -> tuple[str, Any] | None:
    """The first of the keys that is in the entry, with its value."""
    for key in keys:
        value = entry.get(key, _UNSHOWN.get(key))
        if value is not None:
            return key, value
    return None


def _present(name: str, key: str, value: Any) -> Any:
    if name == "family":
        return present_family(value)
    return neutralize_templates(_KINDS[key].present(value))
