# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print which expectations come and go, until it is interrupted.

Stands beside expect_events.c and nfexp-mnl-event.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.conntrack import Conntrack, describe

with Conntrack() as conntrack, conntrack.listen("expectation_new", "expectation_destroy") as events:
    print("Listening")
    for event in events:
        print(event.kind, describe(event.entry))
