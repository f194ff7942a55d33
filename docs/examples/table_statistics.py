# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print what the kernel counts: entries, and what each CPU did with packets and with expectations.

Stands beside no example of libnetfilter_conntrack, but conntrack -C and conntrack -S.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

with Table() as table:
    print(table.statistics())
    for cpu, counters in table.statistics_per_cpu().items():
        print(cpu, counters)
    for cpu, counters in table.expectation_statistics_per_cpu().items():
        print(cpu, counters)
