# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read one expectation and print it as JSON, with its master.

Stands beside expect_get.c of libnetfilter_conntrack.
"""

import json

from ansible_collections.netops.conntrack.plugins.module_utils.client.conntrack import Conntrack

EXPECTED = {
    "tuple": {"protocol": "tcp", "source": "198.51.100.2", "destination": "192.0.2.1", "destination_port": 2000},
}

with Conntrack() as conntrack:
    print(json.dumps(conntrack.expectations.get(EXPECTED), indent=2))
