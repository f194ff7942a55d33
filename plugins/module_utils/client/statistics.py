# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The counters of the kernel, for the whole table and for each CPU.

Source: ctattr_stats_cpu, ctattr_stats_global and ctattr_expect_stats in
include/uapi/linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

from . import uapi
from .codec.attributes import Attribute
from .codec.codec import Codec
from .codec.types import U32
from .ctnetlink.messages import payload_of, resource
from .errors import MalformedMessage
from .netlink.message import Message

PER_CPU: tuple[Attribute, ...] = tuple(
    Attribute(name, (number,), U32)
    for name, number in (
        ("found", uapi.CTA_STATS_FOUND),
        ("invalid", uapi.CTA_STATS_INVALID),
        ("insert", uapi.CTA_STATS_INSERT),
        ("insert_failed", uapi.CTA_STATS_INSERT_FAILED),
        ("drop", uapi.CTA_STATS_DROP),
        ("early_drop", uapi.CTA_STATS_EARLY_DROP),
        ("error", uapi.CTA_STATS_ERROR),
        ("search_restart", uapi.CTA_STATS_SEARCH_RESTART),
        ("clash_resolve", uapi.CTA_STATS_CLASH_RESOLVE),
        ("chain_toolong", uapi.CTA_STATS_CHAIN_TOOLONG),
    )
)
GLOBAL: tuple[Attribute, ...] = (
    Attribute("entries", (uapi.CTA_STATS_GLOBAL_ENTRIES,), U32),
    Attribute("max_entries", (uapi.CTA_STATS_GLOBAL_MAX_ENTRIES,), U32),
)
EXPECTATIONS_PER_CPU: tuple[Attribute, ...] = (
    Attribute("new", (uapi.CTA_STATS_EXP_NEW,), U32),
    Attribute("create", (uapi.CTA_STATS_EXP_CREATE,), U32),
    Attribute("delete", (uapi.CTA_STATS_EXP_DELETE,), U32),
)

_PER_CPU = Codec(PER_CPU)
_GLOBAL = Codec(GLOBAL)
_EXPECTATIONS_PER_CPU = Codec(EXPECTATIONS_PER_CPU)


def parse_global(message: Message) -> dict[str, int]:
    """Return `{"entries": …, "max_entries": …}`. Raises `MalformedMessage`."""
    found = _named(_GLOBAL, message)
    if "entries" not in found:
        raise MalformedMessage("a message with the number of entries does not have it")
    return found


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
