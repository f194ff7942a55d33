# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Announce a connection that will be translated as its master is, the FTP connection of create.py.

Stands beside expect_create_nat.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.conntrack import Conntrack

EXPECTED = {
    "tuple": {"protocol": "tcp", "source": "198.51.100.2", "destination": "203.0.113.1", "destination_port": 5000},
    "master": {"source": "192.0.2.1", "destination": "198.51.100.2", "source_port": 1025, "destination_port": 21},
    "nat": {"direction": "reply", "tuple": {"source": "192.0.2.1", "source_port": 2000}},
    "function": "nat-follow-master",
}

with Conntrack() as conntrack:
    conntrack.expectations.create(EXPECTED)
