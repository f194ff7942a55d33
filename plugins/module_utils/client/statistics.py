# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The counters of the kernel, for the whole table and for each CPU.

Source: ctattr_stats_cpu, ctattr_stats_global and ctattr_expect_stats in
include/uapi/linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

from .codec.attributes import Attribute
from .codec.codec import Codec
from .codec.types import U32, constants
from .ctnetlink.messages import parse_count, payload_of, resource
from .netlink.message import Message


def _rows(prefix: str) -> tuple[Attribute, ...]:
    """Return the attribute table of the numbers whose constants have this prefix."""
    return tuple(Attribute(name, (number,), U32) for name, number in constants(prefix).items())


PER_CPU = tuple(row for row in _rows("CTA_STATS_") if not row.key.startswith(("global_", "exp_")))
GLOBAL = _rows("CTA_STATS_GLOBAL_")
EXPECTATIONS_PER_CPU = _rows("CTA_STATS_EXP_")

_PER_CPU = Codec(PER_CPU)
_GLOBAL = Codec(GLOBAL)
_EXPECTATIONS_PER_CPU = Codec(EXPECTATIONS_PER_CPU)


def parse_global(message: Message) -> dict[str, int]:
    """Return `{"entries": …, "max_entries": …}`. Raises `MalformedMessage`."""
    return {"entries": parse_count(message), **_named(_GLOBAL, message)}


def parse_per_cpu(message: Message) -> tuple[int, dict[str, int]]:
    """Return the number of a CPU and its counters by the names in `PER_CPU`, as `conntrack -S` shows them."""
    return resource(message), _named(_PER_CPU, message)


def parse_expectations_per_cpu(message: Message) -> tuple[int, dict[str, int]]:
    """Return the number of a CPU and its counters of expectations: `new` (fulfilled), `create`, `delete`."""
    return resource(message), _named(_EXPECTATIONS_PER_CPU, message)


def _named(codec: Codec, message: Message) -> dict[str, int]:
    values = codec.decode(*payload_of(message))
    values.pop("extra", None)  # counters of older kernels
    return values
