# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print what happens to entries and to expectations, through one subscription.

Stands beside ctexp_events.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.conntrack import Conntrack, describe

GROUPS = ("new", "update", "destroy", "expectation_new", "expectation_destroy")

with Conntrack() as conntrack, conntrack.listen(*GROUPS) as events:
    print("Listening")
    for event in events:
        print(event.kind, describe(event.entry))
