# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read one entry and print it as JSON.

Stands beside conntrack_get.c and nfct-mnl-get.c of libnetfilter_conntrack.
"""

import json

from ansible_collections.netops.conntrack.plugins.module_utils.client.conntrack import Conntrack

FLOW = {
    "protocol": "tcp",
    "original": {"source": "192.0.2.1", "destination": "198.51.100.2", "source_port": 1025, "destination_port": 21},
}

with Conntrack() as conntrack:
    print(json.dumps(conntrack.get(FLOW), indent=2))
