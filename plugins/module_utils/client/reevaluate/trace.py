# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trace messages of nf_tables: the rules that a packet matched.

Source: include/uapi/linux/netfilter/nf_tables.h (nft_trace_attributes), net/netfilter/nf_tables_trace.c.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from ..netlink.message import Message
from . import numbers as n
from .expressions import number_of
from .network import attributes_of, text_of

_HEADER = 4
_I32 = struct.Struct(">i")
_U64 = struct.Struct(">Q")


class Step(NamedTuple):
    """One step: a rule that matched, or the policy of a base chain.

    `rule` has family, table name and handle. The handle is 0 for a policy and for the end of a chain. `verdict` is
    NF_ACCEPT, NF_DROP, or one of the negative codes of nf_tables.
    """

    rule: tuple[int, str, int]
    chain: str
    is_policy: bool
    verdict: int


def parse_step(message: Message) -> Step | None:
    """Return the step in a message, None for a message of another type. Raises `MalformedMessage`."""
    if message.type != n.NFT_MSG_TRACE:
        return None
    parsed = attributes_of(message.payload, _HEADER)
    is_policy = number_of(parsed[n.NFTA_TRACE_TYPE]) == n.NFT_TRACETYPE_POLICY
    handle = _U64.unpack(parsed[n.NFTA_TRACE_RULE_HANDLE])[0] if n.NFTA_TRACE_RULE_HANDLE in parsed else 0
    if is_policy:
        verdict = _I32.unpack(parsed[n.NFTA_TRACE_POLICY])[0] if n.NFTA_TRACE_POLICY in parsed else n.NF_ACCEPT
    else:
        code = attributes_of(parsed.get(n.NFTA_TRACE_VERDICT, b""), 0).get(n.NFTA_VERDICT_CODE)
        verdict = _I32.unpack(code)[0] if code else n.NFT_CONTINUE
    return Step(
        (message.payload[0], text_of(parsed[n.NFTA_TRACE_TABLE]), handle),
        text_of(parsed.get(n.NFTA_TRACE_CHAIN, b"")),
        is_policy,
        verdict,
    )
