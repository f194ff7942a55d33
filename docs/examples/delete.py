# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Delete an entry, if it is still the one that was read.

Stands beside conntrack_delete.c and nfct-mnl-del.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.conntrack import Conntrack

FLOW = {
    "protocol": "tcp",
    "original": {"source": "192.0.2.1", "destination": "198.51.100.2", "source_port": 1025, "destination_port": 21},
}

with Conntrack() as conntrack:
    entry = conntrack.get(FLOW)
    conntrack.delete(entry)  # by its tuple and zone, and by its id
