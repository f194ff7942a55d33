# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judgements of flows: verdict, expected translation and the deciding rule."""

from __future__ import annotations

from typing import NamedTuple

from ..entry.entry import Entry
from .ruleset import RuleId

#: The kernel would make the same entry.
UNCHANGED = "unchanged"
#: It would translate addresses or ports differently.
NAT_CHANGED = "nat_changed"
#: The kernel would drop or reject the first packet, or does not have a route.
REFUSED = "refused"
#: It would let the packet pass without an entry.
UNTRACKED = "untracked"
#: It cannot be decided.
UNCERTAIN = "uncertain"

VERDICTS = (UNCHANGED, NAT_CHANGED, REFUSED, UNTRACKED, UNCERTAIN)
#: The verdicts of stale flows.
STALE = (NAT_CHANGED, REFUSED, UNTRACKED)


class Judgement(NamedTuple):
    """The judgement of one flow.

    `verdict` is one of `VERDICTS`. `expected` is the entry that the kernel would make, None if it would make none.
    `rule` is the rule that decides, None if none does. `reason` says why a flow is uncertain, "" if it is not.
    """

    verdict: str
    expected: Entry | None = None
    rule: RuleId | None = None
    reason: str = ""


SAME = Judgement(UNCHANGED)


def uncertain(reason: str, rule: RuleId | None = None) -> Judgement:
    """Return the judgement of a flow that cannot be decided."""
    return Judgement(UNCERTAIN, None, rule, reason)
