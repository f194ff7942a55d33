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
      - Select only matching entries that are stale, which means that the current rules, addresses and routes would
        treat them differently. V(true) selects stale entries of every kind, a list only some kinds. Without O(match),
        all entries match.
      - V(nat_changed) - the kernel would translate addresses or ports differently, or no longer.
      - V(refused) - the kernel would drop or reject the first packet, or does not have a route.
      - V(untracked) - the kernel would let the packet pass without tracking it.
      - The module copies the nftables ruleset (also that of iptables-nft), links, addresses, routes and policy rules
        into a network namespace of its own, replays the first packet of each flow there, and compares the entry that
        the kernel makes with the one in the table. Nothing of the host changes, and no packet leaves the namespace. The
        namespace is gone when the task ends.
      - An entry is uncertain if the outcome depends on what the table does not show, for example on a rate limit, a
        user id, a MAC address, or a hash with a random seed. Uncertain entries are counted in RV(verdicts) and never
        selected.
      - An entry that was declared with its own NAT, for example by M(netops.conntrack.conntrack_entry), does not follow
        the rules and is stale. Exclude it with O(except), for example by its mark.
      - Rules for packets of the reply direction alone are not evaluated.
      - This needs C(CAP_SYS_ADMIN) besides C(CAP_NET_ADMIN), and C(/dev/net/tun). The task fails and changes nothing if
        the ruleset cannot be copied as a whole, which is the case for rules of the legacy iptables.
    type: raw
"""
