# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print the entries that have labels, with the names that connlabel.conf gives them.

Stands beside nfct-mnl-dump-labels.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import describe
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

names = LabelMap.read()

with Table() as table:
    for entry in table.dump():
        if entry.get("labels"):
            print(describe(entry), to_document(entry, names)["labels"])
