# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values from a host have the expected type or are dropped, and never exceed the limits of a page."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.plugin_utils._report.sanitize import (
    LARGEST,
    counts,
    mapping,
    number,
    percentage,
    rows,
    text,
)

NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize("value", [0, 1, LARGEST])
def test_a_count_is_a_number(value: int) -> None:
    assert number(value) == value


@pytest.mark.parametrize("value", [-1, LARGEST + 1, 10**400, True, 1.0, NAN, "5", None, [5], {}])
def test_invalid_count_is_unknown(value: Any) -> None:
    assert number(value) is None


@pytest.mark.parametrize("value", [-0.1, NAN, INFINITE, 1e300, 10**400, True, "5", None])
def test_invalid_share_is_unknown(value: Any) -> None:
    assert percentage(value) is None
    assert percentage(120.5) == 120.5


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("gateway-a", "gateway-a"),
        (443, "443"),
        ("two\n lines\tof it", "two lines of it"),
        ("a\x00b\x1b[31mc", "a\ufffdb\ufffd[31mc"),
        ("moc.\u202eelpmaxe", "moc.\ufffdelpmaxe"),
        ("\ud800", "\ufffd"),
        (None, ""),
        (["a"], ""),
        (10**400, ""),
    ],
)
def test_text_is_one_line_without_control_characters(value: Any, line: str) -> None:
    assert text(value) == line


def test_long_text_is_cut() -> None:
    assert text("x" * 10**7, 10) == "x" * 9 + "…"
    assert text("x" * 10, 10) == "x" * 10


def test_largest_counts_are_kept_and_the_others_added_up() -> None:
    found = counts({f"name-{place}": place for place in range(100000)}, 3)
    assert list(found) == ["name-99999", "name-99998", "name-99997", "other"]
    assert sum(found.values()) == sum(range(100000))


def test_other_counts_are_added_to_the_existing_sum() -> None:
    assert counts({"other": 5, "a": 3, "b": 2, "c": "many", None: 7, "d": -1}, 1) == {"a": 3, "other": 7}
    assert counts(["a"], 3) == counts(None, 3) == {}


def test_missing_path_is_an_empty_mapping() -> None:
    assert mapping({"a": {"b": {"c": 1}}}, "a", "b") == {"c": 1}
    assert mapping({"a": [1]}, "a", "b") == mapping("text", "a") == mapping(None) == {}


def test_rows_are_dictionaries_and_limited() -> None:
    assert list(rows([{"a": 1}, 5, {"b": 2}, {"c": 3}], 3)) == [{"a": 1}, {"b": 2}]
    assert list(rows("abc", 3)) == list(rows({"a": 1}, 3)) == list(rows(None, 3)) == []
