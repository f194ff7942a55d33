# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print the entries that match.

Stands beside conntrack_dump_filter.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.conntrack import Conntrack, describe

MATCH = {"family": "ipv4", "mark": "0x10/0xf0", "except": {"destination_port": [80, 443]}}

with Conntrack() as conntrack:
    for entry in conntrack.dump(match=MATCH):
        print(describe(entry))
