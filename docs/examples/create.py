# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Create an entry: a TCP connection that the kernel takes for established.

Stands beside conntrack_create.c and nfct-mnl-create.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.conntrack import Conntrack

FLOW = {
    "protocol": "tcp",
    "original": {"source": "192.0.2.1", "destination": "198.51.100.2", "source_port": 1025, "destination_port": 21},
    "tcp": {"state": "established"},
    "status": ["seen_reply", "assured"],
    "timeout": 100,
    "mark": 0x10,
    "helper": "ftp",
}

with Conntrack() as conntrack:
    conntrack.create(FLOW)
