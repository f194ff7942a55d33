# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Event source for the kernel's connection tracking table."""

from __future__ import annotations

import asyncio
import importlib
import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

DOCUMENTATION = r"""
---
short_description: Receive events of the kernel's connection tracking table
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Receives events about new, changed and destroyed entries of the connection tracking table. Also reports the usage of
    the table, and changes of rules, addresses and routes after which entries may be stale. The plugin watches the table
    of the machine that runs ansible-rulebook, or the tables of its network namespaces.
  - A BPF program in the kernel evaluates as much of O(match) as it can. The plugin evaluates the rest.
  - The plugin always reports the loss of events. If events arrive faster than the rulebook processes them, the receive
    buffer becomes full, and the kernel drops events. The plugin then sends an event of the type V(overrun). With
    O(resync), it also reads the table, and sends an event for each missed change that it finds in the table.
  - Every event has a C(type). See the notes for the other keys.
options:
  groups:
    description:
      - Kinds of events to report. V(new), V(update) and V(destroy) are events of entries. The others are events of
        expectations.
      - Use an empty list to report O(threshold), O(snat_ports) or O(changes) only.
    type: list
    elements: str
    choices: [new, update, destroy, expectation_new, expectation_destroy]
    default: [new, update, destroy]
  match:
    description:
      - Entries to report, in the form of the option C(match) of M(netops.conntrack.conntrack_info). The default is all
        entries. The match does not apply to expectations.
    type: raw
  except:
    description:
      - Entries to exclude, in the form of O(match).
    type: raw
  netns:
    description:
      - The network namespace to watch, by its name under C(/run/netns) or by a path such as C(/proc/4711/ns/net).
      - The default is the namespace in which ansible-rulebook runs.
      - With a list of names and paths, or with V(all), the plugin watches all of these namespaces, with a receive
        buffer for each. Events then have C(netns), the name or path of their namespace. O(aggregate) counts the events
        of all namespaces together. O(threshold) and O(changes) are possible only with one namespace.
      - V(all) means the namespace in which ansible-rulebook runs, all namespaces with a name under C(/run/netns), and
        those of all processes. The plugin searches for new namespaces every two seconds, and then also reports their
        events. Entries that a new namespace has when the plugin finds it are reported only with O(existing). The plugin
        stops watching a namespace that no longer has a name or a process.
      - If a namespace cannot be watched when the plugin starts, the plugin fails. If this happens to a namespace that
        the plugin finds later, the plugin sends one event of the type V(namespace_error) and continues.
    type: raw
  label_map:
    description:
      - The file that maps label bits to names, in the format of C(connlabel.conf).
      - The default is C(/etc/xtables/connlabel.conf) or, if this file does not exist, C(/etc/connlabel.conf).
    type: path
  aggregate:
    description:
      - Report counts instead of single events. A window begins with the first event and ends after O(aggregate.window)
        seconds. The plugin then sends an event for each group of entries.
    type: dict
    suboptions:
      window:
        description: Length of a window in seconds, at least 0.1.
        type: float
        default: 10
      by:
        description:
          - Keys of a match to group events by, such as V([source, destination_port]). By default, there is one group.
        type: list
        elements: str
        choices:
          - family
          - zone
          - mark
          - helper
          - protocol
          - source
          - destination
          - source_port
          - destination_port
          - icmp_type
          - icmp_code
          - source_key
          - destination_key
          - reply_source
          - reply_destination
          - reply_source_port
          - reply_destination_port
          - state
        default: []
      limit:
        description:
          - Maximum number of groups to report. These are the groups with the most events. One more event contains the
            total of the other groups.
        type: int
        default: 100
  threshold:
    description:
      - Report once when the usage of the table reaches a percentage of C(nf_conntrack_max), and once when it falls
        below O(threshold.below).
    type: dict
    suboptions:
      percent:
        description: Usage in percent of C(nf_conntrack_max) at which to send an event with C(crossed=above).
        type: float
        required: true
      below:
        description:
          - Usage in percent below which to send an event with C(crossed=below). The default is 90% of
            O(threshold.percent).
        type: float
      interval:
        description: Seconds between checks. A check takes some microseconds, independent of the size of the table.
        type: float
        default: 10
  snat_ports:
    description:
      - Report when an address of source NAT has few free ports for a destination. The plugin reports once when the
        percentage of used ports reaches O(snat_ports.percent), and once when it falls below O(snat_ports.below). See
        the subset V(snat_ports) of M(netops.conntrack.conntrack_facts).
      - With O(match), only the ports of matching flows count.
    type: dict
    suboptions:
      percent:
        description:
          - Use in percent at which to send an event with C(crossed=above). The kernel can run out of ports before
            100 %.
        type: float
        required: true
      below:
        description:
          - Use in percent below which to send an event with C(crossed=below). The default is 90% of
            O(snat_ports.percent).
        type: float
      interval:
        description: Seconds between checks. Each check reads all entries with source NAT.
        type: float
        default: 60
  changes:
    description:
      - Report changes of the ruleset, addresses, routes, policy routing rules and links, after which entries may be
        stale. The plugin sends an event with the number of changes when there has been no change for O(changes.window)
        seconds. It therefore reports a reload of the rules in several steps only once, at the end of the reload. If
        changes do not stop, the plugin sends an event after six times O(changes.window), counted from the first change.
      - Changes that arrive while a rulebook action runs are not lost. The next event includes them.
      - The plugin does not report changes before its start, changes of sysctls, or changes of rules of the legacy
        iptables. It also ignores packets that add elements to a set, set elements that expire, and nftables tables that
        the kernel removes because their owner exits.
    type: dict
    suboptions:
      kinds:
        description:
          - Kinds of changes to report.
          - V(ruleset) - a transaction of nftables or iptables-nft, even if it only adds elements to a set. This kind
            requires nf_tables in the kernel.
          - V(address) - an address is added, removed or deprecated. A new lifetime of an address, for example from a
            DHCP server, is not a change.
          - V(route) - a route or a nexthop object is added, replaced or removed.
          - V(rule) - a policy routing rule is added or removed.
          - V(link) - a link is set up or down, or a link that is up is removed or renamed, or gets another master or
            group. When a link goes down, the kernel removes its IPv4 routes without sending a route event.
          - The creation or removal of a link that is down is not a change. Carrier, statistics and wireless events are
            not changes.
          - If the list contains V(link), the plugin ignores links that are members of a bridge, a bond or a team, and
            the addresses and routes of these links. For example, such links are created when a container starts.
            Without V(link), the plugin does not know which links are members, and reports changes of their addresses
            and routes.
        type: list
        elements: str
        choices: [ruleset, address, route, rule, link]
        default: [ruleset, address, route, rule, link]
      window:
        description:
          - Seconds without a change after which the plugin sends the event, at least 0.1.
          - Choose a value above the longest pause between two steps of a reload.
        type: float
        default: 5
  resync:
    description:
      - Keep a copy of the matching entries. After an overrun, the plugin reads the table and reports the missed changes
        as events with C(missed=true). In the same way, it reports changes for which the kernel sends no events.
      - With V(true), the plugin compares O(match) with the complete entry, even if an event of the kernel contains only
        a part of the entry. The plugin needs memory for each matching entry.
      - With V(false), the plugin passes events on as the kernel sends them. Events that the kernel drops are lost.
    type: bool
    default: true
  existing:
    description:
      - At the start, report the existing entries as V(new) events with C(missed=true).
    type: bool
    default: false
  receive_buffer:
    description:
      - Size of each receive buffer in bytes. It contains the events that the rulebook has not processed yet. Each event
        needs about 1 KiB.
    type: int
    default: 8388608
requirements:
  - ansible-rulebook 1.2 or newer.
  - CAP_NET_ADMIN, and CAP_SYS_ADMIN for O(netns). The root user has both.
notes:
  - Events of the types V(new), V(update) and V(destroy) have C(entry), C(missed) and C(by_update). C(entry) has the
    format of M(netops.conntrack.conntrack_info). C(missed) is true if the plugin found the change in the table instead
    of an event. C(by_update) is true if the entry began to match, or no longer matches, because it was updated. Events
    of expectations have C(expectation).
  - If a process requested the change, these events also have C(port_id), the netlink port id of the process. The port
    id is usually the process id. C(conntrack -E -o userspace) prints it as C(portid).
  - Events of the type V(aggregate) have C(by), C(counts) and C(window). C(by) has a value for each key of
    O(aggregate.by). C(counts) has the numbers C(new), C(update) and C(destroy). The event of the type V(aggregate_rest)
    is for all other groups, and has the same keys except C(by). If the plugin could not count all groups, these events
    also have C(uncertainty), the maximum by which a count of a group may be too low.
  - Events of the type V(threshold) have C(crossed) (V(above) or V(below)), C(count), C(max) and C(usage_percent), and
    C(percent) and C(below) of O(threshold).
  - Events of the type V(snat_ports) have C(crossed), C(address), C(destination), C(destination_port), C(protocol),
    C(zone), C(used), C(limit), C(usage_percent) and C(sources), with the same meaning as in the subset V(snat_ports) of
    M(netops.conntrack.conntrack_facts). They also have C(percent) and C(below) of O(snat_ports).
  - Events of the type V(change) have C(counts), C(window), C(processes) and C(overrun). C(counts) has the number of
    changes of each kind. C(processes) has the C(name) and C(pid) of up to ten processes that changed the ruleset. If
    C(overrun) is true, the kernel dropped messages. C(counts) then includes one assumed change for each kind of which
    the plugin may have missed changes.
  - Events of the type V(namespace_error) have C(netns) and C(msg), the error.
  - Events of the type V(overrun) have C(table) (V(conntrack) or V(expect)) and C(overruns), the number of overruns of
    this table so far. With O(resync), they also have C(resync), the number of events of each kind that follow.
  - In untrusted names, such as those of helpers, labels and processes, the plugin inserts a space into text that Jinja
    would evaluate as a template.
"""

