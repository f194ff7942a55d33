#!/usr/bin/python
# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declare the settings of connection tracking."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conntrack_settings
short_description: Declare the settings of connection tracking, now and after a reboot
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Sets C(net.netfilter.nf_conntrack_*), C(nf_flowtable_*) and C(nf_hooks_lwtunnel) in the network namespace of the
    task, and with O(persist) in the files that set them at boot.
  - Only what is declared is compared and set. At least one setting must be declared.
  - All values are checked before the first is written, and so is whether this kernel has the setting and this namespace
    may set it. Should the kernel refuse one all the same, what was written before it stays, and RV(changes) says what.
  - Values are the kernel's own. In results, on is V(1) and off is V(0).
extends_documentation_fragment:
  - netops.conntrack._attributes
  - netops.conntrack._attributes.changes
options:
  max:
    description:
      - The most entries that the table may have (C(nf_conntrack_max)). V(0) is no limit.
      - On most kernels, only the initial network namespace may set it.
    type: int
  buckets:
    description:
      - The size of the hash table (C(nf_conntrack_buckets)), in which all namespaces are together. The kernel fills it
        up to whole pages, that is to a multiple of 512; a size that was filled up so is as declared.
      - Only the initial network namespace may set it.
    type: int
  expect_max:
    description:
      - The most expectations that there may be (C(nf_conntrack_expect_max)), from V(1).
      - Only the initial network namespace may set it.
    type: int
  accounting:
    description:
      - Count packets and bytes of connections that begin from now on (C(nf_conntrack_acct)).
    type: bool
  timestamps:
    description:
      - Note when connections begin and end, of those that begin from now on (C(nf_conntrack_timestamp)).
    type: bool
  events:
    description:
      - V(0) sends no events, V(1) sends them, V(2) sends them of connections that begin while somebody listens
        (C(nf_conntrack_events)). V(2) is the default since Linux 5.19, which brought it.
    type: int
  checksum:
    description:
      - Call packets with a wrong checksum invalid (C(nf_conntrack_checksum)).
    type: bool
  log_invalid:
    description:
      - Log invalid packets of the protocol of this number, of every protocol with V(255), and of none with V(0)
        (C(nf_conntrack_log_invalid)).
    type: int
  tcp_loose:
    description:
      - Pick up TCP connections in their middle (C(nf_conntrack_tcp_loose)).
    type: bool
  tcp_be_liberal:
    description:
      - Call only resets outside of the window invalid, no other packets (C(nf_conntrack_tcp_be_liberal)).
    type: bool
  tcp_max_retrans:
    description:
      - How many packets may be sent again without an answer before the timeout C(tcp_max_retrans) counts, up to V(255)
        (C(nf_conntrack_tcp_max_retrans)).
    type: int
  tcp_ignore_invalid_rst:
    description:
      - Do not call resets outside of the window invalid (C(nf_conntrack_tcp_ignore_invalid_rst)). Since Linux 5.14.
    type: bool
  dccp_loose:
    description:
      - Pick up DCCP connections in their middle (C(nf_conntrack_dccp_loose)). Before Linux 6.17.
    type: bool
  helper:
    description:
      - Assign helpers to connections automatically, by their destination port (C(nf_conntrack_helper)). Before Linux
        6.0.
    type: bool
  frag6_high_thresh:
    description:
      - The memory for reassembling IPv6 fragments, in bytes (C(nf_conntrack_frag6_high_thresh)). The kernel drops
        fragments beyond it.
    type: int
  frag6_low_thresh:
    description:
      - The memory for reassembling IPv6 fragments below which the kernel accepts fragments again, in bytes
        (C(nf_conntrack_frag6_low_thresh)). At most O(frag6_high_thresh).
    type: int
  hooks_lwtunnel:
    description:
      - Pass packets of lightweight tunnels through the netfilter hooks (C(nf_hooks_lwtunnel)). Since Linux 5.15.
      - It applies to all network namespaces. The kernel refuses to turn it off.
    type: bool
  timeouts:
    description:
      - Seconds by protocol and state, named as the files under C(/proc/sys/net/netfilter) are without
        C(nf_conntrack_) and C(timeout), such as V(tcp_established), V(udp), V(udp_stream), V(icmp), V(generic).
      - V(flowtable_tcp) and V(flowtable_udp) are the timeouts of offloaded flows (C(nf_flowtable_tcp_timeout),
        C(nf_flowtable_udp_timeout)).
      - V(0) is accepted only if the kernel has it already. It removes each entry at once.
      - They are the defaults that O(netops.conntrack.conntrack_timeout_policy#module:default) sets by the names of the
        policies' states.
    type: dict
  persist:
    description:
      - Let the declared settings come back with the next boot. Lines in C(sysctl.d/90-conntrack.conf) set them, and
        C(modules-load.d/conntrack.conf) has the module C(nf_conntrack) loaded before, since there are no such settings
        without it.
      - Lines of other settings, comments and other files are left as they are, so several tasks can persist a part
        each. With V(false), the files are neither read nor written; to take a setting out of them, remove its line.
      - Where a file that is read later sets something else, a warning says so.
      - The settings of a network namespace that is not that of process 1 are gone with it. There this fails, unless
        O(persist_in) names another directory than C(/etc).
    type: bool
    default: false
  persist_in:
    description:
      - The directory in which C(sysctl.d) and C(modules-load.d) are. For a container or an image, the C(etc) in its
        root, such as C(/var/lib/machines/gateway/etc).
      - It must exist. C(sysctl.d) and C(modules-load.d) are made in it if they are missing.
      - It must not be a symbolic link. In any directory but C(/etc), symbolic links must not lead out of the directory,
        because the root user of a container could use them to change files of the host.
    type: path
    default: /etc
notes:
  - Loading C(nf_conntrack) at boot tracks nothing by itself; connections are tracked where a firewall rule asks for it.
seealso:
  - module: netops.conntrack.conntrack_facts
    description: Returns the settings as they are.
  - module: netops.conntrack.conntrack_timeout_policy
  - name: Netfilter Conntrack Sysfs variables
    description: The kernel's own description of the settings.
    link: https://docs.kernel.org/networking/nf_conntrack-sysctl.html
"""

EXAMPLES = r"""
- name: A large table, now and after a reboot
  netops.conntrack.conntrack_settings:
    max: 1048576
    buckets: 262144
    persist: true
  become: true

- name: Count bytes, and let established connections idle for two hours at most
  netops.conntrack.conntrack_settings:
    accounting: true
    timestamps: true
    timeouts:
      tcp_established: 7200
      udp_stream: 60
    persist: true
  become: true

- name: The gateway that packets pass in one direction only, for as long as it is up
  netops.conntrack.conntrack_settings:
    tcp_be_liberal: true
  become: true

- name: A container's own settings, from its host
  netops.conntrack.conntrack_settings:
    tcp_loose: false
    netns: gateway
    persist: true
    persist_in: /var/lib/machines/gateway/etc
  become: true
"""

RETURN = r"""
before:
  description:
    - The settings as they were, all of them. They have the shape of C(settings) in
      RV(netops.conntrack.conntrack_facts#module:ansible_facts.conntrack.settings), and can be declared as they stand.
  type: dict
  returned: always
settings:
  description:
    - The settings as they are now, or in check mode as they would be.
  type: dict
  returned: always
  sample: {max: 262144, buckets: 262144, accounting: 1, events: 2, timeouts: {tcp_established: 7200, udp: 30}}
changes:
  description:
    - What was changed, or would have been in check mode, in this order. On a failure, what was changed before it.
  type: list
  elements: dict
  returned: always
  contains:
    key:
      description:
        - The setting's name, such as V(max) or V(timeouts.udp). In a file its full name, such as
          V(net.netfilter.nf_conntrack_max), or V(nf_conntrack), the module.
      type: str
    where:
      description: V(kernel), or the path of the file.
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

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.settings import PERSISTENCE, SETTINGS
from ansible_collections.netops.conntrack.plugins.module_utils._module import NETNS, run


def declare(module: AnsibleModule) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.settings import (
        declared_settings,
        load,
        reconcile,
    )

    params = module.params
    declared = declared_settings(params)
    load()
    result = reconcile(declared, params["persist_in"] if params["persist"] else None, module.check_mode)
    for sentence in result.pop("overridden"):
        module.warn(sentence)
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **SETTINGS,
            **PERSISTENCE,
            **NETNS,
        },
        supports_check_mode=True,
    )
    run(module, declare, {"before": {}, "settings": {}, "changes": []})


if __name__ == "__main__":
    main()
