#!/usr/bin/python
# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declare a timeout policy, or the default timeouts of a protocol."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conntrack_timeout_policy
short_description: Declare a timeout policy of connection tracking
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Makes a named timeout policy be there as declared, or not be there. A policy says how many seconds a connection may
    stay in each state of its protocol. A rule gives it to connections, such as C(-j CT --timeout NAME) in the table
    C(raw) of iptables.
  - With O(default) instead of O(name), sets the timeouts that count for all other connections of a protocol. They are
    the same that O(netops.conntrack.conntrack_settings#module:timeouts) names by their files.
  - A policy is changed in place, also while rules use it. Connections that are there already take the new timeout up
    with their next packet.
  - Policies and defaults last until the next boot. Declare policies before the firewall's rules are loaded.
extends_documentation_fragment:
  - netops.conntrack._attributes
  - netops.conntrack._attributes.changes
options:
  name:
    description:
      - The policy's name, of at most 31 bytes. One of O(name) and O(default) must be given.
    type: str
  default:
    description:
      - Set the protocol's default timeouts, in both families.
    type: bool
    default: false
  family:
    description:
      - The family of the connections for which the policy is. Required for a policy that is to be there, and without
        meaning for defaults.
    type: str
    choices: [ipv4, ipv6]
  protocol:
    description:
      - The protocol of the connections for which the policy is, by name or number. V(generic) (255) stands for every
        protocol that the kernel does not track by itself. Required unless O(state=absent).
    type: str
  timeouts:
    description:
      - The seconds by state. States that are left out are neither compared nor changed; in a new policy, they have the
        protocol's default timeouts of that moment. Required unless O(state=absent).
      - For V(tcp), V(syn_sent), V(syn_recv), V(established), V(fin_wait), V(close_wait), V(last_ack), V(time_wait),
        V(close), V(syn_sent2), V(retrans) (the limit of retransmissions was reached) and V(unacknowledged).
      - For V(udp), V(udplite) and V(gre), V(unreplied) and V(replied). V(udplite) shares its defaults with V(udp).
      - For V(icmp), V(icmpv6) and V(generic), V(timeout).
      - For V(sctp), V(closed), V(cookie_wait), V(cookie_echoed), V(established), V(shutdown_sent), V(shutdown_recd),
        V(shutdown_ack_sent), V(heartbeat_sent) and V(heartbeat_acked).
      - For V(dccp), V(request), V(respond), V(partopen), V(open), V(closereq), V(closing) and V(timewait). Linux 6.17
        and newer do not track it.
    type: dict
  state:
    description:
      - Whether the policy is to be there. An absent one is found by its name alone; one that a rule uses is not
        deleted, and the module fails.
    type: str
    choices: [present, absent]
    default: present
  replace:
    description:
      - Delete the policy and create it again where it is of another family or protocol than declared. Without it, or
        while a rule uses the policy, the module fails.
    type: bool
    default: false
  use:
    description:
      - As it is gathered. Accepted and ignored.
    type: int
seealso:
  - module: netops.conntrack.conntrack_settings
  - module: netops.conntrack.conntrack_facts
    description: Returns the policies that are there.
"""

EXAMPLES = r"""
- name: Short timeouts for a service with many short connections
  netops.conntrack.conntrack_timeout_policy:
    name: web
    family: ipv4
    protocol: tcp
    timeouts:
      established: 3600
      time_wait: 10
      close_wait: 10
  become: true

- name: DNS answers are there soon, or never
  netops.conntrack.conntrack_timeout_policy:
    default: true
    protocol: udp
    timeouts:
      unreplied: 10
  become: true

- name: No such policy any more
  netops.conntrack.conntrack_timeout_policy:
    name: web
    state: absent
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
    - The policy as it was, empty if there was none.
  type: dict
  returned: always
policy:
  description:
    - The policy as it is now, read back from the kernel, or in check mode as it would be. Empty if there is none.
    - C(use) counts the rules that use it and one for the policy itself. Defaults have no C(name), C(family) and C(use).
  type: dict
  returned: always
  sample:
    name: web
    family: ipv4
    protocol: tcp
    use: 1
    timeouts: {syn_sent: 120, syn_recv: 60, established: 3600, fin_wait: 120, close_wait: 10, time_wait: 10}
changes:
  description:
    - The keys that differed, each with its value before and after.
  type: list
  elements: dict
  returned: always
  contains:
    key:
      description: The key's path, such as C(timeouts.established).
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

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.timeout_policy import TIMEOUT_POLICY
from ansible_collections.netops.conntrack.plugins.module_utils._module import NETNS, run


def declare(module: AnsibleModule) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.timeout_policy import (
        declared_policy,
        reconcile,
    )
    from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

    params = module.params
    declared = declared_policy(params)
    with Table() as table:
        return reconcile(table, declared, params["state"], params["replace"], module.check_mode)


def main() -> None:
    module = AnsibleModule(
        argument_spec={**TIMEOUT_POLICY, **NETNS},
        supports_check_mode=True,
    )
    run(module, declare, {"operation": "unchanged", "before": {}, "policy": {}, "changes": []})


if __name__ == "__main__":
    main()
