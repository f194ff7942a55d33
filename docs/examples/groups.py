# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several keys at once: take a tuple out of an entry, change it, put it into another.

Stands beside conntrack_grp_create.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry import tuple_of, turned, with_tuple
from ansible_collections.netops.conntrack.plugins.module_utils.client.shape import parse
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

FIRST = {
    "protocol": "udp",
    "original": {"source": "192.0.2.1", "destination": "198.51.100.2", "source_port": 5000, "destination_port": 53},
    "timeout": 60,
}

first = parse(FIRST)
original = {**tuple_of(first, "original"), "source_port": 5001}
second = {**first, **with_tuple("original", original), **with_tuple("reply", turned(original))}

with Table() as table:
    table.create(first)
    table.create(second)
