#!/usr/bin/python
# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declare one expectation of the connection tracking table."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conntrack_expectation
short_description: Declare one expectation of the connection tracking table
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Creates, updates or deletes one expectation. An expectation announces a connection that belongs to another
    connection, its master. For example, an FTP data connection belongs to a control connection. When the expected
    connection begins, its first packet has the state C(related) in firewall rules, and its entry contains the original
    tuple of the master.
  - The zone and the O(tuple) identify the expectation. No other key does.
  - The module compares only declared keys with an existing expectation. After a change, it reads the expectation back.
  - The kernel removes an expectation when its connection begins, when it expires, and when its master ends. If you
    declare it again afterwards, the module creates it again.
  - A helper limits the number of expectations for one connection and O(class). The helper C(ftp) allows one. If you
    create another expectation, the kernel removes the oldest. The module then warns, and returns the removed
    expectations in RV(evicted).
extends_documentation_fragment:
  - netops.conntrack._attributes
  - netops.conntrack._attributes.changes
  - netops.conntrack._expectation
options:
  state:
    description:
      - Whether the expectation must exist. With V(absent), O(tuple) and O(zone) alone identify it.
    type: str
    choices: [present, absent]
    default: present
  on_existing:
    description:
      - Action if the expectation exists and differs from its declaration.
      - V(update) changes the expectation, V(keep) leaves it unchanged, V(fail) makes the task fail.
    type: str
    choices: [update, keep, fail]
    default: update
  replace:
    description:
      - Whether to delete the expectation and create it again if it differs in anything but its timeout. The kernel can
        change nothing else in place. Keys that are not declared are copied from the old expectation.
      - Without this option, the module fails and names the keys.
    type: bool
    default: false
  timeout_min:
    description:
      - Minimum remaining timeout in seconds. If less remains, the module sets the timeout of the expectation to
        O(timeout). By default, the timeout of an existing expectation is never set.
    type: int
    default: 0
seealso:
  - module: netops.conntrack.conntrack_info
    description: Reads expectations with O(netops.conntrack.conntrack_info#module:table=expect).
  - module: netops.conntrack.conntrack_flush
    description: Removes expectations with O(netops.conntrack.conntrack_flush#module:table=expect).
"""

EXAMPLES = r"""
- name: Expect the data connection of an FTP session, from any source port
  netops.conntrack.conntrack_expectation:
    master:
      source: 10.1.0.2
      destination: 192.0.2.21
      source_port: 40000
      destination_port: 21
    tuple:
      protocol: tcp
      source: 192.0.2.21
      destination: 10.1.0.2
      destination_port: 40001
    timeout: 60
  become: true

- name: Expect the data connection of an FTP session whose client is behind source NAT
  netops.conntrack.conntrack_expectation:
    master:
      source: 10.1.0.2
      destination: 192.0.2.21
      source_port: 40000
      destination_port: 21
    tuple:
      protocol: tcp
      source: 192.0.2.21
      destination: 198.51.100.1
      destination_port: 40001
    function: nat-follow-master
    nat:
      direction: reply
      tuple:
        source_port: 40001
  become: true

- name: Delete the expectation
  netops.conntrack.conntrack_expectation:
    state: absent
    tuple:
      protocol: tcp
      source: 192.0.2.21
      destination: 10.1.0.2
      destination_port: 40001
  become: true
"""

RETURN = r"""
operation:
  description:
    - The change that was made. In check mode, the prediction.
  type: str
  returned: always
  sample: replaced
  choices: [created, updated, replaced, deleted, unchanged]
before:
  description:
    - The expectation before the change. Empty if there was none.
  type: dict
  returned: always
  sample:
    family: ipv4
    tuple: {protocol: tcp, source: 192.0.2.21, destination: 10.1.0.2, source_port: 20, destination_port: 40001}
    mask:
      protocol: tcp
      source: 255.255.255.255
      destination: 255.255.255.255
      source_port: 65535
      destination_port: 65535
    master: {protocol: tcp, source: 10.1.0.2, destination: 192.0.2.21, source_port: 40000, destination_port: 21}
    class: 0
    flags: []
    timeout: 52
    helper: ftp
    id: 4094997434
expectation:
  description:
    - The expectation after the change, read back from the kernel. In check mode, the prediction. Empty if there is
      none.
  type: dict
  returned: always
  sample:
    family: ipv4
    tuple: {protocol: tcp, source: 192.0.2.21, destination: 10.1.0.2, source_port: 0, destination_port: 40001}
    mask:
      protocol: tcp
      source: 255.255.255.255
      destination: 255.255.255.255
      source_port: 0
      destination_port: 65535
    master: {protocol: tcp, source: 10.1.0.2, destination: 192.0.2.21, source_port: 40000, destination_port: 21}
    class: 0
    flags: []
    timeout: 60
    helper: ftp
    id: 1783611125
changes:
  description:
    - The keys that differed, each with its values before and after the change.
  type: list
  elements: dict
  returned: always
  contains:
    key:
      description: Path of the key, such as C(mask.source_port).
      type: str
      sample: mask.source_port
    before:
      description: The previous value. Null if there was none.
      type: raw
      sample: 65535
    after:
      description: The declared value.
      type: raw
      sample: 0
  sample:
    - {key: mask.source_port, before: 65535, after: 0}
evicted:
  description:
    - The expectations of the same master and class that the kernel removed to make room for this one. Check mode cannot
      predict them.
  type: list
  elements: dict
  returned: always
  sample: []
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.expectation import (
    EXPECTATION,
    declared_expectation,
)
from ansible_collections.netops.conntrack.plugins.module_utils._module import NETNS, PRESENT, check_numbers, run


def declare(module: AnsibleModule) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.expectation import EVICTED, reconcile
    from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.reconciler import Policy
    from ansible_collections.netops.conntrack.plugins.module_utils.client.expectation.expectation import from_document
    from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

    params = module.params
    check_numbers(module, "timeout_min")
    declared = from_document(declared_expectation(params))
    policy = Policy.of(params)
    with Table() as table:
        result = reconcile(table, declared, policy, module.check_mode)
    return {**result, "warnings": [EVICTED] if result["evicted"] else []}


def main() -> None:
    module = AnsibleModule(argument_spec={**EXPECTATION, **PRESENT, **NETNS}, supports_check_mode=True)
    nothing_done = {"operation": "unchanged", "before": {}, "expectation": {}, "changes": [], "evicted": []}
    run(module, declare, nothing_done)


if __name__ == "__main__":
    main()
