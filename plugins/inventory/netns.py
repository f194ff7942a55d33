# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network namespaces of this machine."""

from __future__ import annotations

DOCUMENTATION = r"""
name: netns
short_description: Network namespaces of the controller as hosts
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Makes a host of each named network namespace of the machine that Ansible itself runs on, with the connection
    P(netops.conntrack.netns#connection), so that plays run inside.
  - The file of such an inventory is named V(netns.yml), or with something before it and a dot, a dash or an
    underscore, such as V(tenants.netns.yml) or V(conntrack_netns.yaml).
  - A host is named as its namespace. One that vanishes while the inventory is made is left out.
  - Names of links and all else that the namespaces say is data. Ansible templates none of it.
  - "Every host has these variables:"
  - C(ansible_connection) and C(ansible_netns_name) - how modules come inside.
  - C(netns_name) and C(netns_path) - the name of the namespace, and its file.
  - C(netns_links) - a list of links, each with C(name), C(index), C(kind) (such as V(veth) or V(bridge), null for
    hardware and the loopback), C(mac), C(state) (such as V(up), V(down) or V(unknown)), C(mtu) and C(addresses); and
    with C(master), the name of the bridge or bond that it is a part of.
  - C(netns_addresses) - the addresses of all links with their prefix lengths, such as V(10.0.0.1/24).
  - C(netns_routes) - a list of routes, IPv4 before IPv6, but for the table V(local), each with C(family),
    C(destination) (a network or V(default)), C(type) (such as V(unicast) or V(blackhole)), C(table) (V(main),
    V(default) or a number) and C(metric); and where there is one, with C(gateway), C(link), C(source) (the address that
    is preferred) and C(nexthops), a list of C(gateway) and C(link).
  - C(netns_routes_cut) - whether there are more routes than are listed.
options:
  plugin:
    description: What says that the file is an inventory of this plugin.
    type: str
    required: true
    choices: [netops.conntrack.netns]
  folder:
    description: Where the namespaces are, relative to the folder of the inventory file. C(ip netns) uses the default.
    type: str
    default: /run/netns
  include:
    description: Patterns of names, such as V(tenant-*), one of which has to fit.
    type: list
    elements: str
    default: ['*']
  exclude:
    description: Patterns of names that are left out.
    type: list
    elements: str
    default: []
  max_routes:
    description: How many routes of a namespace are listed.
    type: int
    default: 1000
extends_documentation_fragment:
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
requirements:
  - The Python package pyroute2 on the controller.
  - CAP_SYS_ADMIN, as root has.
notes:
  - What is cached are the hosts that were found. After a change of the options that decide this, it is done anew.
seealso:
  - plugin: netops.conntrack.netns
    plugin_type: connection
"""

EXAMPLES = r"""
# tenants.netns.yml: a group for each bridge that a namespace has, and one for those that have a way out
plugin: netops.conntrack.netns
include: ['tenant-*']
groups:
  routed: "'default' in netns_routes | map(attribute='destination')"
keyed_groups:
  - prefix: bridge
    key: netns_links | selectattr('kind', 'eq', 'bridge') | map(attribute='name') | list
compose:
  ansible_python_interpreter: "'/usr/bin/python3'"
"""

from typing import Any

from ansible_collections.netops.conntrack.plugins.plugin_utils._inventory.base import FoundInventory, Hosts
from ansible_collections.netops.conntrack.plugins.plugin_utils._inventory.namespaces import hosts_of


class InventoryModule(FoundInventory):
    """Namespaces as hosts."""

    NAME = "netops.conntrack.netns"
    ENDING = "netns"
    DECISIVE = ("folder", "include", "exclude", "max_routes")

    def find(self, options: dict[str, Any], folder: str) -> Hosts:
        return hosts_of(options, folder)
