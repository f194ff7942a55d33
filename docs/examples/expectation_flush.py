# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Delete every expectation of the namespace.

Stands beside expect_flush.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.conntrack import Conntrack

with Conntrack() as conntrack:
    conntrack.expectations.flush()
