# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Delete every entry of IPv4, one by one and each by its tuple, zone and id.

Stands beside conntrack_flush.c and nfct-mnl-flush.c of libnetfilter_conntrack.
"""

from socket import AF_INET

from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

with Table() as table:
    refusals = [error for error in table.delete_all(table.dump(AF_INET)) if error]

for refusal in refusals:
    print(refusal)
