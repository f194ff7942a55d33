# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""All cases."""

from __future__ import annotations

from . import (
    filter_changes,
    generated_changes,
    iptables_changes,
    nat_changes,
    network_changes,
    related_changes,
    undecidable_changes,
)

CASES = [
    *filter_changes.CASES,
    *nat_changes.CASES,
    *undecidable_changes.CASES,
    *iptables_changes.CASES,
    *network_changes.CASES,
    *related_changes.CASES,
    *generated_changes.CASES,
]
