# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print what happens to entries, until it is interrupted.

Stands beside conntrack_events.c and nfct-mnl-event.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.conntrack import Conntrack, describe

with Conntrack() as conntrack, conntrack.listen() as events:
    print("Listening")
    for event in events:
        print(event.kind, describe(event.entry))
