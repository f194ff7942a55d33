# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print the entries that match.

Stands beside conntrack_dump_filter.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry import describe
from ansible_collections.netops.conntrack.plugins.module_utils.client.match import parse_match
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

match = parse_match({"family": "ipv4", "mark": "0x10/0xf0", "except": {"destination_port": [80, 443]}})

with Table() as table:
    for entry in table.dump(where=match.term):
        print(describe(entry))
