# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Delete an expectation, if it is still the one that was read.

Stands beside expect_delete.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client import expectation
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

EXPECTED = {
    "tuple": {"protocol": "tcp", "source": "198.51.100.2", "destination": "192.0.2.1", "destination_port": 2000},
}

with Table() as table:
    found = expectation.get(table, expectation.parse(EXPECTED))
    expectation.delete(table, found)  # by its tuple and zone, and by its id
