# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Delete every entry of IPv4, one by one and each by its tuple, zone and id.

Stands beside conntrack_flush.c and nfct-mnl-flush.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.conntrack import Conntrack

with Conntrack() as conntrack:
    conntrack.flush(match={"family": "ipv4"})
