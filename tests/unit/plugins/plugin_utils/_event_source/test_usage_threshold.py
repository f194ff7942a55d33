# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The source warns once when usage crosses the threshold, reports the end once, and ignores small fluctuations."""

from __future__ import annotations

from ansible_collections.netops.conntrack.plugins.plugin_utils._event_source.options import Threshold
from ansible_collections.netops.conntrack.plugins.plugin_utils._event_source.usage_threshold import TableUsage


def crossings(counts: list[int], most: int | None = 1000) -> list[str]:
    """Return the reports for these numbers of entries, one per second, with thresholds of 80 and 70."""
    found = iter(counts)
    fill = TableUsage(Threshold(80, 70, 1), lambda: (next(found), most))
    return [event["crossed"] for second in range(len(counts)) for event in fill.take(second)]


def test_each_crossing_is_reported_once() -> None:
    assert crossings([0, 799, 800, 900, 1000, 699, 0]) == ["above", "below"]


def test_no_event_between_the_thresholds() -> None:
    assert crossings([790, 810, 790, 810, 710, 800, 700, 800]) == ["above"]
    assert crossings([810, 690, 790, 710, 800]) == ["above", "below", "above"]


def test_table_that_is_full_at_the_start_is_reported() -> None:
    assert crossings([1000]) == ["above"]


def test_a_table_without_a_limit_is_never_full() -> None:
    assert crossings([1000], 0) == crossings([1000], None) == []


def test_usage_is_read_once_per_interval() -> None:
    readings: list[int] = []

    def measure() -> tuple[int, int]:
        readings.append(1)
        return 0, 10

    fill = TableUsage(Threshold(80, 70, 5), measure)
    for second in range(11):
        fill.take(second)
        assert fill.due - second <= 5
    assert len(readings) == 3


def test_contents_of_an_event() -> None:
    fill = TableUsage(Threshold(80, 70, 5), lambda: (210_000, 262_144))
    assert fill.take(0) == [
        {
            "type": "threshold",
            "crossed": "above",
            "count": 210_000,
            "max": 262_144,
            "usage_percent": 80.11,
            "percent": 80,
            "below": 70,
        }
    ]
