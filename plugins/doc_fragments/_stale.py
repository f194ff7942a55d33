# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option that selects stale entries."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  stale:
    description:
      - Select only matching entries that are stale. An entry is stale if the kernel would treat the first packet of its
        connection differently under the current rules, addresses and routes. Without O(match), all entries match.
      - V(true) selects stale entries of all three kinds. A list selects only the listed kinds.
      - V(nat_changed) - the kernel would translate addresses or ports differently, or no longer.
      - V(refused) - the kernel would drop or reject the first packet, or does not have a route.
      - V(untracked) - the kernel would let the first packet pass without tracking it.
      - To judge the entries, the module creates a temporary network namespace with a copy of the nftables ruleset (also
        that of iptables-nft), links, addresses, routes and policy rules. In this namespace, it replays the first packet
        of each flow. It then compares the new entry with the entry in the table. The host does not change, and no
        packet leaves the namespace.
      - An entry is uncertain if the result depends on information that the table does not contain, for example on a
        rate limit, a user id or a MAC address. Uncertain entries are counted in RV(verdicts) and never selected.
      - If an entry was declared with NAT that the rules do not contain, for example by
        M(netops.conntrack.conntrack_entry), the entry is stale. Exclude such entries with O(except), for example by
        their mark.
      - The module does not evaluate rules that apply only to packets of the reply direction.
      - The option needs C(CAP_SYS_ADMIN), in addition to C(CAP_NET_ADMIN), and C(/dev/net/tun). If the ruleset cannot
        be copied as a whole, the task fails and changes nothing. This is the case if there are rules of the legacy
        iptables.
    type: raw
"""
