# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print the whole table in an output format of conntrack(8).

Stands beside conntrack_dump.c and nfct-mnl-dump.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.conntrack import Conntrack
from ansible_collections.netops.conntrack.plugins.module_utils.client.text import formats

with Conntrack() as conntrack:
    for entry in conntrack.table.dump():  # formats.write takes entries as flat mappings
        print(formats.write([entry], "extended,id"), end="")
