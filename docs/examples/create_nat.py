# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Create an entry whose source is translated; the kernel works out its reply tuple.

Stands beside conntrack_create_nat.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.conntrack import Conntrack

FLOW = {
    "protocol": "tcp",
    "original": {"source": "192.0.2.1", "destination": "198.51.100.2", "source_port": 1026, "destination_port": 80},
    "nat": {"source": {"address": "203.0.113.1", "port": "5000-5999"}},
    "timeout": 100,
}

with Conntrack() as conntrack:
    conntrack.create(FLOW)
    print(conntrack.get(FLOW)["nat"])
