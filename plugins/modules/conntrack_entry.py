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
  - Makes one entry of the kernel's connection tracking table be there as declared, or not be there.
  - An entry is found by its zone, family, protocol and O(original) tuple, and by nothing else.
  - Only the keys that are declared are compared with an entry that is there, and only those that differ are sent
    to the kernel. The result is read back; what the kernel did not take makes the module fail.
extends_documentation_fragment:
  - netops.conntrack._attributes
  - netops.conntrack._attributes.changes
  - netops.conntrack._entry
  - netops.conntrack._labels
options:
  state:
    description:
      - Whether the entry is to be there.
      - With V(absent), O(reply) alone names the entry also if it is NATed, as C(conntrack -D --reply-src ...) does. If
        no entry has this reply tuple, the module looks for the original tuple that follows from it without NAT.
    type: str
    choices: [present, absent]
    default: present
  on_existing:
    description:
      - What to do where the entry is there already and differs from what is declared.
      - V(update) changes it, V(keep) leaves it as it is, V(fail) fails.
      - A declared C(tcp.state) is set on a live connection too; use V(keep) or leave it out where that is not wanted.
    type: str
    choices: [update, keep, fail]
    default: update
  replace:
    description:
      - Delete the entry and create it again where it differs in what the kernel cannot change in place, namely
        address translation, reply tuple, master, helper, and status bits that are to be cleared. What is not
        declared is taken over from the old entry.
      - This interrupts a live connection, so without it the module fails and names the keys.
      - If the module receives C(SIGTERM), C(SIGHUP) or C(SIGINT) after it has deleted the old entry, it first creates
        the new one, or the old one again, and then ends.
    type: bool
    default: false
  timeout_min:
    description:
      - Set the countdown to O(timeout) where fewer seconds than this remain. By default that is never done.
    type: int
    default: 0
seealso:
  - module: netops.conntrack.conntrack_flush
  - module: netops.conntrack.conntrack_info
"""

EXAMPLES = r"""
- name: A UDP flow that is let through although no packet has been seen yet
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

- name: A TCP connection with its source translated, as it was on another gateway
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

- name: No entry for this connection in zone 5
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

- name: Delete the entry of a NATed flow that was captured outside of the gateway
  netops.conntrack.conntrack_entry:
    state: absent
    protocol: udp
    reply:
      source: 198.51.100.8
      destination: 192.0.2.1
      source_port: 53
      destination_port: 4000
  become: true

- name: The entries that were read on another gateway
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
    - What was done, or would have been done in check mode.
  type: str
  returned: always
  sample: created
  choices: [created, updated, replaced, deleted, unchanged]
before:
  description:
    - The entry as it was, empty if there was none.
  type: dict
  returned: always
entry:
  description:
    - The entry as it is now, read back from the kernel, or in check mode as it would be. Empty if there is none.
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
    use: 1
changes:
  description:
    - The keys that differed, each with its value before and after.
  type: list
  elements: dict
  returned: always
  contains:
    key:
      description: The key's path, such as C(tcp.state).
      type: str
    before:
      description: The value it had, null if none.
      type: raw
    after:
      description: The value that was declared.
      type: raw
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.entry import ENTRY, declared_entry
from ansible_collections.netops.conntrack.plugins.module_utils._argspec.label_map import LABEL_MAP, labels_of
from ansible_collections.netops.conntrack.plugins.module_utils._module import NETNS, PRESENT, check_not_negative, run


def declare(module: AnsibleModule) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.entry import reconcile
    from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.reconciler import Policy
    from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
    from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

    params = module.params
    check_not_negative(module, "timeout_min")
    labels = labels_of(module)
    declared = from_document(declared_entry(params), labels, params["state"] == "absent")
    policy = Policy(params["state"], params["on_existing"], params["replace"], params["timeout_min"])
    with Table() as table:
        return reconcile(table, declared, policy, labels, module.check_mode)


def main() -> None:
    module = AnsibleModule(
        argument_spec={**ENTRY, **PRESENT, **LABEL_MAP, **NETNS},
        required_one_of=[("original", "reply")],
        supports_check_mode=True,
    )
    run(module, declare, {"operation": "unchanged", "before": {}, "entry": {}, "changes": []})


if __name__ == "__main__":
    main()
