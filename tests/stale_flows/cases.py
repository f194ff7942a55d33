# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""All cases."""

from __future__ import annotations

from . import iptables_changes, network_changes, nft_changes

CASES = [*nft_changes.CASES, *iptables_changes.CASES, *network_changes.CASES]
