# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that rates are the differences of two readings of the counters, divided by the time between."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.codec import ENTRIES
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.layout import LayoutCache
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.rates import CounterReading
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.scan import DumpDecoder
from ansible_collections.netops.conntrack.tests.unit.support import wire


def entry(port: int, *counters: int, number: int = 1, protocol: int = 17, **keys: Any) -> Any:
    names = [f"counters.{direction}.{what}" for direction in ("original", "reply") for what in ("bytes", "packets")]
    return {
        "family": 2,
        "original.source": bytes([10, 0, 0, 1]),
        "original.destination": bytes([192, 0, 2, 80]),
        "original.protocol": protocol,
        "original.source_port": port,
        "original.destination_port": 53,
        "id": number,
        **dict(zip(names, counters)),
        **keys,
    }


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def reading(*entries: Any, most_layouts: int = 512, clock: Clock | None = None) -> CounterReading:
    found = CounterReading(clock or Clock())
    layouts = LayoutCache(ENTRIES)
    layouts.most = most_layouts
    messages = [
        wire.framed(0x0100, 2, 1, struct.pack(">BBH", one["family"], 0, 0) + ENTRIES.encode(one)) for one in entries
    ]
    DumpDecoder(found, layouts=layouts).feed(b"".join(messages))
    return found


def moved(first: CounterReading, entry: Any) -> list[float]:
    """Return the rates of an entry that is read one second after a reading."""
    first._clock.now += 1  # type: ignore[attr-defined]
    rate = first.rated(entry).rate
    first._clock.now -= 1  # type: ignore[attr-defined]
    return [rate[direction][what] for direction in ("original", "reply") for what in ("bytes", "packets")]


@pytest.mark.parametrize("most_layouts", [0, 512])
def test_each_entry_has_the_difference_of_its_own_counters(most_layouts: int) -> None:
    first = reading(
        entry(1, 100, 1, 50, 2), entry(2, 7, 1, 0, 0), entry(1, 9, 9, 9, 9, number=2), most_layouts=most_layouts
    )
    assert moved(first, entry(1, 110, 3, 50, 2)) == [10, 2, 0, 0]
    assert moved(first, entry(2, 7, 1, 0, 0)) == [0, 0, 0, 0]
    assert moved(first, entry(1, 9, 10, 11, 12, number=2)) == [0, 1, 2, 3]


def test_entry_that_began_between_the_readings_counts_from_zero() -> None:
    assert moved(reading(), entry(1, 100, 1, 50, 2)) == [100, 1, 50, 2]
    assert moved(reading(entry(1, 90, 1, 40, 2)), entry(1, 100, 1, 50, 2, number=9)) == [100, 1, 50, 2]


def test_counters_reset_between_the_readings_count_from_zero() -> None:
    assert moved(reading(entry(1, 100, 5, 50, 2)), entry(1, 30, 4, 60, 3)) == [30, 4, 10, 1]


def test_an_entry_without_ports_or_counters_is_compared_too() -> None:
    first = reading(entry(1, protocol=47), entry(0, 5, 1, 5, 1, protocol=50))
    assert moved(first, entry(1, 3, 1, 2, 1, protocol=47)) == [3, 1, 2, 1]
    assert moved(first, entry(0, 6, 2, 5, 1, protocol=50)) == [1, 1, 0, 0]


def test_rates_are_per_second_of_the_time_between_both_readings_of_an_entry() -> None:
    """Reading a large table takes seconds. Entries that are read late both times have their own interval."""
    clock = Clock()
    first = reading(entry(1, 1000, 10, 50, 2), clock=clock)
    clock.now += 3
    DumpDecoder(first, layouts=LayoutCache(ENTRIES)).feed(
        wire.framed(0x0100, 2, 1, struct.pack(">BBH", 2, 0, 0) + ENTRIES.encode(entry(2, 1000, 10, 50, 2)))
    )
    clock.now += 2
    early, late, new = (first.rated(entry(port, 2000, 20, 50, 2)) for port in (1, 2, 3))
    assert early.rate == {"original": {"bytes": 200, "packets": 2}, "reply": {"bytes": 0, "packets": 0}}
    assert late.rate["original"] == {"bytes": 500, "packets": 5}
    assert new.rate["original"] == {"bytes": 400, "packets": 4}
    assert (late.total("bytes"), new.total("packets")) == (500, 4.4)
    assert late["counters.original.bytes"] == 2000
