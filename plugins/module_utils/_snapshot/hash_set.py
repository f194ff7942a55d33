# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A compact set for a large number of values. It keeps 64 bits of each."""

from __future__ import annotations

from array import array
from typing import Hashable


class Fingerprints:
    """A set of hashes with room for `expected` values.

    With a million values, the probability that another value seems to be in the set is 1 in 10^13. Bytes and text are
    hashed with a secret of the process, so that an attacker cannot choose values with the same hash.
    """

    def __init__(self, expected: int) -> None:
        self._size = expected * 3 // 2 + 1
        #: A hash table with open addressing. An empty slot is 0.
        self._slots = array("Q", (0,)) * self._size

    def add(self, thing: Hashable) -> None:
        number = _number(thing)
        self._slots[self._place(number)] = number

    def __contains__(self, thing: Hashable) -> bool:
        number = _number(thing)
        return self._slots[self._place(number)] == number

    def _place(self, number: int) -> int:
        """Return the slot that contains a number, or the empty slot for it."""
        slots, size = self._slots, self._size
        place = number % size
        while slots[place] not in (0, number):
            place = (place + 1) % size
        return place


def _number(thing: Hashable) -> int:
    return hash(thing) & 0xFFFFFFFFFFFFFFFF or 1
