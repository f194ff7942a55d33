# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several keys at once: take a tuple out of an entry, change it, put it into another.

Stands beside conntrack_grp_create.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.tuple import (
    reversed_tuple,
    tuple_of,
    with_tuple,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

FIRST = {
    "protocol": "udp",
    "original": {"source": "192.0.2.1", "destination": "198.51.100.2", "source_port": 5000, "destination_port": 53},
    "timeout": 60,
}

first = from_document(FIRST)
original = {**tuple_of(first, "original"), "source_port": 5001}
second = {**first, **with_tuple("original", original), **with_tuple("reply", reversed_tuple(original))}

with Table() as table:
    table.create(first)
    table.create(second)
