# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print what happens to entries and to expectations, through one subscription.

Stands beside ctexp_events.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client import entry, expectation
from ansible_collections.netops.conntrack.plugins.module_utils.client.events import ENTRY_GROUPS, GROUPS, Subscription

with Subscription(GROUPS) as subscription:
    print("Listening")
    for event in subscription:
        about = entry if event.kind in ENTRY_GROUPS else expectation
        print(event.kind, about.describe(event.entry))
