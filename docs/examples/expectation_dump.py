# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print every expectation and the connection that announced it.

Stands beside expect_dump.c and nfexp-mnl-dump.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client import entry, expectation
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

with Table() as table:
    for found in expectation.read_all(table):
        print(expectation.describe(found), "of", entry.describe(expectation.master_of(found)))
