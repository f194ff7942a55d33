#!/usr/bin/python
# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declare many entries of the connection tracking table."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conntrack_entries
short_description: Declare many entries of the connection tracking table
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Creates, updates or deletes many entries of the connection tracking table in one task. The module treats each entry
    as M(netops.conntrack.conntrack_entry) does.
  - The module checks all declarations before it changes anything. It then looks up, changes and reads back many entries
    at once, which takes about a second for 10,000 entries.
  - With O(purge), the module also deletes entries in O(scope) that are not declared, and no others.
  - RV(failed_entries) lists the entries that could not be changed as declared. The module still applies all others, and
    then fails.
extends_documentation_fragment:
  - netops.conntrack._attributes
  - netops.conntrack._attributes.changes
  - netops.conntrack._scope
  - netops.conntrack._labels
options:
  entries:
    description:
      - List of entries. The keys of an entry are the options of M(netops.conntrack.conntrack_entry), except V(state),
        V(on_existing), V(replace), V(timeout_min), V(label_map) and V(netns). These six are options of the whole task.
      - You can declare entries exactly as M(netops.conntrack.conntrack_info) returns them.
      - It is an error to declare an entry twice. In the list, the entry of a master may follow the entries that have
        this master.
    type: list
    elements: dict
  src:
    description:
      - Path of a file with the entries, instead of O(entries), in JSON, JSON lines or YAML. It contains a list of
        entries, or a dictionary with such a list under C(entries).
      - Unless O(remote_src=true), the file is on the controller. You can encrypt it with Ansible Vault.
    type: path
  remote_src:
    description:
      - Whether O(src) is on the target. The target needs PyYAML to read YAML.
    type: bool
    default: false
  state:
    description:
      - Whether the entries must exist.
      - With V(absent), an entry can be declared by its C(reply) alone, even if the entry is NATed, as in
        M(netops.conntrack.conntrack_entry).
    type: str
    choices: [present, absent]
    default: present
  on_existing:
    description:
      - Action if an entry exists and differs from its declaration.
      - V(update) changes the entry, V(keep) leaves it unchanged, V(fail) counts it as failed.
    type: str
    choices: [update, keep, fail]
    default: update
  replace:
    description:
      - Whether to delete an entry and create it again if it differs in a key that the kernel cannot change in place, as
        in M(netops.conntrack.conntrack_entry). This interrupts live connections.
    type: bool
    default: false
  timeout_min:
    description:
      - Minimum remaining timeout in seconds. If less remains, the module sets the timeout of the entry to its declared
        C(timeout). With this option, every entry needs a C(timeout) of at least O(timeout_min). By default, the timeout
        of an existing entry is never set.
    type: int
    default: 0
  report_limit:
    description:
      - Maximum number of changes, and of failures, to return. All counts are complete.
    type: int
    default: 100
seealso:
  - module: netops.conntrack.conntrack_entry
  - module: netops.conntrack.conntrack_flush
  - module: netops.conntrack.conntrack_info
"""

EXAMPLES = r"""
- name: Create the entries of two flows before their first packet
  netops.conntrack.conntrack_entries:
    entries:
      - protocol: udp
        original:
          source: 10.1.0.2
          destination: 192.0.2.53
          source_port: 40000
          destination_port: 53
        timeout: 600
      - protocol: udp
        original:
          source: 10.1.0.3
          destination: 192.0.2.53
          source_port: 40000
          destination_port: 53
        timeout: 600
  become: true

- name: Declare the entries of one mark from a file, and delete all others with this mark
  netops.conntrack.conntrack_entries:
    src: flows.jsonl
    purge: true
    scope:
      mark: 0x10
  become: true
"""

RETURN = r"""
counts:
  description: Number of entries by result. In check mode, the prediction.
  type: dict
  returned: always
  contains:
    created:
      description: Number of entries that did not exist.
      type: int
      sample: 0
    updated:
      description: Number of entries that were changed in place.
      type: int
      sample: 1
    replaced:
      description: Number of entries that were deleted and created again.
      type: int
      sample: 0
    deleted:
      description: Number of entries that were deleted because of O(state=absent) or O(purge).
      type: int
      sample: 0
    unchanged:
      description: Number of entries that were as declared.
      type: int
      sample: 7
    failed:
      description: Number of entries that are not as declared.
      type: int
      sample: 1
  sample: {created: 0, updated: 1, replaced: 0, deleted: 0, unchanged: 7, failed: 1}
kept:
  description: Number of entries that a purge kept because they belong to the SSH connection that runs this task.
  type: int
  returned: always
  sample: 0
