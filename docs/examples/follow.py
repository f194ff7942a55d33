# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Follow the table without losing sight of it: where events were lost, it is read again.

Stands beside ct_events_reliable.c of libnetfilter_conntrack, which asks the kernel to keep events instead.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import describe
from ansible_collections.netops.conntrack.plugins.module_utils.client.events.follower import Follower, Resync

with Follower() as follower:
    print("Listening,", len(follower.entries), "entries now")
    for told in follower:
        if isinstance(told, Resync):
            print("Events were lost:" if told.overrun else "Changed without an event:", told)
        else:
            print(told.kind, describe(told.entry), "(seen late)" if told.missed else "")
