# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the statistics, because a table that is nearly full must not appear to be empty."""

from __future__ import annotations

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.message import Message
from ansible_collections.netops.conntrack.plugins.module_utils.client.statistics import (
    EXPECTATIONS_PER_CPU,
    GLOBAL,
    PER_CPU,
    parse_expectations_per_cpu,
    parse_global,
    parse_per_cpu,
)
from ansible_collections.netops.conntrack.tests.unit.support import wire

#: Messages of Linux 6.18.
WHOLE = bytes.fromhex("0000000008000100000000150800020000040000")
CPU_1 = bytes.fromhex(
    "000000010800020000000000080004000000000008000800000000030800090000000000"
    "08000a000000000008000b000000000008000c000000000008000d000000000008000e00"
    "0000000008000f0000000000"
)

NUMBERS = {
    "found": 2, "invalid": 4, "insert": 8, "insert_failed": 9, "drop": 10, "early_drop": 11, "error": 12,
    "search_restart": 13, "clash_resolve": 14, "chain_toolong": 15,
}  # fmt: skip


def test_the_whole_table() -> None:
    assert parse_global(Message(0x105, 2, WHOLE)) == {"entries": 21, "max_entries": 262144}
    assert parse_global(Message(0x105, 2, WHOLE[:12])) == {"entries": 21}, "before Linux 4.18"
    assert {row.key: row.path for row in GLOBAL} == {"entries": (1,), "max_entries": (2,)}


def test_one_cpu() -> None:
    cpu, counters = parse_per_cpu(Message(0x104, 2, CPU_1))
    assert cpu == 1
    assert counters == {**dict.fromkeys(NUMBERS, 0), "insert": 3}


@pytest.mark.parametrize("row", PER_CPU, ids=lambda row: row.key)
def test_each_counter_by_its_number(row: object) -> None:
    assert {row.key: row.path for row in PER_CPU} == {name: (number,) for name, number in NUMBERS.items()}
    for name, number in NUMBERS.items():
        message = Message(0x104, 2, b"\0\0\1\0" + wire.attribute((number,), b"\xff\0\0\1"))
        assert parse_per_cpu(message) == (256, {name: 0xFF000001})


def test_retired_and_future_counters_are_ignored() -> None:
    payload = b"\0\0\0\0" + wire.attribute((1,), b"\0\0\0\1") + wire.attribute((99,), b"\0" * 8) + CPU_1[4:12]
    assert parse_per_cpu(Message(0x104, 2, payload)) == (0, {"found": 0})


def test_expectations_of_one_cpu() -> None:
    """Linux 6.18 sends them with the message number of the entries' statistics, not with that of expectations."""
    payload = bytes.fromhex("0000000108000100000000040800020000000005080003000000000e")
    assert parse_expectations_per_cpu(Message(0x103, 2, payload)) == (1, {"new": 4, "create": 5, "delete": 14})
    assert {row.key: row.path for row in EXPECTATIONS_PER_CPU} == {"new": (1,), "create": (2,), "delete": (3,)}
