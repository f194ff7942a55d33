# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The event comes when the changes have settled, and a constant stream of changes does not delay it forever."""

from __future__ import annotations

import math
from typing import Any

from ansible_collections.netops.conntrack.plugins.module_utils.client.reevaluate.changes import Change, Process
from ansible_collections.netops.conntrack.plugins.plugin_utils._event_source.changes import ChangeWindow
from ansible_collections.netops.conntrack.plugins.plugin_utils._event_source.options import Changes

NONE = {"ruleset": 0, "address": 0, "route": 0, "rule": 0, "link": 0}
NFT = Process("nft", 4711)


class Arrivals:
    """A subscription with changes that have arrived."""

    def __init__(self) -> None:
        self.waiting: list[Change] = []

    def add(self, *kinds: str, **more: Any) -> None:
        self.waiting += [Change(kind, **more) for kind in kinds]

    def fileno(self) -> int:
        return 5

    def receive(self, most: int) -> list[Change]:
        taken, self.waiting = self.waiting[:most], self.waiting[most:]
        return taken


def window(seconds: float = 5) -> tuple[ChangeWindow, Arrivals, Arrivals]:
    subscriptions = Arrivals(), Arrivals()
    return ChangeWindow(Changes(window=seconds), subscriptions), *subscriptions  # type: ignore[arg-type]


def test_event_follows_one_window_after_the_last_change() -> None:
    changes, ruleset, network = window()
    assert (changes.due, changes.take(1e9)) == (math.inf, [])
    ruleset.add("ruleset", process=NFT)
    assert changes.take(100) == []
    assert changes.due == 105
    network.add("address", "route", "route")
    assert changes.take(104.5) == []
    assert changes.due == 109.5
    assert changes.take(109.4) == []
    assert changes.take(109.5) == [
        {
            "type": "change",
            "window": 5,
            "counts": {**NONE, "ruleset": 1, "address": 1, "route": 2},
            "processes": [{"name": "nft", "pid": 4711}],
            "overrun": False,
        }
    ]
    assert (changes.due, changes.take(1e9)) == (math.inf, [])
    network.add("link")
    assert changes.take(200) == []
    (event,) = changes.take(205)
    assert (event["counts"], event["processes"]) == ({**NONE, "link": 1}, [])


def test_a_reload_in_several_steps_is_one_event_after_its_last_step() -> None:
    """Between the steps, the NAT rules may be absent, and each NATed flow would be stale."""
    changes, ruleset, _network = window(1)
    events = []
    for tenth in range(100):
        if tenth in (0, 8, 16, 25):  # the first window would end between two of them
            ruleset.add("ruleset")
        events += [(tenth, event["counts"]["ruleset"]) for event in changes.take(tenth / 10)]
    assert events == [(35, 4)]


def test_constant_changes_are_reported_every_six_windows() -> None:
    """A router with BGP produces such changes."""
    changes, _ruleset, network = window(2)
    reported = []
    for second in range(51):
        network.add("route", "route")
        reported += [(second, event["counts"]["route"]) for event in changes.take(second)]
    assert [second for second, _count in reported] == [12, 25, 38]
    assert sum(count for _second, count in reported) == 2 * 39


def test_changes_during_an_action_are_in_the_next_event() -> None:
    changes, ruleset, _network = window()
    ruleset.add("ruleset")
    changes.take(0)
    ruleset.add("ruleset")
    (event,) = changes.take(60)
    assert event["counts"]["ruleset"] == 2
    ruleset.add("ruleset")
    assert changes.take(120) == []
    (event,) = changes.take(125)
    assert event["counts"]["ruleset"] == 1


def test_an_overrun_is_shown() -> None:
    changes, _ruleset, network = window()
    network.add("address", "route", "rule", "link", lost=True)
    network.add("route")
    changes.take(0)
    (event,) = changes.take(5)
    assert (event["overrun"], event["counts"]) == (True, {**NONE, "address": 1, "route": 2, "rule": 1, "link": 1})
    network.add("route")
    changes.take(10)
    (event,) = changes.take(15)
    assert event["overrun"] is False


def test_a_flood_does_not_delay_the_event_forever() -> None:
    changes, _ruleset, network = window()
    network.add(*["route"] * 10_000)
    changes.take(0)
    assert changes.take(29.9) == []
    (event,) = changes.take(30)
    assert 0 < event["counts"]["route"] < 10_000
    assert network.waiting


def test_processes_are_listed_once_and_are_no_templates() -> None:
    changes, ruleset, _network = window()
    for number in range(30):
        ruleset.add("ruleset", process=Process("{{ evil }}" if number < 2 else "nft", max(number, 1)))
    changes.take(0)
    (event,) = changes.take(5)
    assert event["counts"]["ruleset"] == 30
    assert len(event["processes"]) == 10
    assert event["processes"][:2] == [{"name": "{ { evil }}", "pid": 1}, {"name": "nft", "pid": 2}]
