# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A set of very many things in little room: of each only 64 bits are kept."""

from __future__ import annotations

from array import array
from typing import Hashable


class Fingerprints:
    """The things that were added, which may be as many as `expected`.

    One that was not added seems to have been with a chance of 1 in 10^13, where there are a million. Bytes and text
    are hashed with a secret of the process, so nobody can choose two that are alike.
    """

    def __init__(self, expected: int) -> None:
        self._size = expected * 3 // 2 + 1
        #: Open addressing: 0 is an empty slot.
        self._slots = array("Q", (0,)) * self._size

    def add(self, thing: Hashable) -> None:
        number = _number(thing)
        self._slots[self._place(number)] = number

    def __contains__(self, thing: Hashable) -> bool:
        number = _number(thing)
        return self._slots[self._place(number)] == number

    def _place(self, number: int) -> int:
        """The slot that a number is in, or is to be in."""
        slots, size = self._slots, self._size
        place = number % size
        while slots[place] not in (0, number):
            place = (place + 1) % size
        return place


def _number(thing: Hashable) -> int:
    return hash(thing) & 0xFFFFFFFFFFFFFFFF or 1
