# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print the entries that have labels, with the names from connlabel.conf.

Stands beside nfct-mnl-dump-labels.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.conntrack import Conntrack, describe
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap

with Conntrack(labels=LabelMap.read()) as conntrack:
    for entry in conntrack.dump():
        labels = entry.pop("labels", None)
        if labels:
            print(describe(entry), labels)
