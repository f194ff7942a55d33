# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several keys at once: take the tuple of an entry, change its port, and create another entry with it.

Stands beside conntrack_grp_create.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.conntrack import Conntrack

FIRST = {
    "protocol": "udp",
    "original": {"source": "192.0.2.1", "destination": "198.51.100.2", "source_port": 5000, "destination_port": 53},
    "timeout": 60,
}

with Conntrack() as conntrack:
    conntrack.create(FIRST)
    original = {**conntrack.get(FIRST)["original"], "source_port": 5001}
    conntrack.create({**FIRST, "original": original})  # without "reply", it is the reversed original
