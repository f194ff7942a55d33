# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the resynchronization after an overrun; otherwise a follower would keep a wrong connection permanently."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import identity
from ansible_collections.netops.conntrack.plugins.module_utils.client.events.overrun import (
    ResyncSchedule,
    missed_events,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.events.subscription import Event


def entry(port: int, number: int, **more: Any) -> dict[str, Any]:
    return {"family": 2, "original.protocol": 17, "original.source_port": port, "id": number, **more}


def test_every_difference_is_an_event() -> None:
    same, counted = entry(1, 1, timeout=9), entry(1, 1, timeout=8, **{"counters.original.packets": 3})
    before, after = entry(2, 2, mark=1), entry(2, 2, mark=5)
    replaced, successor = entry(3, 3), entry(3, 33)
    gone, unmatched, fresh = entry(4, 4), entry(5, 5), entry(6, 6)
    known = {identity(each): each for each in (same, before, replaced, gone, unmatched)}
    found = {identity(each): each for each in (counted, after, successor, fresh)}
    assert missed_events(known, found, {identity(unmatched)}) == [
        Event("update", after, missed=True),
        Event("destroy", replaced, missed=True),
        Event("new", successor, missed=True),
        Event("new", fresh, missed=True),
        Event("destroy", gone, missed=True),
        Event("destroy", unmatched, missed=True, by_update=True),
    ]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_table_is_read_after_an_overrun_and_regularly_for_silent_entries(clock: list[float]) -> None:
    schedule = ResyncSchedule(10.0)
    schedule.read_since(99.0)
    assert schedule.wait_time(False, None) is None
    assert schedule.wait_time(False, 3.0) == 3.0
    assert not schedule.is_due(False)
    # The dump took a second, so the next one is due after 20 seconds: dumps use a twentieth of the time
    assert schedule.wait_time(True, None) == 20.0
    clock[0] = 120.0
    assert schedule.is_due(True)
    assert not schedule.is_due(True, before_events=True)
    clock[0] = 131.0
    assert schedule.is_due(True, before_events=True)
    schedule.read_since(131.0)
    assert not schedule.is_due(True)
    schedule.overrun = True
    assert schedule.is_due(False)
    assert schedule.is_due(False, before_events=True)
    assert schedule.wait_time(False, None) == 0.0


def test_without_check_only_an_overrun_causes_a_dump(clock: list[float]) -> None:
    schedule = ResyncSchedule(None)
    assert not schedule.is_due(True)
    schedule.overrun = True
    assert schedule.is_due(True)