EXAMPLES = r"""
- netops.conntrack.conntrack:
    groups: [new]
    match:
      protocol: tcp
      destination_port: 23
    except:
      source: 10.1.0.0/24

- netops.conntrack.conntrack:
    groups: [new]
    aggregate:
      window: 10
      by: [source]

- netops.conntrack.conntrack:
    groups: []
    netns: gateway
    threshold:
      percent: 80
      below: 70

- netops.conntrack.conntrack:
    groups: [new]
    netns: all
    match:
      protocol: tcp
      destination_port: 25

- netops.conntrack.conntrack:
    groups: []
    snat_ports:
      percent: 80

- netops.conntrack.conntrack:
    groups: []
    changes:
      kinds: [ruleset, address]
      window: 2
"""


def library(name: str) -> ModuleType:
    """Import a module of this collection's plugins, relative to this file.

    ansible-rulebook runs this file by its path. It cannot import from ansible_collections: Ansible may be missing, or
    another directory may have that name. The plugins are therefore a package here, with relative imports.
    """
    package = "netops_conntrack"
    if package not in sys.modules:
        spec = ModuleSpec(package, None, is_package=True)
        spec.submodule_search_locations = [str(Path(__file__).resolve().parents[4] / "plugins")]
        sys.modules[package] = module_from_spec(spec)
    return importlib.import_module(f"{package}.{name}")


async def main(queue: asyncio.Queue[Any], args: dict[str, Any]) -> None:
    """Put events into the queue until cancelled."""
    await library("plugin_utils._event_source.run").run(queue, args)


if __name__ == "__main__":

    class MockQueue(asyncio.Queue[Any]):
        """A queue that prints its events."""

        async def put(self, event: dict[str, Any]) -> None:
            """Print an event."""
            sys.stdout.write(f"{event}\n")

    asyncio.run(main(MockQueue(), {"groups": sys.argv[1:] or ["new", "update", "destroy"]}))
