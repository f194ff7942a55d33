# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts at the ends of flows."""

from __future__ import annotations

DOCUMENTATION = r"""
name: flows
short_description: Hosts at the ends of the flows that a gateway knows
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Reads the conntrack table of this machine, of one of its namespaces, or of snapshots that
    M(netops.conntrack.conntrack_snapshot) has saved on gateways, and makes a host of each address at the ends of the
    flows that match.
  - The file of such an inventory is named V(flows.yml), or with something before it and a dot, a dash or an
    underscore, such as V(database.flows.yml) or V(conntrack_flows.yaml).
  - A host is named by its address, and by its zone where that is not 0, such as V(10.0.0.5@zone7); see
    O(separate_by). The address is in C(ansible_host), too.
  - What nobody else could reach by the address alone is no host, and its flows are passed over - multicast, the
    broadcast address V(255.255.255.255), loopback, link-local and unspecified addresses.
  - All that comes from a table or a file is data. Ansible templates none of it.
  - "Every host has these variables, of which those of a side are there if O(side) asks for it:"
  - C(conntrack_address) and C(conntrack_family) - the address, and V(ipv4) or V(ipv6).
  - C(conntrack_flows) - how many flows it has, on all sides asked for. C(conntrack_bytes) - what they moved in both
    directions, where a flow of the host was accounted.
  - C(conntrack_as_source) and C(conntrack_as_destination) - what it has as the one who began, and as the one who was
    asked. Each has C(flows); C(bytes), where accounted; C(peers), by the address of the other end, with C(flows) and
    C(bytes) of each; C(services), the same by protocol and port of the destination, such as V(tcp/443) or V(icmp);
    C(other_peers) and C(other_services), how many flows those have that are not listed, 0 if all are.
  - C(conntrack_gateways) - the names of the gateways that saw it.
  - C(conntrack_zones), C(conntrack_marks), C(conntrack_labels), C(conntrack_helpers) - which ones its flows have, the
    most frequent first. Mark 0 is a mark. Labels are names, or the digits of bits that have none.
  - C(conntrack_cut) - the names of those of these four lists that were longer, usually empty.
options:
  plugin:
    description: What says that the file is an inventory of this plugin.
    type: str
    required: true
    choices: [netops.conntrack.flows]
  match:
    description:
      - Which flows, in the vocabulary of the modules, see
        R(the guide to matches, ansible_collections.netops.conntrack.docsite.guide_match).
      - Names of services are those of the controller.
    type: raw
    default: everything
  except:
    description: Flows to exclude, in the form of O(match). By default, none is excluded. A null is an error.
    type: raw
  side:
    description:
      - Which ends of the flows become hosts. V(source) is the one who began, V(destination) the one who was asked.
      - A flow from a host to itself counts on both sides.
    type: str
    choices: [source, destination, both]
    default: source
  addresses:
    description:
      - Which addresses the hosts have where NAT translates.
      - V(own) - those that they have themselves, each the source of the packets that it sends. A flow to a virtual
        address leads to the backend that answers it, and one from behind a translating gateway to the client.
      - V(as_client_sees) - those in the packets of the client, so that a virtual address is a host.
      - V(as_server_sees) - those in the packets of the server, so that all clients behind one address are one host.
      - Ports of services and zones go with the addresses. What O(match) says is not changed by this.
    type: str
    choices: [own, as_client_sees, as_server_sees]
    default: own
  separate_by:
    description:
      - What makes two hosts of one address. V(zone), where networks overlap. V(gateway), where those behind different
        gateways overlap; then the gateway is a part of the name, such as V(10.0.0.5@gw1).
      - An empty list makes all of one address one host.
    type: list
    elements: str
    choices: [zone, gateway]
    default: [zone]
  netns:
    description:
      - The network namespace whose table is read, by its name under C(/run/netns) or by a path such as
        C(/proc/4711/ns/net). The default is that of Ansible itself.
    type: str
  gateway:
    description:
      - What C(conntrack_gateways) calls the machine or namespace whose table is read.
      - The default is O(netns), or else the name of the machine.
    type: str
  snapshots:
    description:
      - Snapshots to read instead of a table, as a rule one per gateway. Each is a path, which may be a pattern such as
        V(snapshots/*.gz), or a dictionary of C(path) and C(name), what to call the gateway. Without a name, it is
        called as the host that saved the snapshot.
      - Paths are relative to the folder of the inventory file.
      - A snapshot that is not whole is refused, and then there is no inventory.
    type: list
    elements: raw
  label_map:
    description:
      - The file on the controller that gives names to label bits, in the format of C(connlabel.conf).
      - The default is the names in a snapshot. For a table it is the first that exists of
        C(/etc/xtables/connlabel.conf) and C(/etc/connlabel.conf).
      - A path is relative to the folder of the inventory file.
    type: str
  max_hosts:
    description: With more hosts than this, the inventory fails, so that no play runs on a part of them unawares.
    type: int
    default: 5000
  max_listed:
    description:
      - How many peers, services, zones, marks, labels and helpers are listed for each host and side, the busiest of
        them.
      - Twice as many are counted meanwhile. With more, the rarest are forgotten; numbers of one that is met again later
        are too low by what it had before.
    type: int
    default: 50
extends_documentation_fragment:
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
notes:
  - To read a table takes CAP_NET_ADMIN over it, as root has; another namespace, CAP_SYS_ADMIN as well. Snapshots can be
    read by whoever may read the files.
  - What is cached are the hosts that were found. After a change of the options that decide this, it is done anew.
  - Options may be templates with extra variables, such as C({{ backend }}) with C(-e backend=10.0.0.5).
  - Ages of O(match) are counted up to now, also in a snapshot.
seealso:
  - module: netops.conntrack.conntrack_snapshot
  - module: netops.conntrack.conntrack_info
"""

EXAMPLES = r"""
# clients.flows.yml: all who talk to the database through this gateway
plugin: netops.conntrack.flows
match:
  destination: 10.0.0.5
  destination_port: 5432

---
# web.flows.yml: backends behind a virtual address, by the snapshots of two gateways
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
