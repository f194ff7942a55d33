# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that the set contains each entry that was added; a purge would delete an entry that is missing from the set."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils._snapshot.hash_set import Fingerprints

things = st.lists(st.integers(2, 50) | st.binary(max_size=2) | st.tuples(st.integers(0, 9), st.binary(max_size=1)))


@given(things, things)
def test_set_contains_exactly_the_added_values(some: list[object], others: list[object]) -> None:
    found = Fingerprints(len(some))
    for thing in some:
        found.add(thing)
    assert all(thing in found for thing in some)
    assert [thing in found for thing in others] == [thing in some for thing in others]


def test_values_of_the_same_slot_are_distinguished() -> None:
    """All of them belong to the same slot, which is the last one."""
    found = Fingerprints(500)
    colliding = [step * found._size - 1 for step in range(1, 500)]
    for thing in colliding[:400]:
        found.add(thing)
    assert [thing in found for thing in colliding] == [True] * 400 + [False] * 99


def test_zero_can_be_added() -> None:
    found = Fingerprints(1)
    assert 0 not in found
    found.add(0)
    assert 0 in found


def test_memory_use_of_a_million_values_is_limited() -> None:
    assert sys.getsizeof(Fingerprints(1_000_000)._slots) < 13 << 20
