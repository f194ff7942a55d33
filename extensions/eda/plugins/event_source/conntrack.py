# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Events of the kernel's connection tracking table, for Event-Driven Ansible."""

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
  - Tells rules what begins, changes and ends in the connection tracking table of the machine that runs
    ansible-rulebook, or of one of its network namespaces, and how full it is.
  - The kernel itself leaves out what does not match, as far as it can; the rest is left out here.
  - Nothing is lost in silence. When rules are slower than events come, the kernel's buffer fills; when that is full,
    the kernel drops events, and says so. Rules get an event of the type V(overrun) then, and with O(resync) an event
    for all that the table shows to have happened meanwhile.
  - Every event has a C(type). See the notes for what else it has.
options:
  groups:
    description:
      - What to tell. V(new), V(update) and V(destroy) are of entries, the others of expectations.
      - An empty list is for O(threshold) alone.
    type: list
    elements: str
    choices: [new, update, destroy, expectation_new, expectation_destroy]
    default: [new, update, destroy]
  match:
    description:
      - Which entries, in the form that C(netops.conntrack.conntrack_info) has for its option C(match). Expectations are
        not asked about. The default is all of them.
    type: raw
  except:
    description:
      - Entries to leave out. Of the same form as O(match).
    type: raw
  netns:
    description:
      - The network namespace to watch, by its name under C(/run/netns) or by a path such as C(/proc/4711/ns/net).
      - The default is the one that ansible-rulebook runs in.
    type: str
  label_map:
    description:
      - The file that gives names to label bits, in the format of C(connlabel.conf).
      - The default is the first that exists of C(/etc/xtables/connlabel.conf) and C(/etc/connlabel.conf).
    type: path
  aggregate:
    description:
      - Count events instead of telling each. A window begins with an event and ends after some seconds; then there is
        an event for each group of entries, and nothing where nothing happened.
    type: dict
    suboptions:
      window:
        description: Seconds, from 0.1 on.
        type: float
        default: 10
      by:
        description:
          - By which keys of a match to count, such as V([source, destination_port]). Without any, all are one group.
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
        description: So many groups are told, those with most events; the others come in one event together.
        type: int
        default: 100
  threshold:
    description:
      - Tell when the table has become full to a percentage of C(nf_conntrack_max), and when it no longer is. Each is
        told once.
    type: dict
    suboptions:
      percent:
        description: At how many per cent the table is too full.
        type: float
        required: true
      below:
        description: Under how many per cent it is not any more. The default is nine tenths of O(threshold.percent).
        type: float
      interval:
        description: Seconds between two looks. One costs some microseconds, however large the table is.
        type: float
        default: 10
  resync:
    description:
      - Know the entries that match. Then the table is read after an overrun, and what happened meanwhile is told by
        events that have C(missed=true); so are changes that the kernel has no events for.
      - This also matches entries as a whole, where an event shows but a part of them, and takes memory for each entry
        that matches.
      - With V(false), events are told as the kernel tells them, and after an overrun they are lost.
    type: bool
    default: true
  existing:
    description:
      - Begin with the entries that are there already, as V(new) events with C(missed=true).
    type: bool
    default: false
  receive_buffer:
    description:
      - Bytes of events that may wait until rules have time for them. The kernel takes about 1 KiB for each.
    type: int
    default: 8388608
requirements:
  - ansible-rulebook 1.2 or newer.
  - CAP_NET_ADMIN, and for O(netns) CAP_SYS_ADMIN, as root has them.
notes:
  - Events of the types V(new), V(update) and V(destroy) have C(entry), in the shape of
    C(netops.conntrack.conntrack_info), C(missed) and C(by_update), which is true where an update made the entry match
    or cease to. Those of expectations have C(expectation).
  - If a process requested the change, these events also have C(port_id), the netlink port id of the process. It is
    usually the process id. C(conntrack -E -o userspace) shows it as C(portid).
  - V(aggregate) has C(by), with a value for each of the keys, C(counts) with C(new), C(update) and C(destroy), and
    C(window). V(aggregate_rest) has the same but C(by), for all further groups.
  - V(threshold) has C(crossed), which is V(above) or V(below), C(count), C(max), C(usage_percent), and the percentages.
  - V(overrun) has C(table), V(conntrack) or V(expect), C(overruns), how often it happened so far, and with O(resync)
    C(resync), how many events of each kind follow.
  - In names that come from elsewhere, such as those of helpers and labels, a space parts what Jinja would take for
    a template.
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
"""


def library(name: str) -> ModuleType:
    """Import a module of this collection's plugins, from where this very file is.

    ansible-rulebook runs this file by its path, and cannot import from ansible_collections: there may be no Ansible, or
    only another folder of that name. So the plugins are a package of their own here, by relative names among them.
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
        """Prints what is put into it."""

        async def put(self, event: dict[str, Any]) -> None:
            """Print an event."""
            sys.stdout.write(f"{event}\n")

    asyncio.run(main(MockQueue(), {"groups": sys.argv[1:] or ["new", "update", "destroy"]}))
