# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a group contains only mappings with equal keys and types, and that each result gets its original place."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client.bulk.columns import (
    _FEW,
    BATCH,
    Columns,
    ColumnTransform,
    NotVectorizable,
    batches,
)

pytestmark = pytest.mark.portability

LEAVES = st.none() | st.booleans() | st.integers(0, 1) | st.just("a") | st.just([1])
MAPPINGS = st.dictionaries(
    st.sampled_from("abc"), LEAVES | st.dictionaries(st.sampled_from("abc"), LEAVES, max_size=2), max_size=2
)


def flat(thing: Any, path: str = "") -> dict[str, Any]:
    """Return the columns of one mapping."""
    if not isinstance(thing, dict) or (path and not thing):
        return {path: thing}
    found = {} if path else {"": thing}
    for name, value in thing.items():
        found.update(flat(value, f"{path}.{name}" if path else name))
    return found


def whole(deep: bool) -> ColumnTransform:
    """Return a transform that copies the columns unchanged."""
    return ColumnTransform(flat if deep else dict, dict, lambda columns: [columns["a"]] if "a" in columns else [], deep)


@given(st.lists(MAPPINGS | LEAVES, min_size=1, max_size=6))
def test_group_has_equal_keys_and_types_and_all_values(kinds: Any) -> None:
    things = [thing for _unused in range(_FEW) for thing in kinds]
    for places, columns in whole(deep=True).groups(things):
        for column in columns.values():
            assert len(set(map(type, column))) == 1
        assert [dict(zip(columns, row)) for row in zip(*columns.values())] == [flat(things[place]) for place in places]
        if "a" in columns:
            assert columns["a"].count(columns["a"][0]) == len(places), "the grouping value is the same"


@given(st.lists(MAPPINGS, max_size=6))
def test_results_are_in_order(kinds: Any) -> None:
    things = [thing for _unused in range(_FEW) for thing in kinds]
    assert list(whole(deep=True).each(things)) == list(map(flat, things))
    assert list(whole(deep=False).each(things)) == things


@pytest.mark.parametrize("fault", [NotVectorizable("x"), KeyError("x"), ValueError("x")])
def test_group_that_cannot_be_vectorized_is_processed_one_by_one(fault: Exception) -> None:
    def many(columns: Columns) -> Columns:
        if 3 in columns["a"]:
            raise fault
        return {"together": columns["a"]}

    bulk = ColumnTransform(lambda thing: {"alone": thing["a"]}, many, lambda columns: [columns["a"]])
    results = list(bulk.each([{"a": value} for _unused in range(_FEW) for value in (2, 3)]))
    assert results == [{"together": 2}, {"alone": 3}] * _FEW


def test_grouping_value_can_have_any_type() -> None:
    bulk = ColumnTransform(dict, dict, lambda columns: [columns["a"]])
    things = [{"a": [value % 2]} for value in range(9)] + [{"b": 1}] * _FEW
    assert list(bulk.each(things)) == things


def test_batches_are_read_on_demand() -> None:
    source = iter(range(2 * BATCH + 1))
    parts = batches(source)
    assert len(next(parts)) == BATCH
    assert next(source) == BATCH
    assert [len(part) for part in parts] == [BATCH]
    assert list(batches([])) == []
