# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print the kernel's counters: entries, and what each CPU did with packets and with expectations.

Stands beside no example of libnetfilter_conntrack, but conntrack -C and conntrack -S.
"""

from ansible_collections.netops.conntrack.plugins.module_utils.client.conntrack import Conntrack

with Conntrack() as conntrack:
    print(conntrack.table.statistics())
    for cpu, counters in conntrack.statistics().items():
        print(cpu, counters)
    for cpu, counters in conntrack.table.expectation_statistics_per_cpu().items():
        print(cpu, counters)
