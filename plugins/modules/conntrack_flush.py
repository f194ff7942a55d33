#!/usr/bin/python
# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove matching entries from the connection tracking table."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conntrack_flush
short_description: Remove matching entries from the connection tracking table
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Removes the entries that match from the kernel's connection tracking table, so that what remains of the
    connection is treated by the firewall and NAT rules of today.
  - The table is read and every entry compared with the match on the target; then each that matches is deleted by
    its tuple, zone and id. An entry that does not match is never touched, on any kernel. An entry that took the
    place of a matching one meanwhile is left alone.
  - Nothing is removed unless O(match) or O(all) says so. That nothing matches is no error.
  - "Removing an entry ends no connection by itself, but what comes of its next packet is up to the rules: NAT is
    decided anew, and rules that drop packets of unknown connections drop it."
extends_documentation_fragment:
  - netops.conntrack._attributes
  - netops.conntrack._attributes.changes
  - netops.conntrack._match.changing
  - netops.conntrack._labels
options:
  table:
    description:
      - V(conntrack) is the table of connections.
      - V(expect) are the expectations. The connections that announced them stay, and O(keep_ssh) has no meaning. Which
        keys of O(match) and O(except) apply is said at O(netops.conntrack.conntrack_info#module:table).
    type: str
    choices: [conntrack, expect]
    default: conntrack
  all:
    description:
      - Remove every entry of the table, apart from those that O(except) and O(keep_ssh) spare.
      - One of O(match) and O(all) must be given, and not both.
    type: bool
    default: false
  keep_ssh:
    description:
      - Leave the connection alone through which this task is being run, even if it matches.
      - It is found by the sockets of the processes that this one descends from and by E(SSH_CONNECTION), so also
        under sudo and su.
      - If a program on this host passes the connection on to the SSH server, such as sslh, haproxy or stunnel, all TCP
        connections of this program are kept.
      - If the connection cannot be found, because C(/proc) is not mounted or because the program belongs to another
        user and the task does not run as root, the task fails and removes nothing.
      - A task that does not descend from an SSH server may be waited for through any connection, such as one that
        is asynchronous or that began in tmux. Then all connections to the host's own SSH servers are left alone.
      - Other sessions are not spared, nor those that only pass through this host, as a router or as a jump host.
        Where Ansible reaches others that way, name these in O(except).
    type: bool
    default: true
  limit:
    description:
      - The maximum number of entries to remove. If more entries match, the module fails and removes none. By default,
        there is no limit.
    type: int
  report_limit:
    description:
      - How many of the removed entries to return and to show in the diff. Counts are always whole.
    type: int
    default: 100
seealso:
  - module: netops.conntrack.conntrack_info
  - module: netops.conntrack.conntrack_entry
"""

EXAMPLES = r"""
- name: Flows that still leave by the old address after the NAT rule was changed
  netops.conntrack.conntrack_flush:
    match:
      protocol: udp
      reply_destination: 198.51.100.1
      nat: source
  become: true

- name: Everything to a backend that is gone, apart from two ports, but no more than 5000 flows
  netops.conntrack.conntrack_flush:
    match:
      reply_source: 10.20.0.7
    except:
      destination_port: [22, 8000-8010]
    limit: 5000
  become: true

- name: Half-open connections of two networks, in both families
  netops.conntrack.conntrack_flush:
    match:
      - source: [10.66.0.0/16, "2001:db8:66::/48"]
        state: [syn_sent, syn_recv]
      - mark: 0x60/0xf0
  become: true

- name: The FTP data connections of one client, also behind NAT
  netops.conntrack.conntrack_flush:
    match:
      master:
        protocol: tcp
        source: 10.1.0.2
        destination_port: 21
  become: true

- name: The data connections that its FTP sessions have announced and that do not exist yet
  netops.conntrack.conntrack_flush:
    table: expect
    match:
      helper: ftp
      master:
        source: 10.1.0.2
  become: true

- name: The whole table; this very SSH session stays
  netops.conntrack.conntrack_flush:
    all: true
  become: true
"""

RETURN = r"""
flushed:
  description: How many were removed, or in check mode would have been.
  type: int
  returned: always
  sample: 17
kept:
  description: How many entries match and were left alone because they carry this session, or may do so.
  type: int
  returned: always
  sample: 1
gone:
  description: How many matching entries vanished by themselves between the reading and the deleting.
  type: int
  returned: always
  sample: 0
total:
  description:
    - How many entries the table had before, whether or not they match, so that RV(flushed) can be seen as a part of it.
    - The kernel counts those in, too, whose time is over and that it has not cleared away yet.
  type: int
  returned: always
  sample: 18233
entries:
  description:
    - The first O(report_limit) of those that match. They have the shape of
      RV(netops.conntrack.conntrack_info#module:entries).
    - If more than O(limit) match, only the first 3, which the message names as well.
  type: list
  elements: dict
  returned: always
method:
  description: How they were removed. V(delete) is one by one.
  type: str
  returned: always
  sample: delete
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.label_map import LABEL_MAP, labels_of
from ansible_collections.netops.conntrack.plugins.module_utils._argspec.match import LIMIT, REQUIRED_MATCH, match_of
from ansible_collections.netops.conntrack.plugins.module_utils._module import (
    NETNS,
    REPORT_LIMIT,
    check_not_negative,
    run,
)


def remove(module: AnsibleModule) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils._operations.flush import PLANS, flush
    from ansible_collections.netops.conntrack.plugins.module_utils._operations.resource import resource_of
    from ansible_collections.netops.conntrack.plugins.module_utils.client.host.ssh_session import own_connections
    from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

    params = module.params
    check_not_negative(module, "limit", "report_limit")
    labels = labels_of(module)
    match = match_of(module, labels, resource_of(params["table"]).parse_match)
    keep = own_connections() if params["keep_ssh"] and params["table"] == "conntrack" else frozenset()
    with Table() as table:
        plan = PLANS[params["table"]](table, match, keep, params["report_limit"], params["limit"])
        return flush(plan, labels, module.check_mode)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **REQUIRED_MATCH,
            "table": {"type": "str", "choices": ["conntrack", "expect"], "default": "conntrack"},
            "all": {"type": "bool", "default": False},
            "keep_ssh": {"type": "bool", "default": True},
            **LIMIT,
            **REPORT_LIMIT,
            **LABEL_MAP,
            **NETNS,
        },
        supports_check_mode=True,
    )
    run(module, remove, {"flushed": 0, "kept": 0, "gone": 0, "total": 0, "entries": [], "method": "delete"})


if __name__ == "__main__":
    main()
