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
    its tuple, zone and id. It never touches an entry that does not match, whatever filters the kernel supports. If
    another entry has replaced a matching one in the meantime, the new entry is kept, except in the rare case that it
    has the same tuple and the kernel has given it the same id.
  - The module removes nothing unless O(match), O(all) or O(stale) is set. It is not an error if nothing matches.
  - Removing an entry does not end the connection. In firewall rules, the next packet of the connection has the state
    C(new) or C(invalid), so rules can drop it.
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
      - V(expect) is the table of expectations. An expectation is the announcement of a connection that has not begun.
        The module removes the expectation, and keeps the entry of its master, which is the connection that announced
        it.
      - With V(expect), O(keep_ssh) has no effect. For the applicable keys of O(match) and O(except), see
        O(netops.conntrack.conntrack_info#module:table).
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
      - To find the connection, the module reads the sockets of all parent processes of the task, and
        E(SSH_CONNECTION). This also works under sudo and su.
      - If a program on this host, such as sslh, haproxy or stunnel, forwards the connection to the SSH server, the
        module keeps all TCP connections of this program.
      - If the task is not a descendant of an SSH server (for example an C(async) task, or one started in tmux), the
        module cannot identify its connection. It then keeps all connections to the host's own SSH servers. In a
        container that does not show the processes of the host, it keeps only connections to port 22. Exclude
        connections to other ports with O(except).
      - The task fails and removes nothing in two cases. Either C(/proc) is not mounted and E(SSH_CONNECTION) is not
        set. Or a program on this host forwards the connection to the SSH server, and the module cannot see the sockets
        of this program. To see sockets of other users, the module needs root. In a container that does not show the
        processes of the host, the module never sees these sockets.
      - With several namespaces in O(netns), several tables can contain an entry with the addresses and ports of the
        connection. The module keeps all of these entries.
      - The module does not keep other SSH connections. If Ansible reaches other hosts through this host, as a router or
        a jump host, exclude these connections with O(except).
    type: bool
    default: true
  end_local_sockets:
    description:
      - Whether to also end connections whose client or server is this host. In each network namespace from which
        entries are removed, the kernel destroys the TCP sockets of the removed entries, and their UDP sockets that have
        a peer.
      - TCP sends a reset to the peer. The process receives the error C(ECONNABORTED). Listening sockets and UDP sockets
        without a peer are never destroyed, because they serve many flows.
      - Sockets have no zone. The module therefore destroys a socket if its protocol, addresses and ports are those of a
        removed entry, in any zone.
      - The sockets are destroyed after all entries were read and before the first entry is deleted. NAT and the
        firewall therefore treat the resets as packets of their connections.
      - The sockets of connections that O(keep_ssh=true) would keep are never destroyed, even with O(keep_ssh=false).
      - Requires a kernel with C(CONFIG_INET_DIAG_DESTROY). Otherwise, the task fails and removes nothing.
    type: bool
    default: false
  limit:
    description:
      - Maximum number of entries to remove. If more entries match, the task fails and removes nothing. By default,
        there is no limit.
      - With several namespaces in O(netns), this is the limit for all together. The module then counts the matching
        entries in every namespace before it removes anything. It never removes more than the limit, even if further
        entries are created after the count. Because of such entries, the task can fail in one namespace after it has
        removed entries in others.
    type: int
  report_limit:
    description:
      - Maximum number of removed entries to return and to show in the diff. All counts are complete. With several
        namespaces in O(netns), this is the limit for all together.
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

- name: Remove flows to a former backend, except to some ports, and fail if there are more than 5000
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

- name: Remove the expectations of the FTP sessions of this client
  netops.conntrack.conntrack_flush:
    table: expect
    match:
      helper: ftp
      master:
        source: 10.1.0.2
  become: true

- name: Remove the flows that the current rules would translate differently or refuse
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

- name: Remove the flows of a blocked client, and end the connections between the client and this host
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
  description: Number of matching entries that ended after the module had read them and before it could delete them.
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
    - The first O(report_limit) entries to remove, without kept entries. They have the format of
      RV(netops.conntrack.conntrack_info#module:entries).
    - If more than O(limit) match, this list has only the first 3, which the error message also names.
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
  description: Number of matching entries by verdict, which is the result of the comparison with the current rules. Only
    with O(stale).
  type: dict
  returned: with O(stale)
  sample: {unchanged: 18190, nat_changed: 12, refused: 31, untracked: 0, uncertain: 0}
will_return:
  description:
    - Number of removed TCP entries whose flows can return with their next packet, because
      O(netops.conntrack.conntrack_settings#module:tcp_loose) is on in this network namespace. In check mode, the
      prediction.
    - These are entries in the states V(syn_recv), V(established), V(fin_wait), V(close_wait) and V(last_ack), and
      offloaded entries. Entries whose sockets are destroyed by O(end_local_sockets) do not count.
    - V(0) if the setting is off, if there is no such entry, or with O(table=expect). Null if there are such entries and
      the setting cannot be read.
    - The number can include entries that are RV(gone), or that the kernel refused to remove.
  type: int
  returned: always
  sample: 3
ended_sockets:
  description: Number of destroyed sockets. This includes sockets that ended after the module had read them, such as the
    second socket of a connection between two processes on this host. In check mode, the prediction.
  type: int
  returned: with O(end_local_sockets)
  sample: 2
method:
  description: Always V(delete). The entries were removed one by one.
  type: str
  returned: always
  sample: delete
namespaces:
  description:
    - A list with an item for each namespace. An item has C(netns), C(processes), and the keys above with the results of
      this namespace. If the task failed in the namespace, the item has C(msg).
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
                result = flush(StaleDeletionPlan(judge, *options), labels, module.check_mode)
                return {**result, "warnings": judge.warnings()}
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
