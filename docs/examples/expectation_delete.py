# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Delete an expectation, if it is still the one that was read.

Stands beside expect_delete.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.conntrack import Conntrack

EXPECTED = {
    "tuple": {"protocol": "tcp", "source": "198.51.100.2", "destination": "192.0.2.1", "destination_port": 2000},
}

with Conntrack() as conntrack:
    found = conntrack.expectations.get(EXPECTED)
    conntrack.expectations.delete(found)  # by its tuple and zone, and by its id
