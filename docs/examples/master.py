# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Create a connection and one that belongs to it, as FTP's data connections do.

Stands beside conntrack_master.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.conntrack import Conntrack

CONTROL = {"source": "192.0.2.1", "destination": "198.51.100.2", "source_port": 1027, "destination_port": 21}
DATA = {"source": "198.51.100.2", "destination": "192.0.2.1", "source_port": 20, "destination_port": 2000}

with Conntrack() as conntrack:
    conntrack.create({"protocol": "tcp", "original": CONTROL})
    conntrack.create({"protocol": "tcp", "original": DATA, "master": CONTROL})
