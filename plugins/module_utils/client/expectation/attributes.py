# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The attribute table of expectations, and the masks of their tuples.

Source: ctattr_expect and ctattr_expect_nat in include/uapi/linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

from typing import Any, Iterator

from .. import uapi
from ..codec import types
from ..codec.attributes import CREATE, FIXED, KEY, UPDATE, Attribute, tuple_rows
from ..codec.codec import Values

Expectation = Values

DIRECTIONS: dict[str, int] = {"original": 0, "reply": 1}
FLAGS: dict[str, int] = {
    "permanent": uapi.NF_CT_EXPECT_PERMANENT,
    "inactive": uapi.NF_CT_EXPECT_INACTIVE,
    "userspace": uapi.NF_CT_EXPECT_USERSPACE,
}
#: Flags that a request can set. The kernel clears `userspace` if the master has a helper.
SETTABLE_FLAGS = uapi.NF_CT_EXPECT_PERMANENT | uapi.NF_CT_EXPECT_INACTIVE


def _tuple(prefix: str, number: int, use: int) -> Iterator[Attribute]:
    """Return the rows of a tuple. Tuples of an expectation have no zone of their own."""
    return (row for row in tuple_rows(prefix, number, use) if not row.key.endswith(".zone"))


def _expectation() -> Iterator[Attribute]:
    fixed = CREATE | FIXED
    yield Attribute("zone", (uapi.CTA_EXPECT_ZONE,), types.U16, KEY | CREATE)
    yield from _tuple("tuple", uapi.CTA_EXPECT_TUPLE, KEY | CREATE)
    yield from _tuple("mask", uapi.CTA_EXPECT_MASK, fixed)
    yield from _tuple("master", uapi.CTA_EXPECT_MASTER, fixed)
    yield Attribute("class", (uapi.CTA_EXPECT_CLASS,), types.U32, fixed)
    yield Attribute("flags", (uapi.CTA_EXPECT_FLAGS,), types.Flags("I", FLAGS, "expectation flag"), fixed)
    yield Attribute("function", (uapi.CTA_EXPECT_FN,), types.Text(63), fixed)
    direction = types.Enum("I", DIRECTIONS, "direction")
    yield Attribute("nat.direction", (uapi.CTA_EXPECT_NAT, uapi.CTA_EXPECT_NAT_DIR), direction, fixed)
    for row in _tuple("nat.tuple", uapi.CTA_EXPECT_NAT_TUPLE, fixed):
        yield row._replace(path=(uapi.CTA_EXPECT_NAT, *row.path))
    yield Attribute("timeout", (uapi.CTA_EXPECT_TIMEOUT,), types.U32, UPDATE)
    yield Attribute("helper", (uapi.CTA_EXPECT_HELP_NAME,), types.HELPER_NAME)
    yield Attribute("id", (uapi.CTA_EXPECT_ID,), types.U32)


#: The attribute table of expectations, in the order in which one is presented.
EXPECTATION: tuple[Attribute, ...] = tuple(_expectation())

#: The keys of a tuple to which a mask applies, and which NAT stores; all others belong to the destination.
OF_SOURCE = ("source", "source_port", "source_key", "icmp_id")


def is_zero(value: Any) -> bool:
    return not any(value) if isinstance(value, bytes) else not value


def zero(value: Any) -> Any:
    return bytes(len(value)) if isinstance(value, bytes) else 0


def full_mask(name: str, value: Any) -> Any:
    """Return the mask by which all bits of a value count."""
    if isinstance(value, bytes):
        return b"\xff" * len(value)
    return 0xFF if name in ("icmp_type", "icmp_code") else 0xFFFF
