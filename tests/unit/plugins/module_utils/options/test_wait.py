# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task waits for: that nothing is left, unless it says otherwise, and never for a number that cannot be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.options import wait as options
from ansible_collections.netops.conntrack.plugins.module_utils.wait import Goal


def module(**params: Any) -> Any:
    return SimpleNamespace(params={"max_count": None, "min_count": None, "timeout": 300.0, **params})


def test_goals() -> None:
    assert options.goal_of(module()) == Goal(0)
    assert options.goal_of(module(max_count=0)) == Goal(0)
    assert options.goal_of(module(max_count=7)) == Goal(7)
    assert options.goal_of(module(min_count=7)) == Goal(7, rising=True)
    assert options.seconds_of(module(timeout=0.5)) == 0.5


@pytest.mark.parametrize("option", ["max_count", "min_count"])
def test_counts_below_zero_are_refused(option: str) -> None:
    with pytest.raises(InvalidValue, match=f"{option}: -1 is negative; write 0 or more"):
        options.goal_of(module(**{option: -1}))


@pytest.mark.parametrize("timeout", [-0.1, float("inf"), float("nan")])
def test_so_are_times_that_never_come(timeout: float) -> None:
    with pytest.raises(InvalidValue, match="timeout: .* write 0 or more"):
        options.seconds_of(module(timeout=timeout))
