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
      - Of the entries that match, select only those that the current rules, addresses and routes would treat in another
        way. V(true) selects all three kinds, and a list selects some of them. Without O(match), all entries match.
      - V(nat_changed) - the kernel would translate addresses or ports in another way, or no longer.
      - V(refused) - it would drop or reject the first packet, or has no route for it.
      - V(untracked) - it would let the packet pass without tracking it.
      - The module copies the nftables ruleset (also that of iptables-nft), links, addresses, routes and policy rules
        into a network namespace of its own, replays the first packet of each flow there, and compares the entry that
        the kernel makes with the one in the table. Nothing of the host changes, and no packet leaves the namespace. The
        namespace is gone when the task ends.
      - An entry is uncertain if the outcome depends on what the table does not show, for example on a rate limit, a
        user id, a MAC address, or a hash with a random seed. Uncertain entries are counted in RV(verdicts) and never
        selected.
      - Rules that concern packets of the reply direction alone are not evaluated.
      - This needs C(CAP_SYS_ADMIN) besides C(CAP_NET_ADMIN), and C(/dev/net/tun). The task fails and changes nothing if
        the ruleset cannot be copied as a whole, which is the case for rules of the legacy iptables.
    type: raw
"""