changes:
  description:
    - The first O(report_limit) changes.
    - An entry that ended before a purge could delete it is in this list, but is not counted in RV(counts).
  type: list
  elements: dict
  returned: always
  contains:
    index:
      description: Position of the entry in the declaration, from 0. Null for an entry that a purge deleted.
      type: int
      sample: 0
    operation:
      description: V(created), V(updated), V(replaced) or V(deleted).
      type: str
      sample: updated
    entry:
      description: The entry as declared. For an entry that a purge deleted, the entry before it was deleted.
      type: dict
      sample:
        family: ipv4
        protocol: udp
        original: {source: 10.1.0.2, destination: 192.0.2.53, source_port: 40000, destination_port: 53}
        mark: 16
    changes:
      description: The changed keys of the entry, each with C(key), C(before) and C(after).
      type: list
      elements: dict
      sample:
        - {key: mark, before: 0, after: 16}
  sample:
    - index: 0
      operation: updated
      entry:
        family: ipv4
        protocol: udp
        original: {source: 10.1.0.2, destination: 192.0.2.53, source_port: 40000, destination_port: 53}
        mark: 16
      changes:
        - {key: mark, before: 0, after: 16}
failed_entries:
  description: The first O(report_limit) failures.
  type: list
  elements: dict
  returned: always
  contains:
    index:
      description: Position of the entry in the declaration, from 0. Null if a purge could not delete entries. All of
        these entries are one item, and C(msg) has their number.
      type: int
      sample: 1
    entry:
      description: The entry as declared. Empty for the entries that a purge could not delete.
      type: dict
      sample:
        family: ipv4
        protocol: udp
        original: {source: 10.1.0.3, destination: 192.0.2.53, source_port: 40000, destination_port: 53}
        helper: dns
    msg:
      description: The reason, and what to do.
      type: str
      sample: "creating udp 10.1.0.3:40000 -> 192.0.2.53:53: Operation not supported (EOPNOTSUPP). The kernel has no
        helper 'dns'; write one of ftp, irc, sip, tftp"
  sample:
    - index: 1
      entry:
        family: ipv4
        protocol: udp
        original: {source: 10.1.0.3, destination: 192.0.2.53, source_port: 40000, destination_port: 53}
        helper: dns
      msg: "creating udp 10.1.0.3:40000 -> 192.0.2.53:53: Operation not supported (EOPNOTSUPP). The kernel has no helper
        'dns'; write one of ftp, irc, sip, tftp"
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.purge import SCOPE, scope_of
from ansible_collections.netops.conntrack.plugins.module_utils._module import PRESENT, REPORT, check_numbers, run


def declare(module: AnsibleModule) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.entries import (
        parse_entries,
        reconcile_all,
    )
    from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.purge import purge_of
    from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.reconciler import Policy
    from ansible_collections.netops.conntrack.plugins.module_utils._source.file import entries_in, read
    from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
    from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
    from ansible_collections.netops.conntrack.plugins.module_utils.client.host.ssh_session import own_connections
    from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

    params = module.params
    check_numbers(module, "timeout_min", "report_limit")
    labels = LabelMap.read(params["label_map"])
    scope = scope_of(module, labels)
    if params["src"] is not None:
        documents = entries_in(read(params["src"]), params["src"])
    elif params["entries"] is not None:
        documents = params["entries"]
    else:
        raise InvalidValue("entries", "is null, and so is src; write a list, [] for none, or name a file in src")
    declared = parse_entries(documents, labels, absent=params["state"] == "absent")
    policy = Policy.of(params)
    policy.check_purge(scope)
    limit = params["report_limit"]
    with Table() as table:
        purge = None
        if scope is not None:
            keep = own_connections() if params["keep_ssh"] else frozenset()
            purge = purge_of(table, scope, declared, keep, limit)
        return reconcile_all(table, declared, policy, labels, module.check_mode, purge, limit)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "entries": {"type": "list", "elements": "dict"},
            "src": {"type": "path"},
            "remote_src": {"type": "bool", "default": False},
            **PRESENT,
            **SCOPE,
            **REPORT,
        },
        required_one_of=[("entries", "src")],
        mutually_exclusive=[("entries", "src")],
        supports_check_mode=True,
    )
    counts = {"created": 0, "updated": 0, "replaced": 0, "deleted": 0, "unchanged": 0, "failed": 0}
    run(module, declare, {"counts": counts, "kept": 0, "changes": [], "failed_entries": []})


if __name__ == "__main__":
    main()
