# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the goal of a wait: no entries left by default, and never a number of entries that is impossible."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._argspec import wait
from ansible_collections.netops.conntrack.plugins.module_utils._operations.wait import Goal
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue


def module(**params: Any) -> Any:
    return SimpleNamespace(params={"max_count": None, "min_count": None, "timeout": 300.0, **params})


def test_goals() -> None:
    assert wait.goal_of(module()) == Goal(0)
    assert wait.goal_of(module(max_count=0)) == Goal(0)
    assert wait.goal_of(module(max_count=7)) == Goal(7)
    assert wait.goal_of(module(min_count=7)) == Goal(7, rising=True)
    assert wait.seconds_of(module(timeout=0.5)) == 0.5


@pytest.mark.parametrize("option", ["max_count", "min_count"])
def test_counts_below_zero_are_refused(option: str) -> None:
    with pytest.raises(InvalidValue, match=f"{option}: -1 is negative; write 0 or more"):
        wait.goal_of(module(**{option: -1}))


@pytest.mark.parametrize("timeout", [-0.1, float("inf"), float("nan")])
def test_negative_and_non_finite_timeouts_are_refused(timeout: float) -> None:
    with pytest.raises(InvalidValue, match="timeout: .* write 0 or more"):
        wait.seconds_of(module(timeout=timeout))


@pytest.mark.parametrize("option", ["max_count", "min_count"])
@pytest.mark.parametrize("number", [1 << 32, 10**400, 10**5000], ids=["33 bits", "no float", "no text"])
def test_counts_beyond_any_table_are_refused(option: str, number: int) -> None:
    task = module(**{option: number})
    with pytest.raises(InvalidValue, match=f"{option}: .* is out of range; write a number from 0 to 4294967295"):
        wait.goal_of(task)
    json.dumps(task.params)  # the result contains the parameters
    assert wait.goal_of(module(**{option: 0xFFFFFFFF})).number == 0xFFFFFFFF
