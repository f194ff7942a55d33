# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print the whole table in the words of conntrack(8).

Stands beside conntrack_dump.c and nfct-mnl-dump.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from ansible_collections.netops.conntrack.plugins.module_utils.client.text import formats

with Table() as table:
    for entry in table.dump():
        print(formats.write([entry], "extended,id"), end="")
