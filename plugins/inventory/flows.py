# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventory of the endpoints of tracked connections."""

from __future__ import annotations

DOCUMENTATION = r"""
name: flows
short_description: Create hosts from the endpoints of tracked connections
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Reads entries from the conntrack table of the controller or of one of its network namespaces, or from snapshots that
    M(netops.conntrack.conntrack_snapshot) saved on gateways. Creates a host for each address of matching flows at the
    ends that O(side) selects.
  - The name of the inventory file is V(flows.yml) or V(flows.yaml). A prefix that ends in a dot, a dash or an
    underscore is possible, for example V(database.flows.yml) or V(conntrack_flows.yaml).
  - The name of a host is its address. By default, the zone of its flows is appended if it is not 0, for example
    V(10.0.0.5@zone7). O(separate_by) changes this. The variable C(ansible_host) contains the address, too.
  - The plugin creates no hosts for addresses that do not identify a reachable host. These are multicast, link-local,
    loopback and unspecified addresses, and the broadcast address V(255.255.255.255). A flow with such an address at one
    end is counted only at its other end, if O(side) includes that end.
  - Ansible does not trust data from tables and files, and does not evaluate the data as templates.
  - "Every host has the following variables:"
  - C(conntrack_address) and C(conntrack_family) - the address, and V(ipv4) or V(ipv6).
  - C(conntrack_flows) - the number of flows on all selected sides. C(conntrack_bytes) - the number of bytes in both
    directions, present if at least one flow of the host has counters.
  - C(conntrack_as_source) - the flows that the host originated, if O(side) is V(source) or V(both).
  - C(conntrack_as_destination) - the flows that the host received, if O(side) is V(destination) or V(both).
  - C(conntrack_as_source) and C(conntrack_as_destination) are dictionaries. C(flows) is the number of flows. C(bytes)
    is the number of bytes, present if flows have counters. C(peers) is a dictionary with the address of the other end
    as key. C(services) is a dictionary with protocol and destination port as key, such as V(tcp/443) or V(icmp). Each
    peer and each service has C(flows) and C(bytes), too. C(other_peers) is the number of flows whose peer is not
    listed. C(other_services) is the number of flows whose service is not listed.
  - C(conntrack_gateways) - the names of the gateways that tracked flows of the host.
  - C(conntrack_zones), C(conntrack_marks), C(conntrack_labels), C(conntrack_helpers) - lists of the values in the flows
    of the host, the most frequent first. Mark 0 is listed. Label bits without a name are listed as numbers.
  - C(conntrack_cut) - a list that shows which of the four preceding lists are truncated, such as V(marks). The list is
    usually empty.
options:
  plugin:
    description: Identifies the file as an inventory of this plugin.
    type: str
    required: true
    choices: [netops.conntrack.flows]
  match:
    description:
      - Flows to select, with the keys that the modules use, see
        R(the guide to matches, ansible_collections.netops.conntrack.docsite.guide_match).
      - Service names are resolved on the controller.
    type: raw
    default: everything
  except:
    description: Flows to exclude, in the form of O(match). By default, none is excluded. A null is an error.
    type: raw
  side:
    description:
      - Which ends of a flow become hosts. V(source) is the originator, V(destination) the responder.
      - A flow from a host to itself counts on both sides.
    type: str
    choices: [source, destination, both]
    default: source
  addresses:
    description:
      - Addresses of the hosts if flows are NATed.
      - V(own) - the addresses that the hosts use themselves, as the source of packets that they send. With destination
        NAT, the host at the destination is the backend that replies, not the virtual address. With source NAT, the host
        at the source is the client behind the gateway.
      - V(as_client_sees) - the addresses in the packets of the client, so that a virtual address becomes a host.
      - V(as_server_sees) - the addresses in the packets of the server, so that all clients behind one address become
        one host.
      - The zone of a host comes from the same tuple as its address. The port of a service comes from the same tuple as
        the address of the destination. The meaning of O(match) does not change.
    type: str
    choices: [own, as_client_sees, as_server_sees]
    default: own
  separate_by:
    description:
      - Properties that distinguish hosts with the same address. Use V(zone) if networks in different zones overlap. Use
        V(gateway) if networks behind different gateways overlap; host names then contain the name of the gateway, such
        as V(10.0.0.5@gw1).
      - With an empty list, each address is one host.
    type: list
    elements: str
    choices: [zone, gateway]
    default: [zone]
  netns:
    description:
      - The network namespace to read, by its name under C(/run/netns) or by a path such as C(/proc/4711/ns/net). The
        default is the namespace in which Ansible runs.
    type: str
  gateway:
    description:
      - The name of the gateway whose table is read, for the variable C(conntrack_gateways). With O(snapshots), leave
        this option out. You can write names there.
      - The default is O(netns), or else the name of the machine.
    type: str
  snapshots:
    description:
      - Snapshots to read instead of a table, usually one for each gateway. Each item is a path or a dictionary. A path
        may be a pattern, such as V(snapshots/*.gz). A dictionary has C(path) and C(name), the name of the gateway. By
        default, this name is that of the host that saved the snapshot.
      - Paths are relative to the directory of the inventory file.
      - An incomplete snapshot is an error. The inventory then has no hosts.
    type: list
    elements: raw
  label_map:
    description:
      - The file on the controller that maps label bits to names, in the format of C(connlabel.conf).
      - For a snapshot, the default is the names in the snapshot. For a table, the default is
        C(/etc/xtables/connlabel.conf) or, if this file does not exist, C(/etc/connlabel.conf).
      - A path is relative to the directory of the inventory file.
    type: str
  max_hosts:
    description: Maximum number of hosts. If there are more, the inventory fails, so that no play runs on an incomplete
      set of hosts.
    type: int
    default: 5000
  max_listed:
    description:
      - Maximum number of peers and of services to list for each host and side, and maximum number of zones, marks,
        labels and helpers to list for each host. The most frequent are listed.
      - While it reads flows, the plugin keeps up to twice O(max_listed) values for each list. When there are more, it
        drops the least frequent. If a dropped value occurs again, its count starts from 0 and is too low.
    type: int
    default: 50
extends_documentation_fragment:
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
notes:
  - Reading a table requires CAP_NET_ADMIN, which root has. Reading the table of another namespace also requires
    CAP_SYS_ADMIN. Reading snapshots requires only permission to read the files.
  - The cache contains the hosts that were found. If you change an option that affects these hosts, the cache becomes
    invalid.
  - Options may be templates with extra variables, such as C({{ backend }}) with C(-e backend=10.0.0.5).
  - Ages in O(match) are relative to the current time, also for snapshots.
seealso:
  - module: netops.conntrack.conntrack_snapshot
  - module: netops.conntrack.conntrack_info
"""

