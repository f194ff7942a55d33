# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Delete the IPv4 entries of one zone that have a mark, each by its tuple, zone and id.

Stands beside conntrack_flush_filter.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.conntrack import Conntrack

with Conntrack() as conntrack:
    conntrack.flush(match={"family": "ipv4", "zone": 123, "mark": 1})
