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
  - Removes matching entries from the connection tracking table. The next packet of each connection is then evaluated
    against the current firewall and NAT rules.
  - The module reads the table on the target, compares every entry with the match, and deletes each matching entry by
    its tuple, zone and id. It never touches an entry that does not match, on any kernel. If another entry has replaced
    a matching one in the meantime, the new entry is kept.
  - The module removes nothing unless O(match), O(all) or O(stale) is set. It is not an error if nothing matches.
  - Removing an entry does not end the connection. For its next packet, NAT is decided again, and rules that drop
    packets of unknown connections drop it.
extends_documentation_fragment:
  - netops.conntrack._netns
  - netops.conntrack._attributes
  - netops.conntrack._attributes.changes
  - netops.conntrack._match.changing
  - netops.conntrack._labels
  - netops.conntrack._stale
options:
  table:
    description:
      - V(conntrack) is the table of connections.
      - V(expect) is the table of expectations. The connections that announced them stay, and O(keep_ssh) has no effect.
        For the applicable keys of O(match) and O(except), see O(netops.conntrack.conntrack_info#module:table).
    type: str
    choices: [conntrack, expect]
    default: conntrack
  all:
    description:
      - Whether to remove every entry of the table, except those that O(except) and O(keep_ssh) exclude.
      - Exactly one of O(match) and O(all) is required, unless O(stale) is set.
    type: bool
    default: false
  keep_ssh:
    description:
      - Whether to keep the entry of the SSH connection that runs this task, even if it matches.
      - The module finds the connection by the sockets of its ancestor processes and by E(SSH_CONNECTION), also under
        sudo and su.
      - If a program on this host, such as sslh, haproxy or stunnel, forwards the connection to the SSH server, the
        module keeps all TCP connections of this program.
      - The task fails and removes nothing if the connection cannot be found. This happens if C(/proc) is not mounted,
        or if the program belongs to another user and the task does not run as root.
      - If the task is not a descendant of an SSH server (for example an C(async) task, or one started in tmux), the
        module cannot identify its connection. It then keeps all connections to the host's own SSH servers. In a
        container that does not show the processes of the host, it knows only SSH servers on port 22. Name other ports
        in O(except).
      - With several namespaces in O(netns), the module keeps the connection in each namespace that has an entry with
        its addresses and ports.
      - Other SSH connections are not kept, and neither are connections that only pass through this host as a router or
        a jump host. If Ansible reaches other hosts through this one, name these connections in O(except).
    type: bool
    default: true
  end_local_sockets:
    description:
      - Whether to end the connections themselves where they begin or end on this host. The kernel destroys the TCP
        sockets, and the UDP sockets with a peer, of the removed entries in the network namespace of the task.
      - TCP sends a reset to the peer. The process receives the error C(ECONNABORTED). UDP sockets without a peer, which
        serve many flows, and listening sockets are never destroyed. Zones are not compared, because sockets have none.
      - The sockets are destroyed after all entries were read and before the first one is deleted, so that the resets
        pass NAT and the firewall as packets of their connections.
      - The sockets that O(keep_ssh) keeps are never destroyed, even with O(keep_ssh=false).
      - Requires a kernel with C(CONFIG_INET_DIAG_DESTROY). Otherwise, the task fails and removes nothing.
    type: bool
    default: false
  limit:
    description:
      - Maximum number of entries to remove. If more entries match, the task fails and removes nothing. By default,
        there is no limit.
      - With several namespaces in O(netns), this is the limit of all together. The module then counts in every
        namespace before it removes anything. Entries that begin after the count never make it exceed the limit, and can
        make the task fail in one namespace after it removed entries in others.
    type: int
  report_limit:
    description:
      - Maximum number of removed entries to return and to show in the diff. All counts are complete. With several
        namespaces, this is the number of all together.
    type: int
    default: 100
seealso:
  - module: netops.conntrack.conntrack_info
  - module: netops.conntrack.conntrack_entry
"""

EXAMPLES = r"""
- name: Remove flows that still use the old source NAT address after a rule change
  netops.conntrack.conntrack_flush:
    match:
      protocol: udp
      reply_destination: 198.51.100.1
      nat: source
  become: true

- name: Remove flows to a former backend, except two ports, and at most 5000
  netops.conntrack.conntrack_flush:
    match:
      reply_source: 10.20.0.7
    except:
      destination_port: [22, 8000-8010]
    limit: 5000
  become: true

- name: Remove half-open connections of two networks, and all flows with a mark
  netops.conntrack.conntrack_flush:
    match:
      - source: [10.66.0.0/16, "2001:db8:66::/48"]
        state: [syn_sent, syn_recv]
      - mark: 0x60/0xf0
  become: true

- name: Remove the FTP data connections of one client, also behind NAT
  netops.conntrack.conntrack_flush:
    match:
      master:
        protocol: tcp
        source: 10.1.0.2
        destination_port: 21
  become: true

- name: Remove the expectations of its FTP sessions
  netops.conntrack.conntrack_flush:
    table: expect
    match:
      helper: ftp
      master:
        source: 10.1.0.2
  become: true

- name: Remove what the current rules would translate differently or refuse
  netops.conntrack.conntrack_flush:
    stale: [nat_changed, refused]
    limit: 10000
  become: true

- name: Remove the flows of a former resolver on the host and in all its containers
  netops.conntrack.conntrack_flush:
    netns: all
    match:
      protocol: udp
      destination: 10.20.0.53
      destination_port: 53
    limit: 20000
  become: true

- name: Block a client, and end the connections between it and this host
  netops.conntrack.conntrack_flush:
    match:
      address: 203.0.113.9
    end_local_sockets: true
  become: true

- name: Empty the table, and keep the SSH connection that runs this task
  netops.conntrack.conntrack_flush:
    all: true
  become: true
"""

RETURN = r"""
flushed:
  description: Number of removed entries. In check mode, the prediction.
  type: int
  returned: always
  sample: 17
kept:
  description: Number of matching entries that were kept because they belong, or may belong, to the SSH connection that
    runs this task.
  type: int
  returned: always
  sample: 1
gone:
  description: Number of matching entries that ended after they were read and before they were deleted.
  type: int
  returned: always
  sample: 0
total:
  description:
    - Number of all entries in the table before the task, for comparison with RV(flushed).
    - The kernel includes expired entries that it has not removed yet.
  type: int
  returned: always
  sample: 18233
entries:
  description:
    - The first O(report_limit) matching entries, in the format of RV(netops.conntrack.conntrack_info#module:entries).
    - If more than O(limit) match, only the first 3. The error message names them, too.
  type: list
  elements: dict
  returned: always
  sample:
    - family: ipv4
      protocol: tcp
      original: {source: 10.1.0.2, destination: 192.0.2.80, source_port: 40001, destination_port: 443}
      reply: {source: 192.0.2.80, destination: 198.51.100.1, source_port: 443, destination_port: 40001}
      nat: {source: {address: 198.51.100.1, port: 40001}}
      status: [seen_reply, assured, confirmed, src_nat, src_nat_done, dst_nat_done]
      tcp:
        state: established
        original: {window_scale: 7, flags: [window_scale, sack_permitted]}
        reply: {window_scale: 7, flags: [window_scale, sack_permitted]}
      timeout: 431998
      mark: 0
      id: 3327681709
      use: 1
verdicts:
  description: Number of entries by verdict, of all that match. Only with O(stale).
  type: dict
  returned: with O(stale)
  sample: {unchanged: 18190, nat_changed: 12, refused: 31, untracked: 0, uncertain: 0}
will_return:
  description:
    - Number of removed TCP entries whose flows can return with their next packet, because
      O(netops.conntrack.conntrack_settings#module:tcp_loose) is on in this network namespace. In check mode, the
      prediction.
    - These are entries in the states V(syn_recv), V(established), V(fin_wait), V(close_wait) and V(last_ack), and
      offloaded entries. Entries whose sockets O(end_local_sockets) ends do not count.
    - V(0) if the setting is off, if there is no such entry, and with O(table=expect). Null if there are such entries
      and the setting cannot be read.
    - The number can include entries that are RV(gone), or that the kernel refused to remove.
  type: int
  returned: always
  sample: 3
ended_sockets:
  description: Number of destroyed sockets, with those that ended since the module read them, such as the other end of a
    connection on this host. In check mode, the prediction.
  type: int
  returned: with O(end_local_sockets)
  sample: 2
method:
  description: How the entries were removed. V(delete) means one by one.
  type: str
  returned: always
  sample: delete
namespaces:
  description:
    - The namespaces. Each has C(netns), C(processes), and the keys above, which are those of this namespace. If the
      task failed in it, it has C(msg).
    - The numbers and RV(verdicts) outside this list are sums. RV(entries) and RV(method) are only in the list.
  type: list
  elements: dict
  returned: with several namespaces in O(netns)
  sample:
    - netns: blue
      processes: []
      flushed: 17
      kept: 0
      gone: 0
      total: 233
      entries: []
      method: delete
"""

from contextlib import ExitStack
from functools import lru_cache
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.match import (
    LIMIT,
    REQUIRED_MATCH,
    STALE,
    match_of,
    stale_of,
)
from ansible_collections.netops.conntrack.plugins.module_utils._module import (
    NAMESPACES,
    REPORT,
    check_numbers,
    run,
)


@lru_cache(maxsize=None)
def session() -> frozenset[Any]:
    """Return the SSH connections that run this task, which are the same for each namespace."""
    from ansible_collections.netops.conntrack.plugins.module_utils.client.host.ssh_session import own_connections

    return own_connections()


def remove(module: AnsibleModule) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils._operations.flush import PLANS, flush
    from ansible_collections.netops.conntrack.plugins.module_utils._operations.resource import resource_of
    from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
    from ansible_collections.netops.conntrack.plugins.module_utils.client.table_reader import TableReader

    params = module.params
    check_numbers(module, "limit", "report_limit")
    labels = LabelMap.read(params["label_map"])
    stale = stale_of(module)
    match = match_of(module, labels, resource_of(params["table"]).parse_match, optional=bool(stale))
    keep = session() if params["keep_ssh"] and params["table"] == "conntrack" else frozenset()
    with TableReader() as table, ExitStack() as stack:
        sockets = None
        if params["end_local_sockets"]:
            from ansible_collections.netops.conntrack.plugins.module_utils._operations.end_sockets import (
                sockets_to_end,
            )

            sockets = stack.enter_context(sockets_to_end(params["table"], keep))
        options = table, match, keep, params["report_limit"], params["limit"], sockets
        if stale:
            from ansible_collections.netops.conntrack.plugins.module_utils._operations.stale import (
                StaleDeletionPlan,
                StaleFilter,
            )

            with StaleFilter(table, stale) as judge:
                return flush(StaleDeletionPlan(judge, *options), labels, module.check_mode)
        return flush(PLANS[params["table"]](*options), labels, module.check_mode)


def remove_each(*work: Any) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils._operations.namespaces import flush_in_each

    return flush_in_each(*work)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **REQUIRED_MATCH,
            "table": {"type": "str", "choices": ["conntrack", "expect"], "default": "conntrack"},
            "all": {"type": "bool", "default": False},
            "keep_ssh": {"type": "bool", "default": True},
            "end_local_sockets": {"type": "bool", "default": False},
            **STALE,
            **LIMIT,
            **REPORT,
            **NAMESPACES,
        },
        supports_check_mode=True,
    )
    nothing = {"flushed": 0, "kept": 0, "gone": 0, "total": 0, "will_return": 0, "entries": [], "method": "delete"}
    run(module, remove, nothing, in_each=remove_each)


if __name__ == "__main__":
    main()
