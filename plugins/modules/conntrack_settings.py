#!/usr/bin/python
# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declare the settings of connection tracking."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conntrack_settings
short_description: Declare the settings of connection tracking, also for the next boot
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Sets C(net.netfilter.nf_conntrack_*), C(nf_flowtable_*) and C(nf_hooks_lwtunnel) in the network namespace of the
    task. With O(persist), also writes these settings to files, from which they are set at boot.
  - The module compares and sets only declared settings. Declare at least one setting.
  - Before it writes the first value, the module checks all values, whether this kernel has the settings, and whether
    this namespace may set them. If the kernel still refuses a value, the task fails. The values that were written
    before stay set, and RV(changes) lists them.
  - Options and results have the units and values of the kernel. Switches are booleans in the options, and V(1) (on) or
    V(0) (off) in the results.
extends_documentation_fragment:
  - netops.conntrack._attributes
  - netops.conntrack._attributes.changes
options:
  max:
    description:
      - Maximum number of entries in the table (C(nf_conntrack_max)). V(0) means no limit.
      - On most kernels, only the initial network namespace may set it.
    type: int
  buckets:
    description:
      - Size of the hash table (C(nf_conntrack_buckets)), which all network namespaces share. The kernel rounds it up to
        whole pages, that is to a multiple of 512. If the current size is the declared size after rounding, the
        module changes nothing.
      - Only the initial network namespace may set it.
    type: int
  expect_max:
    description:
      - Maximum number of expectations (C(nf_conntrack_expect_max)), at least V(1).
      - Only the initial network namespace may set it.
    type: int
  accounting:
    description:
      - Whether to count packets and bytes of new connections (C(nf_conntrack_acct)).
    type: bool
  timestamps:
    description:
      - Whether to record when new connections begin and end (C(nf_conntrack_timestamp)).
    type: bool
  events:
    description:
      - Whether the kernel sends events (C(nf_conntrack_events)). With V(0), it sends none. With V(1), it sends events
        of all connections. With V(2), it sends events of connections that begin while a program listens to events.
      - V(2) was added in Linux 5.19 and has been the default since then.
    type: int
  checksum:
    description:
      - Whether packets with a wrong checksum are invalid (C(nf_conntrack_checksum)).
    type: bool
  log_invalid:
    description:
      - Number of the protocol whose invalid packets are logged (C(nf_conntrack_log_invalid)). With V(255), invalid
        packets of all protocols are logged, and with V(0), none.
    type: int
  tcp_loose:
    description:
      - Whether to pick up TCP connections that are already established (C(nf_conntrack_tcp_loose)).
    type: bool
  tcp_be_liberal:
    description:
      - Whether to accept packets outside of the TCP window (C(nf_conntrack_tcp_be_liberal)). Resets outside of the
        window are still invalid, see O(tcp_ignore_invalid_rst).
    type: bool
  tcp_max_retrans:
    description:
      - Number of packets that are retransmitted without an answer, at most V(255) (C(nf_conntrack_tcp_max_retrans)).
        When it is reached, the timeout V(tcp_max_retrans) in O(timeouts) applies.
    type: int
  tcp_ignore_invalid_rst:
    description:
      - Whether to accept resets outside of the window instead of treating them as invalid
        (C(nf_conntrack_tcp_ignore_invalid_rst)). Only in Linux 5.14 and newer.
    type: bool
  dccp_loose:
    description:
      - Whether to pick up DCCP connections that are already established (C(nf_conntrack_dccp_loose)). Only in Linux
        before 6.17.
    type: bool
  helper:
    description:
      - Whether to assign helpers to connections automatically, by destination port (C(nf_conntrack_helper)). Only in
        Linux before 6.0.
    type: bool
  frag6_high_thresh:
    description:
      - Maximum memory for reassembling IPv6 fragments, in bytes (C(nf_conntrack_frag6_high_thresh)). The kernel drops
        fragments that exceed it.
    type: int
  frag6_low_thresh:
    description:
      - Lower threshold of the memory for reassembling IPv6 fragments, in bytes (C(nf_conntrack_frag6_low_thresh)). It
        must not be higher than O(frag6_high_thresh). Since Linux 4.17, the kernel does not use it.
    type: int
  hooks_lwtunnel:
    description:
      - Whether packets of lightweight tunnels pass through the netfilter hooks (C(nf_hooks_lwtunnel)). Only in Linux
        5.15 and newer.
      - It applies to all network namespaces. The kernel refuses to turn it off.
    type: bool
  timeouts:
    description:
      - Timeouts in seconds by protocol and state. The keys are the names of the files in C(/proc/sys/net/netfilter)
        without C(nf_conntrack_) and C(timeout), such as V(tcp_established), V(udp), V(udp_stream), V(icmp), V(generic).
      - V(flowtable_tcp) and V(flowtable_udp) are the timeouts of offloaded flows (C(nf_flowtable_tcp_timeout),
        C(nf_flowtable_udp_timeout)).
      - V(0) is accepted only if the timeout is already V(0). The kernel removes entries with the timeout V(0)
        immediately.
      - O(netops.conntrack.conntrack_timeout_policy#module:default) sets the same timeouts, but with the state names of
        policies.
    type: dict
  persist:
    description:
      - Whether to set the declared settings at boot. The module writes them to C(sysctl.d/90-conntrack.conf).
        C(modules-load.d/conntrack.conf) loads the kernel module C(nf_conntrack) first, because the settings do not
        exist without it.
      - In these files, the module changes only the lines of declared settings. Several tasks can therefore each persist
        some settings. With V(false), the module neither reads nor writes the files. To remove a setting from a file,
        delete its line.
      - If a file that is read later at boot sets another value, the module warns.
      - If the network namespace is not that of process 1, its settings end with the namespace. In such a namespace, the
        task fails unless O(persist_in) is a directory other than C(/etc).
    type: bool
    default: false
  persist_in:
    description:
      - Directory of C(sysctl.d) and C(modules-load.d). For a container or an image, use the C(etc) in its root, such as
        C(/var/lib/machines/gateway/etc).
      - The directory must exist. C(sysctl.d) and C(modules-load.d) are created in it if they are missing.
      - The directory must not be a symbolic link. In any directory except C(/etc), symbolic links must not lead out of
        the directory, because the root user of a container could use them to change files of the host.
    type: path
    default: /etc
notes:
  - Loading C(nf_conntrack) at boot does not start connection tracking. The kernel tracks connections in network
    namespaces with a firewall rule that requires it.
seealso:
  - module: netops.conntrack.conntrack_facts
    description: Returns the current settings.
  - module: netops.conntrack.conntrack_timeout_policy
  - name: Netfilter Conntrack Sysfs variables
    description: The kernel's own description of the settings.
    link: https://docs.kernel.org/networking/nf_conntrack-sysctl.html
"""

EXAMPLES = r"""
- name: Set the size of the table, also for the next boot
  netops.conntrack.conntrack_settings:
    max: 1048576
    buckets: 262144
    persist: true
  become: true

- name: Count bytes, and limit the timeout of idle established connections to two hours
  netops.conntrack.conntrack_settings:
    accounting: true
    timestamps: true
    timeouts:
      tcp_established: 7200
      udp_stream: 60
    persist: true
  become: true

- name: Accept packets outside of the TCP window until the next boot, for asymmetric routing
  netops.conntrack.conntrack_settings:
    tcp_be_liberal: true
  become: true

- name: Set and persist the settings of a container from its host
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
    - All settings before the change, in the format of
      RV(netops.conntrack.conntrack_facts#module:ansible_facts.conntrack.settings). You can use them as options of this
      module without changes.
  type: dict
  returned: always
  sample: {max: 262144, buckets: 262144, accounting: 0, events: 2, timeouts: {tcp_established: 432000, udp: 30}}
settings:
  description:
    - All settings after the change. In check mode, the prediction.
  type: dict
  returned: always
  sample: {max: 262144, buckets: 262144, accounting: 1, events: 2, timeouts: {tcp_established: 7200, udp: 30}}
changes:
  description:
    - The changes in the order in which they were made. In check mode, the prediction. If the task fails, the changes
      before the failure.
  type: list
  elements: dict
  returned: always
  contains:
    key:
      description:
        - Name of the setting, such as V(max) or V(timeouts.udp). In a file, the full name, such as
          V(net.netfilter.nf_conntrack_max), or V(nf_conntrack) for the kernel module.
      type: str
      sample: accounting
    where:
      description: V(kernel), or the path of the file.
      type: str
      sample: kernel
    before:
      description: The previous value. Null if there was none.
      type: raw
      sample: 0
    after:
      description: The declared value.
      type: raw
      sample: 1
  sample:
    - {key: accounting, where: kernel, before: 0, after: 1}
    - {key: timeouts.tcp_established, where: kernel, before: 432000, after: 7200}
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
    return reconcile(declared, params["persist_in"] if params["persist"] else None, module.check_mode)


def main() -> None:
    module = AnsibleModule(argument_spec={**SETTINGS, **PERSISTENCE, **NETNS}, supports_check_mode=True)
    run(module, declare, {"before": {}, "settings": {}, "changes": []})


if __name__ == "__main__":
    main()
