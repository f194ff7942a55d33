# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print what happens to entries, until it is interrupted.

Stands beside conntrack_events.c and nfct-mnl-event.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry import describe
from ansible_collections.netops.conntrack.plugins.module_utils.client.events import Subscription

with Subscription() as subscription:
    print("Listening")
    for event in subscription:
        print(event.kind, describe(event.entry))
