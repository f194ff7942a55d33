# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an expectation is: a connection that a helper has announced and that has not come yet.

Source: ctattr_expect in include/uapi/linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator

from . import uapi, values
from .attributes import Attribute, tuple_rows
from .codec import Codec
from .messages import family_of, nfgenmsg, payload_of
from .netlink import Message
from .table import Table

Expectation = Dict[str, Any]

_FLAGS = {"permanent": 1, "inactive": 2, "userspace": 4}


def _expectation() -> Iterator[Attribute]:
    yield from tuple_rows("master", uapi.CTA_EXPECT_MASTER, 0)
    yield from tuple_rows("tuple", uapi.CTA_EXPECT_TUPLE, 0)
    yield from tuple_rows("mask", uapi.CTA_EXPECT_MASK, 0)
    yield Attribute("timeout", (uapi.CTA_EXPECT_TIMEOUT,), values.U32)
    yield Attribute("id", (uapi.CTA_EXPECT_ID,), values.U32)
    yield Attribute("helper", (uapi.CTA_EXPECT_HELP_NAME,), values.HELPER_NAME)
    yield Attribute("zone", (uapi.CTA_EXPECT_ZONE,), values.U16)
    flags = values.Flags("I", _FLAGS, "expectation flag")
    yield Attribute("flags", (uapi.CTA_EXPECT_FLAGS,), flags)
    yield Attribute("class", (uapi.CTA_EXPECT_CLASS,), values.U32)
    yield Attribute("function", (uapi.CTA_EXPECT_FN,), values.Text(63))


#: The attribute table of expectations.
EXPECTATION: tuple[Attribute, ...] = tuple(_expectation())

_EXPECTATIONS = Codec(EXPECTATION)


def dump(family: int = 0) -> Message:
    """Ask for every expectation of a family, or of all."""
    return Message(uapi.IPCTNL_MSG_EXP_GET, 0, nfgenmsg(family))


def read_all(table: Table) -> Iterator[Expectation]:
    """Every expectation of the table's namespace."""
    return table.read(dump(), parse_expectation)


def parse_expectation(message: Message) -> Expectation:
    """The expectation in a message of the kernel's."""
    expectation = _EXPECTATIONS.decode(*payload_of(message))
    expectation["family"] = family_of(message)
    return expectation
