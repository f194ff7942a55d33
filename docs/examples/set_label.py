# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Add a label to an entry, and keep its other labels.

The kernel has labels only if a firewall rule in the network namespace uses them. Stands beside nfct-mnl-set-label.c of
libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.conntrack import Conntrack
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap

FLOW = {
    "protocol": "tcp",
    "original": {"source": "192.0.2.1", "destination": "198.51.100.2", "source_port": 1025, "destination_port": 21},
    "labels": [3],
}

with Conntrack(labels=LabelMap.read()) as conntrack:
    entry = from_document(FLOW, conntrack.labels)
    # A document declares all labels. The flat mapping of an entry can have a mask of those to set or clear
    conntrack.table.update({**entry, "labels_mask": entry["labels"]})
