# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The source reports each address and destination once above the threshold, and once when it is below again."""

from __future__ import annotations

from typing import Any

from ansible_collections.netops.conntrack.plugins.plugin_utils._event_source.options import Threshold
from ansible_collections.netops.conntrack.plugins.plugin_utils._event_source.snat_port_threshold import SnatPortUsage


def use(percent: float, port: int = 443) -> dict[str, Any]:
    shared = {"address": "198.51.100.1", "destination": "203.0.113.9", "destination_port": port, "protocol": "tcp"}
    sources = [{"address": "10.0.0.5", "ports": int(percent)}]
    return {
        **shared, "zone": 0, "used": int(percent), "limit": 100, "usage_percent": percent, "sources": sources
    }  # fmt: skip


def crossings(*readings: list[dict[str, Any]]) -> list[list[tuple[str, int, float]]]:
    """Return the reports at each of these readings, one per second, with thresholds of 80 and 70."""
    found = iter(readings)
    ports = SnatPortUsage(Threshold(80, 70, 1), lambda: next(found))
    return [
        [(event["crossed"], event["destination_port"], event["usage_percent"]) for event in ports.take(float(second))]
        for second in range(len(readings))
    ]


def test_each_crossing_is_reported_once() -> None:
    assert crossings([use(79)], [use(80)], [use(95)], [use(70)], [use(69)], [use(80)]) == [
        [],
        [("above", 443, 80)],
        [],
        [],
        [("below", 443, 69)],
        [("above", 443, 80)],
    ]


def test_uses_of_several_destinations_are_independent() -> None:
    assert crossings([use(90), use(85, 25)], [use(75, 25), use(10)]) == [
        [("above", 443, 90), ("above", 25, 85)],
        [("below", 443, 10)],
    ]


def test_use_without_flows_is_below_the_threshold() -> None:
    assert crossings([use(90)], [], []) == [[("above", 443, 90)], [("below", 443, 0.0)], []]


def test_an_event_has_the_use_and_the_threshold() -> None:
    (event,) = SnatPortUsage(Threshold(80, 70, 5), lambda: [use(90)]).take(0.0)
    assert event == {"type": "snat_ports", "crossed": "above", **use(90), "percent": 80, "below": 70}


def test_nothing_is_read_before_the_interval_is_over() -> None:
    readings: list[list[dict[str, Any]]] = [[use(90)], [use(10)]]
    ports = SnatPortUsage(Threshold(80, 70, 5), lambda: readings.pop(0))
    assert len(ports.take(10.0)) == 1
    assert ports.take(14.9) == []
    assert ports.due == 15.0
    assert [event["crossed"] for event in ports.take(15.0)] == ["below"]
