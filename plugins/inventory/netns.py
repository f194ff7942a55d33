# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventory of the network namespaces of the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
name: netns
short_description: Network namespaces of the controller as hosts
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Creates a host for each named network namespace of the controller. The hosts use the connection plugin
    P(netops.conntrack.netns#connection), so that plays run inside the namespaces.
  - The name of the inventory file is V(netns.yml) or V(netns.yaml). A prefix that ends in a dot, a dash or an
    underscore is possible, for example V(tenants.netns.yml) or V(conntrack_netns.yaml).
  - The name of a host is that of its namespace. A namespace that is deleted while the plugin runs is omitted.
  - Ansible does not trust the names of links and other data from the namespaces, and does not evaluate them as
    templates.
  - "Every host has the following variables:"
  - C(ansible_connection) and C(ansible_netns_name) - the connection to the namespace.
  - C(netns_name) and C(netns_path) - the name of the namespace, and the path of its file.
  - C(netns_links) - a list of links, each with C(name), C(index), C(kind), C(mac), C(state), C(mtu) and C(addresses).
    C(kind) is for example V(veth) or V(bridge), and null for hardware and the loopback. C(state) is for example V(up),
    V(down) or V(unknown). A link that belongs to a bridge or bond also has C(master), the name of the bridge or bond.
  - C(netns_addresses) - the addresses of all links with their prefix lengths, such as V(10.0.0.1/24).
  - C(netns_routes) - a list of routes, IPv4 before IPv6, without those of the table V(local). Each route has C(family),
    C(destination), C(type), C(table) and C(metric). C(destination) is a network or V(default). C(type) is for example
    V(unicast) or V(blackhole). C(table) is V(main), V(default) or a number.
  - A route can also have C(gateway), C(link), C(source) (the preferred source address) and C(nexthops). C(nexthops) is
    a list of dictionaries, each with C(gateway) and C(link) if the next hop has them.
  - C(netns_routes_cut) - whether the namespace has more routes than are listed.
options:
  plugin:
    description: Identifies the file as an inventory of this plugin.
    type: str
    required: true
    choices: [netops.conntrack.netns]
  folder:
    description:
      - The directory that contains the namespaces. A relative path starts at the directory of the inventory file. The
        default is the directory of C(ip netns).
    type: str
    default: /run/netns
  include:
    description: Shell patterns such as V(tenant-*). A namespace is included if its name matches one or more.
    type: list
    elements: str
    default: ['*']
  exclude:
    description: Shell patterns. A namespace is excluded if its name matches one or more.
    type: list
    elements: str
    default: []
  max_routes:
    description: Maximum number of routes to list for each namespace.
    type: int
    default: 1000
extends_documentation_fragment:
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
requirements:
  - The Python package pyroute2 on the controller.
  - CAP_SYS_ADMIN, which root has.
notes:
  - The cache contains the hosts that were found. If you change an option that affects these hosts, the cache becomes
    invalid.
seealso:
  - plugin: netops.conntrack.netns
    plugin_type: connection
"""

EXAMPLES = r"""
# tenants.netns.yml: a group for each bridge, and one for namespaces with a default route
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
