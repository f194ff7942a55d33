# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that trace messages of nf_tables are read correctly; a wrong path would give a wrong verdict."""

from __future__ import annotations

import struct

from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.message import (
    Message,
    attribute,
    nested,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.reevaluate.trace import Step, parse_step

TRACE = 10 << 8 | 17
DROP = 0


def number(attribute_number: int, value: int, code: str = ">I") -> bytes:
    return attribute(attribute_number, struct.pack(code, value))


def message(*parts: bytes) -> Message:
    names = attribute(1, b"filter\0") + attribute(2, b"forward\0")
    return Message(TRACE, 0, struct.pack(">BBH", 1, 1, 0) + names + b"".join(parts))


def test_a_rule() -> None:
    verdict = nested(5, number(1, DROP, ">i"))
    found = parse_step(message(number(3, 12, ">Q"), number(4, 3), verdict))
    assert found == Step((1, "filter", 12), "forward", False, DROP)


def test_rule_that_continues_is_parsed() -> None:
    found = parse_step(message(number(3, 12, ">Q"), number(4, 3), nested(5, number(1, -1, ">i"))))
    assert found == Step((1, "filter", 12), "forward", False, -1)


def test_a_policy() -> None:
    found = parse_step(message(number(4, 1), number(16, DROP)))
    assert found == Step((1, "filter", 0), "forward", True, DROP)


def test_another_message() -> None:
    assert parse_step(Message(10 << 8 | 16, 0, bytes(4))) is None
