# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Count entries in one pass by family, protocol, state, zone, mark, NAT and status.

Only counts are kept, one per distinct value. There may be as many marks as entries, so only the most frequent marks are
counted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any, Callable, Mapping, NamedTuple

from ..codec.codec import Values
from ..codec.layout import MessageLayout
from ..codec.types import DCCP_STATE, FAMILIES, PROTOCOL, SCTP_STATE, STATUS_BITS, TCP_STATE, Enum
from ..entry.entry import Entry
from ..entry.nat import translations
from .heavy_hitters import HeavyHitters
from .scan import Action, Visitor

_STATES: tuple[tuple[str, str, Enum], ...] = (
    ("tcp", "tcp.state", TCP_STATE),
    ("sctp", "sctp.state", SCTP_STATE),
    ("dccp", "dccp.state", DCCP_STATE),
)
_FAMILY_NAMES = {number: name for name, number in FAMILIES.items()}
_COUNTED = ("zone", "original.zone", "reply.zone", "status", "mark", *(key for _protocol, key, _kind in _STATES))
#: Addresses of which only the presence is relevant.
_ENDS = ("reply.source", "reply.destination")
#: The maximum number of combinations of values that are counted before they are added to the totals.
_PENDING = 4096


class Summary(Visitor):
    """The counts of the entries passed to `add` or visited by a scan."""

    def __init__(self) -> None:
        self._matched = 0
        self._families: defaultdict[Any, int] = defaultdict(int)
        self._protocols: defaultdict[Any, int] = defaultdict(int)
        self._states: defaultdict[tuple[str, Any], int] = defaultdict(int)
        self._zones: defaultdict[Any, int] = defaultdict(int)
        self._marks = HeavyHitters()
        self._translated: defaultdict[tuple[str, ...], int] = defaultdict(int)
        self._statuses: defaultdict[int, int] = defaultdict(int)
        self._pending: list[_Combinations] = []

    def on(self, layout: MessageLayout) -> Action:
        keys, read = layout.part(_COUNTED)
        same = {**layout.constants, **dict.fromkeys((key for key in _ENDS if layout.column(key)), b"")}
        combinations = _Combinations(same, keys, Counter())
        self._pending.append(combinations)
        counts = combinations.counts

        def act(data: bytes) -> None:
            counts.update(read(data))
            if len(counts) > _PENDING:
                self._sort_in(combinations)

        return act

    def _sort_in(self, combinations: _Combinations) -> None:
        for values, times in combinations.counts.items():
            self.add({**combinations.same, **dict(zip(combinations.keys, values))}, times)
        combinations.counts.clear()

    def add(self, entry: Entry, times: int = 1) -> None:
        get = entry.get
        self._matched += times
        self._families[get("family")] += times
        self._protocols[get("original.protocol")] += times
        self._zones[get("zone") or get("original.zone") or get("reply.zone") or 0] += times
        self._marks.counts[get("mark", 0)] += times
        self._marks.tidy()
        self._translated[tuple(translations(entry))] += times
        self._statuses[get("status", 0)] += times
        for protocol, key, _kind in _STATES:
            state = get(key)
            if state is not None:
                self._states[protocol, state] += times

    def as_document(self, most: int) -> dict[str, Any]:
        """Return `{"by_family": {name: entries}, …}` with the `most` frequent zones and marks."""
        for combinations in self._pending:
            self._sort_in(combinations)
        states: dict[str, dict[str, int]] = {}
        for protocol, _key, kind in _STATES:
            counts = {str(kind.present(state)): count for (of, state), count in self._states.items() if of == protocol}
            if counts:
                states[protocol] = _sorted(counts)
        return {
            "matched": self._matched,
            "by_family": _sorted(_named(self._families, lambda n: _FAMILY_NAMES.get(n, n))),
            "by_protocol": _sorted(_named(self._protocols, PROTOCOL.present)),
            "by_state": states,
            "by_zone": self._cut(self._zones, most),
            "by_mark": self._cut(self._marks.counts, most),
            "nat": {
                "source": self._translated_at("source"),
                "destination": self._translated_at("destination"),
                "none": self._translated.get((), 0),
            },
            "status": {
                name: sum(count for status, count in self._statuses.items() if status & bit)
                for name, bit in STATUS_BITS.items()
                if any(status & bit for status in self._statuses)
            },
        }

    def _translated_at(self, end: str) -> int:
        return sum(count for ends, count in self._translated.items() if end in ends)

    def _cut(self, counts: Mapping[Any, int], most: int) -> dict[str, int]:
        """Return the counts of the `most` frequent keys, and the sum of all others under `other`."""
        shown = {str(key): counts[key] for key in _order(counts)[:most]}
        others = self._matched - sum(shown.values())
        if others:
            shown["other"] = others
        return shown


class _Combinations(NamedTuple):
    """The number of messages of one layout by the values of `keys`. All of them have the values in `same`."""

    same: Values
    keys: tuple[str, ...]
    counts: Counter[tuple[Any, ...]]


def _order(counts: Mapping[Any, int]) -> list[Any]:
    return sorted(counts, key=lambda key: (-counts[key], key))


def _named(counts: Mapping[Any, int], name: Callable[[Any], Any]) -> dict[str, int]:
    return {str(name(key)): count for key, count in counts.items()}


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return {key: counts[key] for key in _order(counts)}
