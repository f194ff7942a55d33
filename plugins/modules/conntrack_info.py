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
  - Returns matching entries of the connection tracking table, in the format in which
    M(netops.conntrack.conntrack_entry) declares them.
  - With O(table=expect), returns matching expectations, in the format in which
    M(netops.conntrack.conntrack_expectation) declares them.
extends_documentation_fragment:
  - netops.conntrack._netns
  - netops.conntrack._attributes
  - netops.conntrack._attributes.read_only
  - netops.conntrack._match
  - netops.conntrack._labels
  - netops.conntrack._stale
  - netops.conntrack._ruleset
options:
  table:
    description:
      - V(conntrack) is the table of connections.
      - V(expect) is the table of expectations. An expectation is the announcement of a connection that has not begun.
      - With V(expect), O(match) and O(except) accept only the keys V(family), V(protocol), V(zone), V(helper),
        V(source), V(destination), V(address), V(source_port), V(destination_port), V(port), those of ICMP and GRE,
        V(timeout_below), V(timeout_above), V(master) and V(except). V(master) is compared with the connection that
        announced the expectation. Addresses, ports and the keys of ICMP and GRE are compared only with the expected
        tuple, not with its mask. If a helper expects any source address or port, the value in the tuple is 0. A match
        with another source address or port does not select such an expectation.
      - V(dying) contains deleted entries whose destroy event has not been delivered yet.
      - V(unconfirmed) contains entries of packets that are still traversing the network stack. Since Linux 5.19, it is
        always empty by design.
    type: str
    choices: [conntrack, expect, dying, unconfirmed]
    default: conntrack
  sort_by:
    description:
      - Key to sort the entries by, such as V(timeout), V(original.source), V(nat.source.address) or V(tcp.state).
        V(bytes) and V(packets) are the sums of both directions. Entries without the key come last. Expectations have
        keys such as V(tuple.destination) and V(master.source).
      - V(bytes), V(packets) and the keys of V(counters) need accounting, and those of V(timestamps) need timestamps.
        See O(netops.conntrack.conntrack_settings#module:accounting) and
        O(netops.conntrack.conntrack_settings#module:timestamps). If the setting is off, the task fails. Entries of
        connections that began before it was turned on come last.
      - By default, the entries have the order of the kernel, which is arbitrary.
    type: str
  reverse:
    description:
      - Whether to sort in descending order.
    type: bool
    default: false
  limit:
    description:
      - Maximum number of entries to return. These are the first entries in the order of O(sort_by). With several
        namespaces in O(netns), the limit applies to each namespace.
      - Each returned entry takes some kilobytes of memory on the target and on the controller. Return tens of thousands
        only if you need them.
    type: int
    default: 1000
  group_by:
    description:
      - Keys by which to group the entries. The module returns RV(groups) instead of entries. All entries of a group
        have the same values for these keys. For each group, the module returns the number of flows and, with
        accounting, their bytes and packets.
      - The keys are V(family), V(protocol), V(source), V(destination), V(reply_source), V(reply_destination),
        V(source_port), V(destination_port), V(reply_source_port), V(reply_destination_port), V(icmp_type),
        V(icmp_code), V(icmp_id), V(source_key), V(destination_key), V(state), V(zone), V(original_zone), V(reply_zone),
        V(mark), V(status), V(nat), V(expected), V(helper) and V(labels). They have the same meaning as in O(match).
        RV(groups) describes the format of the values and the exceptions.
      - A prefix length after an address groups by network. V(source/24) means IPv4 networks of 24 bits and IPv6
        networks of 64 bits, V(source/24/56) also sets the length for IPv6. V(mark/0xff) groups by some bits of the
        mark.
      - The module returns the largest groups, up to O(limit), and the largest come first. O(sort_by) can be V(flows),
        V(bytes) or V(packets). The default is V(flows).
      - With O(interval), O(sort_by) can also be V(bytes_per_second) or V(packets_per_second). The default is then
        V(bytes_per_second).
      - The numbers are exact for up to 65,536 groups, see RV(uncertainty).
    type: list
    elements: str
  interval:
    description:
      - Number of seconds between two readings of the table. The module returns the bytes and packets per second of each
        entry during this time. With O(group_by), it returns those of each group. The option needs accounting.
      - O(sort_by) can be V(bytes_per_second) or V(packets_per_second), which are the sums of both directions. By
        default, the entries with the most bytes per second come first.
      - If an entry began during the interval, all its bytes and packets count. Entries that ended during the interval
        do not count.
      - On the target, the module needs about 300 bytes of memory for each entry whose family, zone, protocol, addresses
        and ports match. This includes entries that do not match other keys, such as V(state), because they may match
        later.
    type: int
  owner:
    description:
      - Whether to return the owner of each entry, which is its process, user, systemd unit and container. See
        RV(entries[].owner).
      - The module searches for the sockets of the returned entries in the network namespace of the task. If a flow is
        routed to another network namespace of the host, such as that of a container, the module also searches there.
      - Processes of other users and other network namespaces are visible only to root.
    type: bool
    default: false
seealso:
  - module: netops.conntrack.conntrack_expectation
  - module: netops.conntrack.conntrack_facts
  - module: netops.conntrack.conntrack_flush
"""

EXAMPLES = r"""
- name: Read established connections to the database
  netops.conntrack.conntrack_info:
    match:
      destination: 10.20.0.5
      destination_port: postgresql
      state: established
  register: gathered
  become: true

- name: Read the ten flows with the most bytes (needs accounting)
  netops.conntrack.conntrack_info:
    sort_by: bytes
    reverse: true
    limit: 10
  become: true

- name: Read the process or container of each connection to the database
  netops.conntrack.conntrack_info:
    match:
      destination_port: postgresql
    owner: true
  become: true

- name: Fail if there are entries with a mark
  netops.conntrack.conntrack_info:
    match:
      mark: 0x10/0xf0
    limit: 0
  register: marked
  failed_when: marked.matched > 0
  become: true

- name: Read the expectations of FTP sessions
  netops.conntrack.conntrack_info:
    table: expect
    match:
      helper: ftp
  register: expected
  become: true

- name: Read the master of each expectation by its tuple
  netops.conntrack.conntrack_info:
    match: "{{ item.master | combine({'zone': item.zone | default(0)}) }}"
  loop: "{{ expected.entries }}"
  register: masters
  become: true

- name: Read the connections that the current rules would refuse, and the rule that refuses each
  netops.conntrack.conntrack_info:
    stale: [refused]
  register: stale
  become: true

- name: Read the connections that a ruleset on the controller would affect if it were loaded
  netops.conntrack.conntrack_info:
    stale: true
    ruleset: gateway.nft
  register: stale
  become: true

- name: Read which networks have the most flows, and in which state
  netops.conntrack.conntrack_info:
    group_by: [source/24, state]
    limit: 10
  register: networks
  become: true

- name: Read the clients with the highest rates, measured for five seconds (needs accounting)
  netops.conntrack.conntrack_info:
    group_by: [source]
    interval: 5
    limit: 10
  register: clients
  become: true

- name: Read the ten flows with the most bytes of each container and namespace of the host
  netops.conntrack.conntrack_info:
    netns: all
    sort_by: bytes
    reverse: true
    limit: 10
  become: true

- name: Read connections that have a master
  netops.conntrack.conntrack_info:
    match:
      expected: true
  become: true
"""

RETURN = r"""
entries:
  description:
    - The entries, or with O(table=expect) the expectations. A missing key means that the value is unknown or not set.
    - Expectations have the format of RV(netops.conntrack.conntrack_expectation#module:expectation).
  type: list
  elements: dict
  returned: always
  contains:
    family:
      description: V(ipv4) or V(ipv6).
      type: str
      sample: ipv4
    protocol:
      description: Name of the protocol, or its number if this collection has no name for the protocol.
      type: raw
      sample: tcp
    zone:
      description: Zone of both directions, if it is not 0.
      type: int
      sample: 5
    original:
      description: Tuple of the direction in which the connection began.
      type: dict
      sample: {source: 10.1.0.2, destination: 192.0.2.80, source_port: 40001, destination_port: 443}
    reply:
      description: Tuple of the reply packets as they arrive. With NAT, it contains the translated addresses.
      type: dict
      sample: {source: 192.0.2.80, destination: 198.51.100.1, source_port: 443, destination_port: 40001}
    nat:
      description: Addresses and ports of source NAT and destination NAT.
      type: dict
      sample: {source: {address: 198.51.100.1, port: 40001}}
    timeout:
      description: Remaining timeout in seconds. Offloaded entries have none.
      type: int
      sample: 431998
    mark:
      description: Connection mark.
      type: int
      sample: 16
    labels:
      description: Names of the labels, or their numbers if they have no name.
      type: list
      elements: raw
      sample: [customer]
    status:
      description: Status bits.
      type: list
      elements: str
      sample: [seen_reply, assured, confirmed, src_nat, src_nat_done, dst_nat_done]
    tcp:
      description: State of a TCP connection, with window scale and flags of each direction.
      type: dict
      sample:
        state: established
        original: {window_scale: 7, flags: [window_scale, sack_permitted]}
        reply: {window_scale: 7, flags: [window_scale, sack_permitted]}
    sctp:
      description: State of an SCTP association, with its verification tags.
      type: dict
      sample: {state: established, original_vtag: 305419896, reply_vtag: 2271560481}
    dccp:
      description: State of a DCCP connection.
      type: dict
      sample: {state: open, role: client, handshake_sequence: 7}
    helper:
      description: Name of the helper.
      type: str
      sample: ftp
    master:
      description: Original tuple of the connection that this one belongs to, or that announced the expectation.
      type: dict
      sample: {protocol: tcp, source: 10.1.0.2, destination: 192.0.2.21, source_port: 40000, destination_port: 21}
    sequence_adjustment:
      description: Shift of sequence numbers, by direction.
      type: dict
      sample:
        original: {position: 1000, before: 0, after: 4}
        reply: {position: 2000, before: 0, after: -4}
    synproxy:
      description: SYNPROXY data of the connection.
      type: dict
      sample: {isn: 305419896, its: 2271560481, tsoff: 19088743}
    counters:
      description: Packets and bytes by direction, if accounting is on.
      type: dict
      sample:
        original: {packets: 120, bytes: 9600}
        reply: {packets: 110, bytes: 164000}
    timestamps:
      description: When the connection began, in ISO 8601 with nanoseconds, if timestamps are on.
      type: dict
      sample: {start: "2030-01-31T12:00:00.515643903Z"}
    security_context:
      description: Security context, if a security module sets one.
      type: str
      sample: system_u:object_r:unlabeled_t:s0
    rate:
      description: Bytes and packets per second by direction. Only with O(interval).
      type: dict
      sample: {original: {bytes: 1250.4, packets: 11.2}, reply: {bytes: 98211.0, packets: 70.1}}
    verdict:
      description: V(nat_changed), V(refused) or V(untracked), see O(stale). Only with O(stale).
      type: str
      sample: nat_changed
    expected:
      description:
        - NAT of the connection according to the current rules, or with O(ruleset) according to the rules of the file.
          The format is that of C(nat). Empty if the rules would not translate the connection. Null with the verdicts
          V(refused) and V(untracked), and for connections that have a master. Only with O(stale).
        - This key has nothing to do with V(expected) in O(match).
      type: dict
      sample: {source: {address: 198.51.100.2, port: 40001}}
    rule:
      description:
        - The rule that leads to the verdict, with C(family), C(table), C(chain), C(handle) and C(comment). C(handle) is
          0 for the policy of a chain. The value is null if no rule leads to the verdict, for example because a route is
          missing. Only with O(stale).
      type: dict
      sample: {family: ip, table: nat, chain: postrouting, handle: 4, comment: to the internet}
    owner:
      description:
        - Owner of the socket of the flow on this host. If both ends of the flow are on this host, this is the owner of
          the end that began the connection. Only with O(owner).
        - Null if no such socket is found. For example, the flow passes through this host, the process has closed the
          connection, the protocol is neither TCP nor UDP, or the network namespace cannot be entered.
        - Unknown values are null, for example for a socket of the kernel. Without root, the values are also unknown for
          a socket of another user's process.
      type: dict
      contains:
        process:
          description: Name of the process, up to 15 characters.
          type: str
          sample: postgres
        pid:
          description: ID of the process. If several processes have the socket, this is the process that started first.
            Process 1 is returned only if no other process has the socket.
          type: int
          sample: 4711
        user:
          description: Effective user of the process, by its name on this host, or its number if it has no name.
          type: str
          sample: postgres
        unit:
          description: The systemd unit of the process, derived from its control group. Only units of the host's systemd
            are returned, not those of the systemd of a user or a container.
          type: str
          sample: postgresql.service
        container:
          description: ID of the container (Docker, Podman, containerd or CRI-O), or its name (LXC or systemd-nspawn),
            derived from the control group of the process.
          type: str
          sample: 8b3f0f1c2d4e5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1
      sample: {process: postgres, pid: 4711, user: postgres, unit: postgresql.service, container: null}
    id:
      description: ID of the entry in the kernel.
      type: int
      sample: 3327681709
    use:
      description: Use count in the kernel.
      type: int
      sample: 1
    extra:
      description: Attributes that this version of the collection does not know, by number, in hexadecimal.
      type: dict
      sample: {"99": "010203"}
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
      mark: 16
      status: [seen_reply, assured, confirmed, src_nat, src_nat_done, dst_nat_done]
      tcp:
        state: established
        original: {window_scale: 7, flags: [window_scale, sack_permitted]}
        reply: {window_scale: 7, flags: [window_scale, sack_permitted]}
      id: 3327681709
      use: 1
groups:
  description:
    - The largest groups, each with the keys of O(group_by) and with C(flows). If any entry has counters, the groups
      also have C(bytes) and C(packets). With O(interval), they also have C(bytes_per_second) and C(packets_per_second).
      These four are the sums of both directions.
    - Values have the format of O(match), with these exceptions. C(state), ports, and the keys of ICMP and GRE are null
      for entries whose protocol does not have them. C(status) and C(labels) are lists of all bits that the entries
      have. C(nat) is V(source), V(destination), V(both) or V(none). C(zone) is the zone of the entries, even if it
      applies to only one direction.
  type: list
  elements: dict
  returned: with O(group_by)
  sample:
    - {source: 10.1.0.0/24, state: established, flows: 812, bytes: 1838271, packets: 2204}
other:
  description: The sums of all groups that RV(groups) does not contain.
  type: dict
  returned: with O(group_by), if there are such groups
  sample: {flows: 17, bytes: 8221, packets: 40}
uncertainty:
  description:
    - Returned if there were more groups than can be counted exactly. Each number in RV(groups) can then be too low by
      up to the number with the same name in this dictionary. A group whose true number is higher than that is missing
      only because of O(limit).
  type: dict
  returned: with O(group_by), if a number is not exact
  sample: {flows: 3}
verdicts:
  description: Number of matching entries by verdict. Only with O(stale).
  type: dict
  returned: with O(stale)
  sample: {unchanged: 18190, nat_changed: 12, refused: 31, untracked: 0, uncertain: 0}
matched:
  description: Number of all matching entries.
  type: int
  returned: always
  sample: 1
truncated:
  description: Whether more entries match than are returned. With O(group_by), whether there are more groups.
  type: bool
  returned: always
  sample: false
namespaces:
  description:
    - A list with an item for each namespace. An item has C(netns), C(processes), and the RV(entries), RV(matched) and
      RV(truncated) of this namespace. If the namespace could not be read, the item has C(msg) instead.
    - RV(matched), RV(truncated) and RV(verdicts) outside this list apply to all namespaces together. RV(entries) is
      only in the list.
  type: list
  elements: dict
  returned: with several namespaces in O(netns)
  sample:
    - netns: blue
      processes: []
      entries: []
      matched: 0
      truncated: false
    - netns: /proc/4711/ns/net
      processes:
        - pid: 4711
          name: nginx
      entries: []
      matched: 0
      truncated: false
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.match import (
    MATCH,
    RULESET,
    STALE,
    match_of,
    ruleset_of,
    stale_of,
)
from ansible_collections.netops.conntrack.plugins.module_utils._module import (
    NAMESPACES,
    TABLE,
    check_numbers,
    run,
)


def read(module: AnsibleModule) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils._operations.info import TABLES, check_order, collect
    from ansible_collections.netops.conntrack.plugins.module_utils._operations.resource import resource_of
    from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
    from ansible_collections.netops.conntrack.plugins.module_utils.client.table_reader import TableReader

    params = module.params
    check_numbers(module, "limit")
    labels = LabelMap.read(params["label_map"])
    resource = resource_of(params["table"])
    match = match_of(module, labels, resource.parse_match)
    stale = stale_of(module)
    ruleset = ruleset_of(module, bool(stale), "stale")
    if params["interval"] is not None:
        check_numbers(module, "interval")
    if params["interval"] is not None or params["group_by"] is not None:
        from ansible_collections.netops.conntrack.plugins.module_utils._operations.traffic import read_traffic

        return read_traffic(params, match, labels, stale, ruleset)
    check_order(params["sort_by"], resource)
    if params["owner"]:
        from ansible_collections.netops.conntrack.plugins.module_utils._operations.owner import with_owners

        resource = with_owners(resource)
    order = params["sort_by"], params["reverse"], params["limit"]
    with TableReader() as table:
        if stale:
            from ansible_collections.netops.conntrack.plugins.module_utils._operations.stale import (
                JUDGED_ENTRIES,
                StaleFilter,
            )

            with StaleFilter(table, stale, ruleset) as judge:
                judged = with_owners(JUDGED_ENTRIES) if params["owner"] else JUDGED_ENTRIES
                found = collect(judge.scan(match), *order, labels, judged)
            return {**found, "verdicts": judge.counts(), "warnings": judge.warnings()}
        return collect(TABLES[params["table"]](table, match), *order, labels, resource)


def read_each(*work: Any) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils._operations.namespaces import run_in_each

    return run_in_each(*work)


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
            "group_by": {"type": "list", "elements": "str"},
            "interval": {"type": "int"},
            "owner": {"type": "bool", "default": False},
            **STALE,
            **RULESET,
            **TABLE,
            **NAMESPACES,
        },
        supports_check_mode=True,
    )
    run(module, read, {"entries": [], "matched": 0, "truncated": False}, reads_only=True, in_each=read_each)


if __name__ == "__main__":
    main()
