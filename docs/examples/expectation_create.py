# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Announce a connection that the FTP connection of create.py is about to bring: the server calls back.

Stands beside expect_create.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.conntrack import Conntrack

EXPECTED = {
    "tuple": {"protocol": "tcp", "source": "198.51.100.2", "destination": "192.0.2.1", "destination_port": 2000},
    "master": {"source": "192.0.2.1", "destination": "198.51.100.2", "source_port": 1025, "destination_port": 21},
}

with Conntrack() as conntrack:
    conntrack.expectations.create(EXPECTED)  # from any port of the server's
