# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print which expectations come and go, until it is interrupted.

Stands beside expect_events.c and nfexp-mnl-event.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.events import Subscription
from ansible_collections.netops.conntrack.plugins.module_utils.client.expectation import describe

with Subscription(["expectation_new", "expectation_destroy"]) as subscription:
    print("Listening")
    for event in subscription:
        print(event.kind, describe(event.entry))
