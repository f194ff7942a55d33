# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names for label bits, and back.

Stands beside test_connlabel.c of libnetfilter_conntrack.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap

names = LabelMap.parse(["# a bit and its name", "0 voice", "1 video", "7 backup"], "here")

print(names.to_bits(["voice", "backup", 9], "labels"))
print(names.to_names([0, 1, 9]))
