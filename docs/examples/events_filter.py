# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print what happens to the entries that match; a BPF program keeps all others in the kernel.

Stands beside conntrack_filter.c and test_filter.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.conntrack import Conntrack, describe

MATCH = {
    "protocol": "tcp",
    "state": ["syn_sent", "established"],
    "source": ["192.0.2.0/24", "2001:db8::/32"],
    "except": {"destination_port": 22},
}

with Conntrack() as conntrack, conntrack.listen("new", "update", match=MATCH) as events:
    print("Listening")
    for event in events:
        print(event.kind, describe(event.entry))
