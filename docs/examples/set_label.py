# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give an entry a label besides those that it has.

Connections have labels where a rule of the firewall uses some. Stands beside nfct-mnl-set-label.c of
libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

FLOW = {
    "protocol": "tcp",
    "original": {"source": "192.0.2.1", "destination": "198.51.100.2", "source_port": 1025, "destination_port": 21},
}

names = LabelMap.read()
entry = from_document({**FLOW, "labels": [3]}, names)

with Table() as table:
    table.update({**entry, "labels_mask": entry["labels"]})  # without a mask, all others would go
