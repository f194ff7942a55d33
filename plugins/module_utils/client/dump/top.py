# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the hosts and services with the most flows and, with accounting, the most bytes."""

from __future__ import annotations

from itertools import repeat
from operator import add
from typing import Any, Callable

from ..codec.layout import MessageLayout
from ..codec.types import PROTOCOL, present_address
from ..entry.entry import Entry
from .heavy_hitters import HeavyHitters
from .scan import Action, Visitor

_TUPLE = ("original.source", "original.destination")
_PORT = "original.destination_port"
_BYTES = ("counters.original.bytes", "counters.reply.bytes")


def _half(pair: bytes) -> int:
    return len(pair) // 2


#: The rankings, and how their keys are shown. The key of a pair is the concatenation of both addresses.
_SHOWN: dict[str, Callable[[Any], dict[str, Any]]] = {
    "sources": lambda address: {"address": present_address(address)},
    "destinations": lambda address: {"address": present_address(address)},
    "services": lambda service: {"protocol": PROTOCOL.present(service[0]), "port": service[1]},
    "pairs": lambda pair: {
        "source": present_address(pair[: _half(pair)]),
        "destination": present_address(pair[_half(pair) :]),
    },
}


class Top(Visitor):
    """Ranks sources, destinations, services and pairs of entries by flows and bytes."""

    def __init__(self) -> None:
        self._flows = {name: HeavyHitters() for name in _SHOWN}
        self._bytes = {name: HeavyHitters() for name in _SHOWN}

    def on(self, layout: MessageLayout) -> Action:
        keys, read = layout.part((*_TUPLE, _PORT, *_BYTES))
        protocol = layout.constants.get("original.protocol")
        ported = _PORT in keys
        counters = 3 if ported else 2
        if keys[:counters] != (*_TUPLE, _PORT)[:counters] or protocol is None:
            return lambda data: self.add_all(layout.entries(data))
        accounted = len(keys) > counters

        def act(data: bytes) -> None:
            columns = list(zip(*read(data)))
            ranked = {"sources": columns[0], "destinations": columns[1], "pairs": tuple(map(add, *columns[:2]))}
            if ported:
                ranked["services"] = tuple(zip(repeat(protocol), columns[2]))
            for name, found in ranked.items():
                self._flows[name].counts.update(found)
            if accounted:
                moved = list(map(sum, zip(*columns[counters:])))
                for name, found in ranked.items():
                    counts = self._bytes[name].counts
                    for key, both in zip(found, moved):
                        counts[key] += both
            self._tidy()

        return act

    def _tidy(self) -> None:
        for frequent in (*self._flows.values(), *self._bytes.values()):
            frequent.tidy()

    def add(self, entry: Entry) -> None:
        moved = [entry[key] for key in _BYTES if key in entry]
        for name, key in _keys_of(entry).items():
            self._flows[name].counts[key] += 1
            if moved:
                self._bytes[name].counts[key] += sum(moved)
        self._tidy()

    def as_document(self, most: int) -> dict[str, Any]:
        """Return `{"sources": {"by_flows": [{"address": …, "flows": …, "bytes": …}], "by_bytes": […]}, …}`.

        `bytes` and `by_bytes` are included if any entry has counters. If there were too many distinct keys to count
        each, `uncertainty` is the maximum by which a number is too low.
        """
        return {name: self._ranked(name, most) for name in _SHOWN}

    def _ranked(self, name: str, most: int) -> dict[str, Any]:
        flows, moved = self._flows[name], self._bytes[name]

        def row(key: Any) -> dict[str, Any]:
            shown = {**_SHOWN[name](key), "flows": flows.counts.get(key, 0)}
            if moved.counts:
                shown["bytes"] = moved.counts.get(key, 0)
            return shown

        document: dict[str, Any] = {"by_flows": [row(key) for key, _count in flows.most(most)]}
        if moved.counts:
            document["by_bytes"] = [row(key) for key, _count in moved.most(most)]
        missed = {what: of.uncertainty for what, of in (("flows", flows), ("bytes", moved)) if of.uncertainty}
        if missed:
            document["uncertainty"] = missed
        return document


def _keys_of(entry: Entry) -> dict[str, Any]:
    source, destination = (entry.get(key) for key in _TUPLE)
    keys = {"sources": source, "destinations": destination}
    if _PORT in entry and "original.protocol" in entry:
        keys["services"] = (entry["original.protocol"], entry[_PORT])
    if source is not None and destination is not None:
        keys["pairs"] = source + destination
    return {name: key for name, key in keys.items() if key is not None}
