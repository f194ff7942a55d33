# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sizes of all measurements: those that the limits apply to, or the small ones of a test."""

from __future__ import annotations

from typing import NamedTuple


class Sizes(NamedTuple):
    """Numbers of entries, and the maximum number of turns of each side."""

    table: int
    create: int
    single: int
    #: pyroute2 would take minutes for the number of entries that the others process
    pyroute2: int
    pyroute2_single: int
    scaling: tuple[int, ...]
    limit: int
    turns: int
    #: seconds after which no further turn starts
    patience: float
    imports: int
    tasks: int
    hosts: int
    tasks_of_hosts: int
    turns_on_one_core: int
    namespaces: int

    @property
    def largest(self) -> int:
        return max(self.table, self.create, *self.scaling)


FULL = Sizes(
    table=1_000_000,
    create=200_000,
    single=20_000,
    pyroute2=20_000,
    pyroute2_single=1_000,
    scaling=(1_000, 10_000, 100_000, 1_000_000, 2_000_000),
    limit=1_000,
    turns=3,
    patience=15.0,
    imports=10,
    tasks=8,
    hosts=50,
    tasks_of_hosts=2,
    turns_on_one_core=2,
    namespaces=200,
)
QUICK = Sizes(
    table=10_000,
    create=2_000,
    single=500,
    pyroute2=400,
    pyroute2_single=60,
    scaling=(1_000, 4_000),
    limit=100,
    turns=1,
    patience=2.0,
    imports=2,
    tasks=1,
    hosts=2,
    tasks_of_hosts=1,
    turns_on_one_core=1,
    namespaces=4,
)
