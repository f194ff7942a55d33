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
  - Returns facts about a host's connection tracking table as C(ansible_facts.conntrack).
  - The facts are the usage and content of the table, the addresses and services with the most connections and traffic,
    and the counters, settings and features of the kernel.
extends_documentation_fragment:
  - netops.conntrack._netns
  - netops.conntrack._attributes
  - netops.conntrack._attributes.facts
  - netops.conntrack._match
  - netops.conntrack._labels
  - netops.conntrack._ruleset
options:
  gather_subset:
    description:
      - Subsets to gather. Possible values are V(all), V(min), V(summary), V(top), V(statistics), V(settings),
        V(expectations), V(timeout_policies), V(capabilities), V(stale) and V(snat_ports). A leading V(!) excludes a
        subset.
      - V(min) is gathered with every other subset unless you exclude it. C(!all) alone gathers only V(min).
      - V(summary) and V(top) together read the whole table once. V(snat_ports) and V(stale) each read it once more. All
        other subsets take negligible time.
      - V(capabilities) creates a network namespace and probes the kernel there. The table of the host is not touched.
      - V(snat_ports) is gathered only if you name it. For this subset, the module reads the entries with source NAT.
      - V(stale) is gathered only if you name it. For this subset, the module compares every entry with the current
        rules, addresses and routes, see O(netops.conntrack.conntrack_flush#module:stale). With O(ruleset), it uses the
        rules of a file instead of the current rules.
    type: list
    elements: str
    default: [all]
  top:
    description:
      - Maximum number of items to return in each ranking of C(top), in C(by_zone), C(by_mark), C(groups) and
        C(snat_ports), and in the rules of C(stale).
    type: int
    default: 10
  group_by:
    description:
      - Keys by which to count entries in groups. The fact C(groups) has the counts. The option is a list of keys, or,
        for several groupings, a list of such lists. See O(netops.conntrack.conntrack_info#module:group_by) for the
        keys.
      - The groupings do not depend on O(gather_subset). If V(summary) or V(top) is gathered, the module counts the
        groups while it reads the table for these subsets. Otherwise, it reads the table once for the groups.
    type: list
    elements: raw
seealso:
  - module: netops.conntrack.conntrack_info
notes:
  - If you name this module in C(FACTS_MODULES), M(ansible.builtin.gather_facts) runs it without its action plugin. A
    file that you set as O(ruleset) in C(module_defaults) must then be on the target, with O(remote_src=true).
"""

EXAMPLES = r"""
- name: Gather all facts
  netops.conntrack.conntrack_facts:
  become: true

- name: Fail if a table is nearly full
  netops.conntrack.conntrack_facts:
    gather_subset: [min]
  failed_when: ansible_facts.conntrack.usage_percent > 80
  become: true

- name: Gather the number of entries of each container and namespace of the host
  netops.conntrack.conntrack_facts:
    netns: all
    gather_subset: [min]
  become: true

- name: Show the clients of the database and their traffic
  netops.conntrack.conntrack_facts:
    gather_subset: [summary, top]
    match:
      destination: 10.20.0.5
      destination_port: 5432
    top: 25
  become: true

- name: Count flows by service and state, and by client network
  netops.conntrack.conntrack_facts:
    gather_subset: [min]
    group_by:
      - [protocol, destination_port, state]
      - [source/24]
  become: true

- name: Count the flows that a ruleset on the controller would affect if it were loaded
  netops.conntrack.conntrack_facts:
    gather_subset: [stale]
    ruleset: gateway.nft
  become: true
"""

RETURN = r"""
ansible_facts:
  description: Facts to add to C(ansible_facts).
  type: dict
  returned: always
  contains:
    conntrack:
      description: The gathered facts. Each key is returned if its subset was requested.
      type: dict
      returned: always
      contains:
        count:
          description: Subset V(min). Number of entries in the table.
          type: int
          sample: 18233
        max:
          description: Subset V(min). Maximum number of entries.
          type: int
          sample: 262144
        usage_percent:
          description: Subset V(min). Usage of the table in percent.
          type: float
          sample: 6.96
        matched:
          description: Subset V(summary). Number of matching entries. The other keys of this subset also count only
            matching entries. The same applies to C(groups), and to the subsets V(top), V(stale) and V(snat_ports).
          type: int
          sample: 18233
        by_family:
          description: Subset V(summary). Number of entries by family.
          type: dict
          sample: {ipv4: 17800, ipv6: 433}
        by_protocol:
          description: Subset V(summary). Number of entries by protocol.
          type: dict
          sample: {tcp: 14000, udp: 4200, icmp: 33}
        by_state:
          description: Subset V(summary). Number of entries by protocol and state.
          type: dict
          sample: {tcp: {established: 12000, time_wait: 2000}}
        by_zone:
          description: Subset V(summary). Number of entries by zone, for up to O(top) zones with the most entries.
            C(other) is the number of entries in all other zones.
          type: dict
          sample: {"0": 18233}
        by_mark:
          description: Subset V(summary). Number of entries by mark, for up to O(top) marks with the most entries.
            C(other) is the number of entries with all other marks.
          type: dict
          sample: {"0": 18000, "16": 233}
        nat:
          description: Subset V(summary). Number of entries with source NAT, with destination NAT, and without NAT.
          type: dict
          sample: {source: 9000, destination: 120, none: 9113}
        status:
          description: Subset V(summary). Number of entries by status bit.
          type: dict
          sample: {seen_reply: 17000, assured: 15000, confirmed: 18233}
        top:
          description:
            - Subset V(top). Rankings of C(sources), C(destinations), C(services), and C(pairs) of a source and a
              destination. C(by_flows) has those with the most flows. If accounting is on, C(by_bytes) has those with
              the most bytes. Each ranking has up to O(top) items.
            - The numbers of a ranking are exact for up to 20,000 different addresses, services or pairs. With more, the
              numbers can be too low by up to C(uncertainty), which the ranking then contains. An item whose true number
              is higher than C(uncertainty) is missing only because of O(top).
          type: dict
          sample:
            sources:
              by_flows:
                - {address: 10.1.0.2, flows: 812}
            services:
              by_flows:
                - {protocol: tcp, port: 443, flows: 11000}
        groups:
          description:
            - With O(group_by), a list with an item for each grouping. C(by) has the keys of the grouping as you wrote
              them. C(groups) has up to O(top) groups, those with the most flows.
            - RV(netops.conntrack.conntrack_info#module:groups), RV(netops.conntrack.conntrack_info#module:other) and
              RV(netops.conntrack.conntrack_info#module:uncertainty) describe the content.
          type: list
          elements: dict
          sample:
            - by: [destination, destination_port]
              groups:
                - {destination: 10.20.0.5, destination_port: 5432, flows: 811}
              other: {flows: 39}
        statistics:
          description:
            - Subset V(statistics). Counters of the kernel, as C(total) and C(per_cpu).
            - C(expectations) has the counters of expectations, also as C(total) and C(per_cpu). C(new) is the number of
              connections that fulfilled an expectation. C(create) is the number of expectations that were created, and
              C(delete) is the number of expectations that ended.
          type: dict
          sample:
            total: {found: 3, invalid: 17, insert: 0, insert_failed: 0, drop: 0, early_drop: 0, error: 0}
            expectations:
              total: {new: 4, create: 5, delete: 5}
        settings:
          description:
            - Subset V(settings). The settings that are options of M(netops.conntrack.conntrack_settings), if the kernel
              has them. Times are in seconds.
            - If the option is a boolean, the value is V(1) or V(0), as in the kernel. You can pass the values unchanged
              to M(netops.conntrack.conntrack_settings).
          type: dict
          sample: {max: 262144, accounting: 0, timeouts: {tcp_established: 432000, udp: 30}}
        expectations:
          description: Subset V(expectations). Number of expectations, their maximum, and their number by helper.
          type: dict
          sample: {count: 1, max: 4096, by_helper: {ftp: 1}}
        timeout_policies:
          description: Subset V(timeout_policies). The named timeout policies. Null if the kernel does not support any.
          type: list
          elements: dict
          sample:
            - name: web
              family: ipv4
              protocol: tcp
              use: 1
              timeouts:
                syn_sent: 120
                syn_recv: 60
                established: 3600
                fin_wait: 120
                close_wait: 10
                last_ack: 30
                time_wait: 10
                close: 10
                syn_sent2: 120
                retrans: 300
                unacknowledged: 300
        stale:
          description:
            - Subset V(stale). C(verdicts) has the number of entries by verdict.
            - C(rules) has the rules that lead to a verdict other than V(unchanged), up to O(top), those with the most
              entries first. Each item has C(verdict), C(rule), the number of C(entries), and for uncertain entries the
              C(reason). If no rule leads to the verdict, for example because a route is missing, C(rule) is null.
          type: dict
          sample:
            verdicts: {unchanged: 18190, nat_changed: 12, refused: 31, untracked: 0, uncertain: 0}
            rules:
              - verdict: refused
                rule: {family: inet, table: filter, chain: forward, handle: 12, comment: blocked hosts}
                reason: null
                entries: 31
        snat_ports:
          description:
            - Subset V(snat_ports). The use of the source NAT ports. Flows need different ports of a translated
              C(address) if they have the same C(destination), C(destination_port), C(protocol) and C(zone). Each item
              is one combination of these keys. The list has up to O(top) items, the highest use first.
            - C(used) is the number of flows with source NAT. Each of them needs a port of its own. Flows of the host
              itself that use the address without NAT are not counted.
            - C(limit) is the number of ports that the rules allow for the address. It is 64512 if the rules have no
              range of ports or take ports from a map. It is also 64512 if the rules cannot be read, as with the legacy
              iptables. If rules assign separate ports to each client, C(limit) is the number of the ports of all
              clients together.
            - C(sources) are the clients with the most ports.
            - If all ports are used, new flows to this destination fail, and C(insert_failed) or C(drop) in
              C(statistics) grows. The kernel tries a limited number of ports for a new flow. New flows can therefore
              begin to fail before the use is 100 %.
            - With more than 65,536 combinations, those with few flows can be missing.
          type: list
          elements: dict
          sample:
            - address: 198.51.100.1
              destination: 203.0.113.9
              destination_port: 443
              protocol: tcp
              zone: 0
              used: 60100
              limit: 64512
              usage_percent: 93.16
              sources:
                - {address: 10.0.0.5, ports: 41000}
        namespaces:
          description:
            - With several namespaces in O(netns), a list with an item for each namespace. An item has C(netns),
              C(processes), and the facts of this namespace. If the facts could not be gathered, the item has C(msg)
              instead.
            - Outside this list, there are only the sums C(count) and C(matched), and the C(capabilities) of the kernel.
          type: list
          elements: dict
          sample:
            - netns: blue
              processes: []
              count: 233
              max: 262144
              usage_percent: 0.09
        capabilities:
          description:
            - Subset V(capabilities). Features of the kernel. The module probes them in a new network namespace. If the
              namespace could not be created, the only key is C(probed), with the value false.
            - C(dump_by_…) and C(flush_by_…) show whether the kernel can select entries by this key in a dump or a
              flush. C(tracks_…) shows whether the kernel tracks the ports of this protocol, or the keys of GRE.
              C(helper_removal) shows whether a helper can be removed from an entry. C(events_on_demand) shows whether
              O(netops.conntrack.conntrack_settings#module:events) can be 2. C(socket_destroy) shows whether
              O(netops.conntrack.conntrack_flush#module:end_local_sockets) works. A feature that could not be probed is
              null.
          type: dict
          sample: {probed: true, dump_by_zone: true, flush_by_tuple: true, tracks_dccp: false}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.match import (
    MATCH,
    RULESET,
    match_of,
    ruleset_of,
)
from ansible_collections.netops.conntrack.plugins.module_utils._module import (
    NAMESPACES,
    TABLE,
    check_numbers,
    run,
)


def read(module: AnsibleModule) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils._operations.facts import chosen, gather, warnings_of
    from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
    from ansible_collections.netops.conntrack.plugins.module_utils.client.table_reader import TableReader

    params = module.params
    check_numbers(module, "top")
    subsets = chosen(params["gather_subset"])
    ruleset = ruleset_of(module, "stale" in subsets, "gather_subset: stale")
    labels = LabelMap.read(params["label_map"])
    match = match_of(module, labels)
    groupings: list[Any] = []
    if params["group_by"] is not None:
        from ansible_collections.netops.conntrack.plugins.module_utils._operations.groups import parse_groupings

        groupings = parse_groupings(params["group_by"], labels)
    with TableReader() as table:
        facts = gather(table, subsets, match, params["top"], ruleset, groupings)
    return {"ansible_facts": {"conntrack": facts}, "warnings": warnings_of(subsets)}


def read_each(*work: Any) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils._operations.namespaces import run_in_each

    return run_in_each(*work)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "gather_subset": {"type": "list", "elements": "str", "default": ["all"]},
            **MATCH,
            "top": {"type": "int", "default": 10},
            "group_by": {"type": "list", "elements": "raw"},
            **RULESET,
            **TABLE,
            **NAMESPACES,
        },
        supports_check_mode=True,
    )
    run(module, read, {"ansible_facts": {}}, reads_only=True, in_each=read_each)


if __name__ == "__main__":
    main()
