# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print every expectation and the connection that announced it.

Stands beside expect_dump.c and nfexp-mnl-dump.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.conntrack import Conntrack, describe

with Conntrack() as conntrack:
    for found in conntrack.expectations.dump():
        master = dict(found["master"])
        protocol = master.pop("protocol", found["tuple"]["protocol"])
        print(describe(found), "of", describe({"protocol": protocol, "original": master}))
