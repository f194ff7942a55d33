# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print what happens to the entries that match; a BPF program keeps all others in the kernel.

Stands beside conntrack_filter.c and test_filter.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry import describe
from ansible_collections.netops.conntrack.plugins.module_utils.client.events import Subscription
from ansible_collections.netops.conntrack.plugins.module_utils.client.match import parse_match

match = parse_match(
    {
        "protocol": "tcp",
        "state": ["syn_sent", "established"],
        "source": ["192.0.2.0/24", "2001:db8::/32"],
        "except": {"destination_port": 22},
    }
)

with Subscription(["new", "update"], match) as subscription:
    print("Listening")
    for event in subscription:
        print(event.kind, describe(event.entry))
