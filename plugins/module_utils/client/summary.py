# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many entries counted in one pass: by what they are, and who has the most of them.

Keeps counts alone, so that a table of any size takes the memory of its distinct values.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Callable, Iterable, Mapping

from .entry import Entry, translations
from .values import (
    DCCP_STATE,
    FAMILIES,
    PROTOCOL,
    SCTP_STATE,
    STATUS_BITS,
    TCP_STATE,
    Named,
    present_address,
)

_STATES: tuple[tuple[str, str, Named], ...] = (
    ("tcp", "tcp.state", TCP_STATE),
    ("sctp", "sctp.state", SCTP_STATE),
    ("dccp", "dccp.state", DCCP_STATE),
)
_FAMILY_NAMES = {number: name for name, number in FAMILIES.items()}


class Summary:
    """Counts of the entries given to `add`."""

    def __init__(self) -> None:
        self.matched = 0
        self._families: dict[Any, int] = defaultdict(int)
        self._protocols: dict[Any, int] = defaultdict(int)
        self._states: dict[tuple[str, Any], int] = defaultdict(int)
        self._zones: dict[Any, int] = defaultdict(int)
        self._marks: dict[Any, int] = defaultdict(int)
        self._translated: dict[tuple[str, ...], int] = defaultdict(int)
        self._statuses: dict[int, int] = defaultdict(int)

    def add(self, entry: Entry) -> None:
        get = entry.get
        self.matched += 1
        self._families[get("family")] += 1
        self._protocols[get("original.protocol")] += 1
        self._zones[get("zone") or get("original.zone") or get("reply.zone") or 0] += 1
        self._marks[get("mark", 0)] += 1
        self._translated[tuple(translations(entry))] += 1
        self._statuses[get("status", 0)] += 1
        for protocol, key, _kind in _STATES:
            state = get(key)
            if state is not None:
                self._states[protocol, state] += 1

    def as_document(self, most: int) -> dict[str, Any]:
        """`{"by_family": {name: entries}, …}`; of zones and marks the `most` frequent."""
        states: dict[str, dict[str, int]] = {}
        for protocol, _key, kind in _STATES:
            counts = {str(kind.present(state)): count for (of, state), count in self._states.items() if of == protocol}
            if counts:
                states[protocol] = _sorted(counts)
        return {
            "matched": self.matched,
            "by_family": _sorted(_named(self._families, lambda n: _FAMILY_NAMES.get(n, n))),
            "by_protocol": _sorted(_named(self._protocols, PROTOCOL.present)),
            "by_state": states,
            "by_zone": _cut(self._zones, most),
            "by_mark": _cut(self._marks, most),
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


class Top:
    """Who has the most flows and, where the kernel accounts, bytes, among the entries added."""

    def __init__(self) -> None:
        self._flows: dict[str, dict[Any, int]] = {name: defaultdict(int) for name in _RANKINGS}
        self._bytes: dict[str, dict[Any, int]] = {name: defaultdict(int) for name in _RANKINGS}

    def add(self, entry: Entry) -> None:
        moved = _bytes_of(entry)
        for name, (key_of, _show) in _RANKINGS.items():
            key = key_of(entry)
            if key is None:
                continue
            self._flows[name][key] += 1
            if moved is not None:
                self._bytes[name][key] += moved

    def as_document(self, most: int) -> dict[str, Any]:
        """`{"sources": {"by_flows": [{"address": …, "flows": …, "bytes": …}], "by_bytes": […]}}`.

        `bytes` and `by_bytes` are there if any entry has counters.
        """
        document: dict[str, Any] = {}
        for name, (_key_of, show) in _RANKINGS.items():
            flows, moved = self._flows[name], self._bytes[name]

            def row(
                key: Any,
                show: Callable[[Any], dict[str, Any]] = show,
                flows: dict[Any, int] = flows,
                moved: dict[Any, int] = moved,
            ) -> dict[str, Any]:
                shown = {**show(key), "flows": flows[key]}
                if moved:
                    shown["bytes"] = moved.get(key, 0)
                return shown

            document[name] = {"by_flows": [row(key) for key in _most(flows, most)]}
            if moved:
                document[name]["by_bytes"] = [row(key) for key in _most(moved, most)]
        return document


def _bytes_of(entry: Entry) -> int | None:
    original = entry.get("counters.original.bytes")
    reply = entry.get("counters.reply.bytes")
    if original is None and reply is None:
        return None
    return (original or 0) + (reply or 0)


def _source(entry: Entry) -> Any:
    return entry.get("original.source")


def _destination(entry: Entry) -> Any:
    return entry.get("original.destination")


def _service(entry: Entry) -> Any:
    port = entry.get("original.destination_port")
    return None if port is None else (entry["original.protocol"], port)


def _pair(entry: Entry) -> Any:
    source, destination = _source(entry), _destination(entry)
    return None if source is None or destination is None else (source, destination)


_RANKINGS: dict[str, tuple[Callable[[Entry], Any], Callable[[Any], dict[str, Any]]]] = {
    "sources": (_source, lambda address: {"address": present_address(address)}),
    "destinations": (_destination, lambda address: {"address": present_address(address)}),
    "services": (
        _service,
        lambda service: {"protocol": PROTOCOL.present(service[0]), "port": service[1]},
    ),
    "pairs": (
        _pair,
        lambda pair: {
            "source": present_address(pair[0]),
            "destination": present_address(pair[1]),
        },
    ),
}


def _most(counts: Mapping[Any, int], most: int) -> list[Any]:
    return sorted(counts, key=lambda key: (-counts[key], key))[:most]


def _named(counts: Mapping[Any, int], name: Callable[[Any], Any]) -> dict[str, int]:
    return {str(name(key)): count for key, count in counts.items()}


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return {key: counts[key] for key in _most(counts, len(counts))}


def _cut(counts: Mapping[Any, int], most: int) -> dict[str, int]:
    """The `most` frequent under their names, the sum of all others under `other`."""
    kept = _most(counts, most)
    shown = {str(key): counts[key] for key in kept}
    if len(counts) > len(kept):
        shown["other"] = sum(counts.values()) - sum(shown.values())
    return shown


def summarise(entries: Iterable[Entry], *counters: Any) -> None:
    """Give every entry to every counter (`Summary`, `Top`)."""
    for entry in entries:
        for counter in counters:
            counter.add(entry)
