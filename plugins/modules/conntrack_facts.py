#!/usr/bin/python
# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gather facts on connection tracking."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conntrack_facts
short_description: Gather facts on connection tracking
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Returns how full a host's connection tracking table is, what is in it, who has the most of it, and how the kernel
    treats it, as C(ansible_facts.conntrack).
extends_documentation_fragment:
  - netops.conntrack._attributes
  - netops.conntrack._attributes.facts
  - netops.conntrack._match
  - netops.conntrack._labels
options:
  gather_subset:
    description:
      - What to gather, of V(all), V(min), V(summary), V(top), V(statistics), V(settings), V(expectations),
        V(timeout_policies) and V(capabilities). A V(!) in front leaves one out.
      - V(min) comes with every other unless it is left out itself; C(!all) leaves V(min) alone.
      - V(summary) and V(top) read the whole table, once. All others take no time worth mentioning.
      - V(capabilities) makes a network namespace of its own to try things in; the table of the host is not touched.
    type: list
    elements: str
    default: [all]
  top:
    description:
      - How many to return of each kind of which there can be many.
    type: int
    default: 10
seealso:
  - module: netops.conntrack.conntrack_info
"""

EXAMPLES = r"""
- name: All there is to know
  netops.conntrack.conntrack_facts:
  become: true

- name: Fail where a table is nearly full
  netops.conntrack.conntrack_facts:
    gather_subset: [min]
  failed_when: ansible_facts.conntrack.usage_percent > 80
  become: true

- name: Who talks to the database, and how much
  netops.conntrack.conntrack_facts:
    gather_subset: [summary, top]
    match:
      destination: 10.20.0.5
      destination_port: 5432
    top: 25
  become: true
"""

RETURN = r"""
ansible_facts:
  description: Facts to add to C(ansible_facts).
  type: dict
  returned: always
  contains:
    conntrack:
      description: What was gathered. Every key below is there if its subset was asked for.
      type: dict
      returned: always
      contains:
        count:
          description: Subset V(min). How many entries the table has.
          type: int
          sample: 18233
        max:
          description: Subset V(min). How many entries the table may have.
          type: int
          sample: 262144
        usage_percent:
          description: Subset V(min). How full the table is.
          type: float
          sample: 6.96
        matched:
          description: Subset V(summary). How many entries match; what follows counts these.
          type: int
        by_family:
          description: Subset V(summary). Entries by family.
          type: dict
          sample: {ipv4: 17800, ipv6: 433}
        by_protocol:
          description: Subset V(summary). Entries by protocol.
          type: dict
          sample: {tcp: 14000, udp: 4200, icmp: 33}
        by_state:
          description: Subset V(summary). Entries by protocol and state.
          type: dict
          sample: {tcp: {established: 12000, time_wait: 2000}}
        by_zone:
          description: Subset V(summary). Entries by zone, the O(top) of them and all others as C(other).
          type: dict
          sample: {"0": 18233}
        by_mark:
          description: Subset V(summary). Entries by mark, the O(top) of them and all others as C(other).
          type: dict
          sample: {"0": 18000, "16": 233}
        nat:
          description: Subset V(summary). Entries whose source is translated, whose destination is, and with neither.
          type: dict
          sample: {source: 9000, destination: 120, none: 9113}
        status:
          description: Subset V(summary). Entries by status bit.
          type: dict
          sample: {seen_reply: 17000, assured: 15000, confirmed: 18233}
        top:
          description:
            - Subset V(top). The O(top) C(sources), C(destinations), C(services) and C(pairs), each C(by_flows) and,
              where accounting is on, C(by_bytes).
            - Where a ranking has too many distinct keys to count each in little memory, C(uncertainty) says by how much
              its numbers may be too low; who has more than that is not missed.
          type: dict
          sample:
            sources:
              by_flows:
                - {address: 10.1.0.2, flows: 812}
            services:
              by_flows:
                - {protocol: tcp, port: 443, flows: 11000}
        statistics:
          description:
            - Subset V(statistics). The kernel's counters, C(total) and C(per_cpu).
            - Under C(expectations), C(total) and C(per_cpu) too, those of expectations - how many connections fulfilled
              one (C(new)), how many were made (C(create)), and how many ended (C(delete)).
          type: dict
          sample:
            total: {found: 3, invalid: 17, insert: 0, insert_failed: 0, drop: 0, early_drop: 0, error: 0}
            expectations:
              total: {new: 4, create: 5, delete: 5}
        settings:
          description:
            - Subset V(settings). The settings that M(netops.conntrack.conntrack_settings) has as options, as far as the
              kernel has them; times are in seconds.
          type: dict
          sample: {max: 262144, accounting: 0, timeouts: {tcp_established: 432000, udp: 30}}
        expectations:
          description: Subset V(expectations). How many expectations there are, may be, and by helper.
          type: dict
          sample: {count: 1, max: 4096, by_helper: {ftp: 1}}
        timeout_policies:
          description: Subset V(timeout_policies). The named timeout policies, null where the kernel knows none.
          type: list
          elements: dict
        capabilities:
          description:
            - Subset V(capabilities). What the kernel can do, each tried in a network namespace made for that; C(probed)
              is false, and nothing else there, where none could be made.
            - C(dump_by_…) and C(flush_by_…) are the kernel's own filters, C(tracks_…) protocols whose ports it knows.
              C(helper_removal) is whether a helper can be taken from an entry, C(events_on_demand) whether
              O(netops.conntrack.conntrack_settings#module:events) can be 2. What could not be tried is null.
          type: dict
          sample: {probed: true, dump_by_zone: true, flush_by_tuple: true, tracks_dccp: false}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.label_map import LABEL_MAP, labels_of
from ansible_collections.netops.conntrack.plugins.module_utils._argspec.match import MATCH, match_of
from ansible_collections.netops.conntrack.plugins.module_utils._module import NETNS, check_not_negative, run


def read(module: AnsibleModule) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils._operations.facts import chosen, gather, warning_of
    from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

    params = module.params
    check_not_negative(module, "top")
    subsets = chosen(params["gather_subset"])
    match = match_of(module, labels_of(module))
    warning = warning_of(subsets)
    if warning:
        module.warn(warning)
    with Table() as table:
        return {"ansible_facts": {"conntrack": gather(table, subsets, match, params["top"])}}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "gather_subset": {"type": "list", "elements": "str", "default": ["all"]},
            **MATCH,
            "top": {"type": "int", "default": 10},
            **LABEL_MAP,
            **NETNS,
        },
        supports_check_mode=True,
    )
    run(module, read, {"ansible_facts": {}}, reads_only=True)


if __name__ == "__main__":
    main()
