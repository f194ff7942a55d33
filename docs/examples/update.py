# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Change an entry in place: its mark and what is left of its life, and nothing else.

Stands beside conntrack_update.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.conntrack import Conntrack

FLOW = {
    "protocol": "tcp",
    "original": {"source": "192.0.2.1", "destination": "198.51.100.2", "source_port": 1025, "destination_port": 21},
}

with Conntrack() as conntrack:
    conntrack.update({**FLOW, "mark": 0x20, "timeout": 600})
