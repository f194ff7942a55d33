# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Convert names of labels to bit numbers and back. `Conntrack(labels=…)` uses such a map for all documents.

Stands beside test_connlabel.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap

names = LabelMap.parse(["# a bit and its name", "0 voice", "1 video", "7 backup"], "here")

print(names.to_bits(["voice", "backup", 9], "labels"))
print(names.to_names([0, 1, 9]))
