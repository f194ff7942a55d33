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
  - Creates, updates or deletes a named timeout policy. A policy defines the timeout of a connection in each state of
    its protocol. A firewall rule assigns the policy to connections, for example with C(-j CT --timeout NAME) in the
    table C(raw) of iptables.
  - With O(default) instead of O(name), sets the default timeouts of a protocol, which apply to connections without a
    policy. O(netops.conntrack.conntrack_settings#module:timeouts) sets the same timeouts, but its keys are the names of
    the kernel's settings, such as V(udp_stream) instead of V(replied).
  - The module changes a policy in place, even while rules use it. For an existing connection, the new timeout applies
    from the next packet on.
  - Policies and defaults last until the next boot. Declare policies before the firewall loads its rules.
extends_documentation_fragment:
  - netops.conntrack._attributes
  - netops.conntrack._attributes.changes
options:
  name:
    description:
      - Name of the policy, at most 31 bytes. One of O(name) and O(default) is required.
    type: str
  default:
    description:
      - Whether to set the default timeouts of the protocol, in both families.
    type: bool
    default: false
  family:
    description:
      - Family of the connections that the policy applies to. Required for a policy that must exist. The family has no
        effect with O(default=true).
    type: str
    choices: [ipv4, ipv6]
  protocol:
    description:
      - Protocol of the connections that the policy applies to, by name or number. V(generic) (255) means every protocol
        that the kernel does not track specifically. Required unless O(state=absent).
    type: str
  timeouts:
    description:
      - Timeouts in seconds by state. States that you leave out are neither compared nor changed. In a new policy, they
        get the current default timeouts of the protocol. Required unless O(state=absent). The states of each protocol
        follow.
      - V(tcp) - V(syn_sent), V(syn_recv), V(established), V(fin_wait), V(close_wait), V(last_ack), V(time_wait),
        V(close), V(syn_sent2), V(retrans) (the limit of retransmissions was reached) and V(unacknowledged).
      - V(udp), V(udplite), V(gre) - V(unreplied) and V(replied). V(udplite) and V(udp) share their defaults. A change
        of one changes both.
      - V(icmp), V(icmpv6), V(generic) - V(timeout).
      - V(sctp) - V(closed), V(cookie_wait), V(cookie_echoed), V(established), V(shutdown_sent), V(shutdown_recd),
        V(shutdown_ack_sent), V(heartbeat_sent) and V(heartbeat_acked).
      - V(dccp) - V(request), V(respond), V(partopen), V(open), V(closereq), V(closing) and V(timewait). Linux 6.17 and
        newer do not track DCCP.
    type: dict
  state:
    description:
      - Whether the policy must exist. With V(absent), the name alone identifies it. If a rule uses the policy, the
        module does not delete it and fails.
    type: str
    choices: [present, absent]
    default: present
  replace:
    description:
      - Whether to delete the policy and create it again if its family or protocol differs from the declaration. Without
        this option, or while a rule uses the policy, the module fails.
    type: bool
    default: false
  use:
    description:
      - The use count. Accepted and ignored, so that you can declare a policy exactly as it was gathered.
    type: int
seealso:
  - module: netops.conntrack.conntrack_settings
  - module: netops.conntrack.conntrack_facts
    description: Returns the existing policies.
"""

EXAMPLES = r"""
- name: Create a policy with short timeouts for a service with many short connections
  netops.conntrack.conntrack_timeout_policy:
    name: web
    family: ipv4
    protocol: tcp
    timeouts:
      established: 3600
      time_wait: 10
      close_wait: 10
  become: true

- name: Shorten the default timeout of UDP flows without a reply
  netops.conntrack.conntrack_timeout_policy:
    default: true
    protocol: udp
    timeouts:
      unreplied: 10
  become: true

- name: Delete a policy
  netops.conntrack.conntrack_timeout_policy:
    name: web
    state: absent
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
    - The policy before the change. Empty if there was none.
  type: dict
  returned: always
  sample:
    name: web
    family: ipv4
    protocol: tcp
    use: 1
    timeouts:
      syn_sent: 120
      syn_recv: 60
      established: 7200
      fin_wait: 120
      close_wait: 10
      last_ack: 30
      time_wait: 10
      close: 10
      syn_sent2: 120
      retrans: 300
      unacknowledged: 300
policy:
  description:
    - The policy after the change, read back from the kernel. In check mode, the prediction. Empty if there is none.
    - C(use) is the number of rules that use the policy, plus one for the policy itself. Defaults have no C(name),
      C(family) and C(use).
  type: dict
  returned: always
  sample:
    name: web
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
changes:
  description:
    - The keys that differed, each with its values before and after the change.
  type: list
  elements: dict
  returned: always
  contains:
    key:
      description: Path of the key, such as C(timeouts.established).
      type: str
      sample: timeouts.established
    before:
      description: The previous value. Null if there was none.
      type: raw
      sample: 7200
    after:
      description: The declared value.
      type: raw
      sample: 3600
  sample:
    - {key: timeouts.established, before: 7200, after: 3600}
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
    module = AnsibleModule(argument_spec={**TIMEOUT_POLICY, **NETNS}, supports_check_mode=True)
    run(module, declare, {"operation": "unchanged", "before": {}, "policy": {}, "changes": []})


if __name__ == "__main__":
    main()
