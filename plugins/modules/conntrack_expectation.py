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
  - An expectation announces a connection that belongs to another one, its master, such as the data connection of FTP.
    When the connection comes, it is C(related), and its entry names the master.
  - Makes one expectation be there as declared, or not be there. It is found by its zone and its O(tuple), and by
    nothing else.
  - Only the keys that are declared are compared with an expectation that is there. The result is read back.
  - An expectation goes when its connection comes, when its time is over, and with its master. Declared again after
    that, it is created again.
  - A helper allows so many expectations for one connection and class, such as one with C(ftp). One more makes the
    kernel forget the oldest; the module warns of it and returns what went in RV(evicted).
extends_documentation_fragment:
  - netops.conntrack._attributes
  - netops.conntrack._attributes.changes
  - netops.conntrack._expectation
options:
  state:
    description:
      - Whether the expectation is to be there. An absent one is found by O(tuple) and O(zone) alone.
    type: str
    choices: [present, absent]
    default: present
  on_existing:
    description:
      - What to do where the expectation is there already and differs from what is declared.
      - V(update) changes it, V(keep) leaves it as it is, V(fail) fails.
    type: str
    choices: [update, keep, fail]
    default: update
  replace:
    description:
      - Delete the expectation and create it again where it differs in anything but its countdown, for the kernel can
        change nothing else in place. What is not declared is taken over from the old one.
      - Without it, the module fails and names the keys.
    type: bool
    default: false
  timeout_min:
    description:
      - Set the countdown to O(timeout) where fewer seconds than this remain. By default that is never done.
    type: int
    default: 0
seealso:
  - module: netops.conntrack.conntrack_info
    description: Reads expectations with O(netops.conntrack.conntrack_info#module:table=expect).
  - module: netops.conntrack.conntrack_flush
    description: Removes expectations with O(netops.conntrack.conntrack_flush#module:table=expect).
"""

EXAMPLES = r"""
- name: The server of this FTP session may connect to its client, from any port
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

- name: The same where the gateway has translated the client, so that the connection finds its way back
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

- name: Nothing is expected there
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
    - What was done, or would have been done in check mode.
  type: str
  returned: always
  sample: created
  choices: [created, updated, replaced, deleted, unchanged]
before:
  description:
    - The expectation as it was, empty if there was none.
  type: dict
  returned: always
expectation:
  description:
    - The expectation as it is now, read back from the kernel, or in check mode as it would be. Empty if there is none.
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
    - The keys that differed, each with its value before and after.
  type: list
  elements: dict
  returned: always
  contains:
    key:
      description: The key's path, such as C(mask.source_port).
      type: str
    before:
      description: The value it had, null if none.
      type: raw
    after:
      description: The value that was declared.
      type: raw
evicted:
  description:
    - The expectations of the same master and class that the kernel forgot to make room for this one. What it would
      forget is not known in check mode.
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
from ansible_collections.netops.conntrack.plugins.module_utils._module import NETNS, PRESENT, check_not_negative, run


def declare(module: AnsibleModule) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.expectation import reconcile
    from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.reconciler import Policy
    from ansible_collections.netops.conntrack.plugins.module_utils.client.expectation.expectation import from_document
    from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

    params = module.params
    check_not_negative(module, "timeout_min")
    declared = from_document(declared_expectation(params))
    policy = Policy(params["state"], params["on_existing"], params["replace"], params["timeout_min"])
    with Table() as table:
        result = reconcile(table, declared, policy, module.check_mode)
    if result["evicted"]:
        module.warn("The helper allows no more expectations, so the kernel forgot the oldest: see evicted")
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={**EXPECTATION, **PRESENT, **NETNS},
        supports_check_mode=True,
    )
    nothing_done = {"operation": "unchanged", "before": {}, "expectation": {}, "changes": [], "evicted": []}
    run(module, declare, nothing_done)


if __name__ == "__main__":
    main()
