#!/usr/bin/python
# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read entries of the connection tracking table."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conntrack_info
short_description: Read entries of the connection tracking table
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Returns the entries of the kernel's connection tracking table that match, in the shape in which
    M(netops.conntrack.conntrack_entry) declares them.
  - With O(table=expect), returns the expectations that match, in the shape in which
    M(netops.conntrack.conntrack_expectation) declares them.
extends_documentation_fragment:
  - netops.conntrack._attributes
  - netops.conntrack._attributes.read_only
  - netops.conntrack._match
  - netops.conntrack._labels
options:
  table:
    description:
      - V(conntrack) is the table itself.
      - V(expect) are the expectations, connections that others have announced and that have not come yet. Of O(match)
        and O(except), the keys V(family), V(protocol), V(zone), V(helper), V(source), V(destination), V(address),
        V(source_port), V(destination_port), V(port), those of ICMP and GRE, V(timeout_below), V(timeout_above),
        V(master) and V(except) apply. They are about the expected tuple as it stands, in which an address or port of
        zero may stand for any, as its mask says. V(master) is about the connection that announced it.
      - V(dying) are entries that are gone but whose destroy event could not be delivered yet.
      - V(unconfirmed) are entries of packets still on their way. By design it is always empty since Linux 5.19.
    type: str
    choices: [conntrack, expect, dying, unconfirmed]
    default: conntrack
  sort_by:
    description:
      - Order the entries by this key, such as V(timeout), V(original.source), V(nat.source.address) or V(tcp.state), or
        by V(bytes) or V(packets) of both directions together. Entries without it come last. Expectations have keys
        such as V(tuple.destination) and V(master.source).
      - V(bytes), V(packets) and the keys of V(counters) need accounting, and those of V(timestamps) need timestamps,
        see O(netops.conntrack.conntrack_settings#module:accounting) and
        O(netops.conntrack.conntrack_settings#module:timestamps). If this is off, the task fails. Entries of connections
        that began before it was turned on come last.
      - Without it, the order is that of the kernel, which is none.
    type: str
  reverse:
    description:
      - Order from the largest to the smallest.
    type: bool
    default: false
  limit:
    description:
      - Return no more entries than this, the first in the order of O(sort_by).
      - Each entry that is returned takes some kilobytes on the target and on the controller; ask for tens of
        thousands only where that is meant.
    type: int
    default: 1000
seealso:
  - module: netops.conntrack.conntrack_expectation
  - module: netops.conntrack.conntrack_facts
  - module: netops.conntrack.conntrack_flush
"""

EXAMPLES = r"""
- name: Established connections to the database
  netops.conntrack.conntrack_info:
    match:
      destination: 10.20.0.5
      destination_port: postgresql
      state: established
  register: gathered
  become: true

- name: The ten flows that moved the most (needs accounting)
  netops.conntrack.conntrack_info:
    sort_by: bytes
    reverse: true
    limit: 10
  become: true

- name: How many flows of this mark are left, whatever they are
  netops.conntrack.conntrack_info:
    match:
      mark: 0x10/0xf0
    limit: 0
  register: marked
  failed_when: marked.matched > 0
  become: true

- name: What FTP sessions have announced
  netops.conntrack.conntrack_info:
    table: expect
    match:
      helper: ftp
  register: expected
  become: true

- name: The session behind each, for the tuple of a master is a match, too
  netops.conntrack.conntrack_info:
    match: "{{ item.master | combine({'zone': item.zone | default(0)}) }}"
  loop: "{{ expected.entries }}"
  register: masters
  become: true

- name: Connections that belong to another, which their key master names
  netops.conntrack.conntrack_info:
    match:
      expected: true
  become: true
"""

RETURN = r"""
entries:
  description:
    - The entries, or with O(table=expect) the expectations. A key that one lacks is unknown or unset.
    - Expectations have the shape of RV(netops.conntrack.conntrack_expectation#module:expectation).
  type: list
  elements: dict
  returned: always
  contains:
    family:
      description: V(ipv4) or V(ipv6).
      type: str
    protocol:
      description: The protocol's name, or its number where it has none here.
      type: raw
    zone:
      description: The zone of both directions, where it is not 0.
      type: int
    original:
      description: The tuple of the direction in which the connection began.
      type: dict
    reply:
      description: The tuple of the answers, as they come in.
      type: dict
    nat:
      description: What the source and the destination are translated to, where they are.
      type: dict
    timeout:
      description: Seconds left. Entries that are offloaded have none.
      type: int
    mark:
      description: The mark.
      type: int
    labels:
      description: The labels by their names, or by their numbers where these have no name.
      type: list
      elements: raw
    status:
      description: The status bits.
      type: list
      elements: str
    tcp:
      description: The state of a TCP connection, with window scale and flags of each direction.
      type: dict
    sctp:
      description: The state of an SCTP association, with its verification tags.
      type: dict
    dccp:
      description: The state of a DCCP connection.
      type: dict
    helper:
      description: The name of its helper.
      type: str
    master:
      description: The original tuple of the connection that it belongs to, or that has announced it.
      type: dict
    sequence_adjustment:
      description: By how much sequence numbers are shifted, by direction.
      type: dict
    synproxy:
      description: What SYNPROXY keeps of it.
      type: dict
    counters:
      description: Packets and bytes by direction, where accounting is on.
      type: dict
    timestamps:
      description: When it began, in ISO 8601 with nanoseconds, where timestamps are on.
      type: dict
    security_context:
      description: Its security context, where a security module gives it one.
      type: str
    id:
      description: The kernel's id of it.
      type: int
    use:
      description: The kernel's use count.
      type: int
    extra:
      description: Attributes that this version does not know, hexadecimal by their numbers.
      type: dict
  sample:
    - family: ipv4
      protocol: tcp
      original:
        source: 10.1.0.2
        destination: 192.0.2.80
        source_port: 40001
        destination_port: 443
      reply:
        source: 192.0.2.80
        destination: 198.51.100.1
        source_port: 443
        destination_port: 40001
      nat:
        source:
          address: 198.51.100.1
          port: 40001
      timeout: 431998
      mark: 0
      status: [seen_reply, assured, confirmed, src_nat, src_nat_done, dst_nat_done]
      id: 3327681709
      use: 1
matched:
  description: How many match in all.
  type: int
  returned: always
  sample: 1
truncated:
  description: Whether more match than are returned.
  type: bool
  returned: always
  sample: false
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.label_map import LABEL_MAP, labels_of
from ansible_collections.netops.conntrack.plugins.module_utils._argspec.match import MATCH, match_of
from ansible_collections.netops.conntrack.plugins.module_utils._module import NETNS, check_not_negative, run


def read(module: AnsibleModule) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils._operations.info import (
        TABLES,
        check_order,
        collect,
    )
    from ansible_collections.netops.conntrack.plugins.module_utils._operations.resource import resource_of
    from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

    params = module.params
    check_not_negative(module, "limit")
    labels = labels_of(module)
    resource = resource_of(params["table"])
    match = match_of(module, labels, resource.parse_match)
    check_order(params["sort_by"], resource)
    with Table() as table:
        entries = TABLES[params["table"]](table, match)
        return collect(entries, params["sort_by"], params["reverse"], params["limit"], labels, resource)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **MATCH,
            "table": {
                "type": "str",
                "choices": ["conntrack", "expect", "dying", "unconfirmed"],
                "default": "conntrack",
            },
            "sort_by": {"type": "str"},
            "reverse": {"type": "bool", "default": False},
            "limit": {"type": "int", "default": 1000},
            **LABEL_MAP,
            **NETNS,
        },
        supports_check_mode=True,
    )
    run(module, read, {"entries": [], "matched": 0, "truncated": False}, reads_only=True)


if __name__ == "__main__":
    main()