EXAMPLES = r"""
# clients.flows.yml: all clients of the database behind this gateway
plugin: netops.conntrack.flows
match:
  destination: 10.0.0.5
  destination_port: 5432

---
# web.flows.yml: backends behind a virtual address, from the snapshots of two gateways
plugin: netops.conntrack.flows
snapshots:
  - snapshots/gw1.gz
  - path: snapshots/gw2.gz
    name: gateway-south
match:
  destination: 203.0.113.80
  state: established
side: destination

---
# all.flows.yml: groups such as uses_tcp_443, zone_7 and busy
plugin: netops.conntrack.flows
netns: gateway
side: both
groups:
  busy: conntrack_flows > 1000
keyed_groups:
  - prefix: uses
    key: conntrack_as_source.services.keys() | list
  - prefix: zone
    key: conntrack_zones | map('string') | list
compose:
  ansible_user: "'admin'"
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: /var/tmp/flows
"""

from typing import Any, ClassVar

from ansible_collections.netops.conntrack.plugins.plugin_utils._inventory.base import FoundInventory, Hosts
from ansible_collections.netops.conntrack.plugins.plugin_utils._inventory.flow_sources import endpoints_of


class InventoryModule(FoundInventory):
    """The endpoints of flows as hosts."""

    NAME = "netops.conntrack.flows"
    ENDING = "flows"
    DECISIVE = (
        "match",
        "except",
        "side",
        "addresses",
        "separate_by",
        "netns",
        "gateway",
        "snapshots",
        "label_map",
        "max_hosts",
        "max_listed",
    )

    NOT_GIVEN: ClassVar[dict[str, Any]] = {"except": "nothing"}

    def find(self, options: dict[str, Any], folder: str) -> Hosts:
        found = endpoints_of(options, folder)
        for side, flows in found.left_out.items():
            if flows:
                self.display.v(f"{self.NAME}: {flows} of {found.flows} flows have no host as their {side}")
        return dict(found.hosts())
