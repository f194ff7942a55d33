# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a ranking with limited memory reports its maximum error and never exceeds it."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.heavy_hitters import HeavyHitters


def counted(keys: list[int], capacity: int) -> HeavyHitters:
    frequent = HeavyHitters(capacity)
    for key in keys:
        frequent.counts[key] += 1
        frequent.tidy()
    return frequent


@given(st.lists(st.integers(0, 40), max_size=400), st.integers(1, 20))
def test_counts_are_within_the_reported_uncertainty(keys: list[int], capacity: int) -> None:
    frequent = counted(keys, capacity)
    assert len(frequent.counts) <= capacity
    for key, true in Counter(keys).items():
        assert true - frequent.uncertainty <= frequent.counts.get(key, 0) <= true


def test_counts_are_exact_within_the_capacity() -> None:
    frequent = counted([1, 2, 2, 3] * 10, 3)
    assert frequent.uncertainty == 0
    assert frequent.most(2) == [(2, 20), (1, 10)]


def test_frequent_key_is_found_among_many_rare_keys() -> None:
    frequent = counted([number if number % 10 else 7 for number in range(1000, 11000)], 50)
    assert frequent.most(1)[0][0] == 7
    assert frequent.most(1)[0][1] + frequent.uncertainty >= 1000
