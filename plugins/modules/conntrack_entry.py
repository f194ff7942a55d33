#!/usr/bin/python
# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declare one entry of the connection tracking table."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conntrack_entry
short_description: Declare one entry of the connection tracking table
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Creates, updates or deletes one entry of the connection tracking table.
  - The zone, the family, the protocol and the O(original) tuple identify the entry. With O(state=absent), the O(reply)
    tuple can identify it instead.
  - The module compares only declared keys with an existing entry, and sends only those that differ to the kernel. It
    then reads the entry back, and fails if the kernel did not apply a value.
extends_documentation_fragment:
  - netops.conntrack._attributes
  - netops.conntrack._attributes.changes
  - netops.conntrack._entry
  - netops.conntrack._labels
options:
  state:
    description:
      - Whether the entry must exist.
      - With V(absent), you can set O(reply) alone to identify the entry, even if the entry is NATed. C(conntrack -D
        --reply-src ...) does the same. If no entry has this reply tuple, the module deletes the entry whose original
        tuple is O(reply) with source and destination exchanged, if it exists.
    type: str
    choices: [present, absent]
    default: present
  on_existing:
    description:
      - Action if the entry exists and differs from its declaration.
      - V(update) changes the entry, V(keep) leaves it unchanged, V(fail) makes the task fail.
      - With V(update), the module also sets a declared C(tcp.state) on a live connection. To avoid this, use V(keep) or
        do not declare C(tcp.state).
    type: str
    choices: [update, keep, fail]
    default: update
  replace:
    description:
      - Whether to delete the entry and create it again if it differs in a key that the kernel cannot change in place.
        Such keys are NAT, the reply tuple, the master, a helper to attach, status bits that are set but not in
        O(status), and the timeout of an entry with V(fixed_timeout). Keys that are not declared are copied from the old
        entry.
      - This interrupts a live connection. Without this option, the module fails and names the keys.
      - If the module receives C(SIGTERM), C(SIGHUP) or C(SIGINT) after it has deleted the old entry, it creates the new
        entry before it ends. If the module cannot create the new entry, it creates the old entry again.
    type: bool
    default: false
  timeout_min:
    description:
      - Minimum remaining timeout in seconds. If less remains, the module sets the timeout of the entry to O(timeout).
        By default, the timeout of an existing entry is never set.
    type: int
    default: 0
seealso:
  - module: netops.conntrack.conntrack_flush
  - module: netops.conntrack.conntrack_info
"""

EXAMPLES = r"""
- name: Create the entry of a UDP flow before its first packet
  netops.conntrack.conntrack_entry:
    protocol: udp
    original:
      source: 10.1.0.2
      destination: 192.0.2.53
      source_port: 40000
      destination_port: 53
    timeout: 600
    mark: 0x10
  become: true

- name: Create the entry of a TCP connection with source NAT that another gateway has tracked
  netops.conntrack.conntrack_entry:
    protocol: tcp
    original:
      source: 10.1.0.2
      destination: 192.0.2.80
      source_port: 40001
      destination_port: 443
    nat:
      source:
        address: 198.51.100.1
        port: 40001
    status: [seen_reply, assured]
    tcp:
      state: established
    timeout: 3600
    on_existing: keep
  become: true

- name: Delete the entry of a connection in zone 5
  netops.conntrack.conntrack_entry:
    state: absent
    protocol: tcp
    zone: 5
    original:
      source: 2001:db8::2
      destination: 2001:db8::80
      source_port: 40002
      destination_port: 443
  become: true

- name: Delete the entry of a NATed flow by its reply tuple
  netops.conntrack.conntrack_entry:
    state: absent
    protocol: udp
    reply:
      source: 198.51.100.8
      destination: 192.0.2.1
      source_port: 53
      destination_port: 4000
  become: true

- name: Create the entries that were read on another gateway
  netops.conntrack.conntrack_entry:
    protocol: "{{ item.protocol }}"
    zone: "{{ item.zone | default(0) }}"
    original: "{{ item.original }}"
    reply: "{{ item.reply }}"
    nat: "{{ item.nat | default(omit) }}"
    status: "{{ item.status }}"
    tcp: "{{ item.tcp | default(omit) }}"
    mark: "{{ item.mark }}"
    timeout: "{{ item.timeout | default(omit) }}"
    on_existing: keep
  loop: "{{ hostvars['gateway-a'].gathered.entries }}"
  become: true
"""

RETURN = r"""
operation:
  description:
    - The change that was made. In check mode, the prediction.
  type: str
  returned: always
  sample: updated
  choices: [created, updated, replaced, deleted, unchanged]
before:
  description:
    - The entry before the change. Empty if there was none.
  type: dict
  returned: always
  sample:
    family: ipv4
    protocol: udp
    original: {source: 10.1.0.2, destination: 192.0.2.53, source_port: 40000, destination_port: 53}
    reply: {source: 192.0.2.53, destination: 10.1.0.2, source_port: 53, destination_port: 40000}
    status: [confirmed]
    timeout: 600
    mark: 0
    id: 3327681709
    use: 2
entry:
  description:
    - The entry after the change, read back from the kernel. In check mode, the prediction. Empty if there is none.
  type: dict
  returned: always
  sample:
    family: ipv4
    protocol: udp
    original:
      source: 10.1.0.2
      destination: 192.0.2.53
      source_port: 40000
      destination_port: 53
    reply:
      source: 192.0.2.53
      destination: 10.1.0.2
      source_port: 53
      destination_port: 40000
    status: [confirmed]
    timeout: 600
    mark: 16
    id: 3327681709
    use: 2
changes:
  description:
    - The keys that differed, each with its values before and after the change.
  type: list
  elements: dict
  returned: always
  contains:
    key:
      description: Path of the key, such as C(tcp.state).
      type: str
      sample: mark
    before:
      description: The previous value. Null if there was none.
      type: raw
      sample: 0
    after:
      description: The declared value.
      type: raw
      sample: 16
  sample:
    - {key: mark, before: 0, after: 16}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.entry import ENTRY, declared_entry
from ansible_collections.netops.conntrack.plugins.module_utils._module import PRESENT, TABLE, check_numbers, run


def declare(module: AnsibleModule) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.entry import reconcile
    from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.reconciler import Policy
    from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
    from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
    from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

    params = module.params
    check_numbers(module, "timeout_min")
    labels = LabelMap.read(params["label_map"])
    declared = from_document(declared_entry(params), labels, params["state"] == "absent")
    policy = Policy.of(params)
    with Table() as table:
        return reconcile(table, declared, policy, labels, module.check_mode)


def main() -> None:
    module = AnsibleModule(
        argument_spec={**ENTRY, **PRESENT, **TABLE},
        required_one_of=[("original", "reply")],
        supports_check_mode=True,
    )
    run(module, declare, {"operation": "unchanged", "before": {}, "entry": {}, "changes": []})


if __name__ == "__main__":
    main()
