# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Follow the table, and read it again after an overrun. `Conntrack.listen` raises an error instead.

Stands beside ct_events_reliable.c of libnetfilter_conntrack, which requests that the kernel keep undelivered events.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import describe
from ansible_collections.netops.conntrack.plugins.module_utils.client.events.follower import Follower
from ansible_collections.netops.conntrack.plugins.module_utils.client.events.overrun import Resync

with Follower() as follower:
    print("Listening,", len(follower.entries), "entries now")
    for change in follower:
        if isinstance(change, Resync):
            print("Events were lost:" if change.overrun else "Changed without an event:", change)
        else:
            print(change.kind, describe(change.entry), "(seen late)" if change.missed else "")
