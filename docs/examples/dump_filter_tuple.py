# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print the entries of ICMP to one address. The kernel filters by protocol and address.

Stands beside conntrack_dump_filter_tuple.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.conntrack import Conntrack, describe

with Conntrack() as conntrack:
    for entry in conntrack.dump(match={"protocol": "icmp", "destination": "198.51.100.2"}):
        print(describe(entry))
