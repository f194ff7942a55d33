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
  - Makes many entries of the kernel's connection tracking table be there as declared, or not be there, in one task.
    Each is treated as M(netops.conntrack.conntrack_entry) treats one.
  - All declarations are checked before anything is changed. Then entries are looked up, changed and read back many
    at once, which takes about a second for 10,000.
  - With O(purge), what is in O(scope) and not declared is deleted, too, and nothing else.
  - What cannot be brought about is returned in RV(failed_entries). The rest is brought about all the same, and then
    the module fails.
extends_documentation_fragment:
  - netops.conntrack._attributes
  - netops.conntrack._attributes.changes
  - netops.conntrack._scope
  - netops.conntrack._labels
options:
  entries:
    description:
      - The entries, each a dictionary of the keys that M(netops.conntrack.conntrack_entry) has for one, from V(family)
        to V(extra). What M(netops.conntrack.conntrack_info) returns can be declared as it stands.
      - Two declarations of one entry are an error. Masters may come behind those that belong to them.
    type: list
    elements: dict
  src:
    description:
      - A file with the entries instead, in JSON, JSON lines or YAML. It is a list of entries, or a dictionary with such
        a list under C(entries).
      - It lies on the controller, where it may be encrypted by Ansible Vault, unless O(remote_src=true).
    type: path
  remote_src:
    description:
      - Whether O(src) lies on the target. There, YAML takes PyYAML.
    type: bool
    default: false
  state:
    description:
      - Whether the entries are to be there.
      - With V(absent), the C(reply) of an entry alone names it also if it is NATed, as with
        M(netops.conntrack.conntrack_entry).
    type: str
    choices: [present, absent]
    default: present
  on_existing:
    description:
      - What to do where an entry is there already and differs from what is declared.
      - V(update) changes it, V(keep) leaves it as it is, V(fail) counts it as failed.
    type: str
    choices: [update, keep, fail]
    default: update
  replace:
    description:
      - Delete an entry and create it again where it differs in what the kernel cannot change in place, as
        M(netops.conntrack.conntrack_entry) does. This interrupts live connections.
    type: bool
    default: false
  timeout_min:
    description:
      - Set the countdown to the C(timeout) of an entry where fewer seconds than this remain. By default that is never
        done. Every entry must have a C(timeout) that is not below.
    type: int
    default: 0
  report_limit:
    description:
      - How many changes, and how many failures, are returned at most. Counts are always whole.
    type: int
    default: 100
seealso:
  - module: netops.conntrack.conntrack_entry
  - module: netops.conntrack.conntrack_flush
  - module: netops.conntrack.conntrack_info
"""

EXAMPLES = r"""
- name: Two flows that are let through although no packet has been seen yet
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

- name: The flows of one mark are those of a file, and no others
  netops.conntrack.conntrack_entries:
    src: flows.jsonl
    purge: true
    scope:
      mark: 0x10
  become: true
"""

RETURN = r"""
counts:
  description: How many entries were what, or would be in check mode.
  type: dict
  returned: always
  contains:
    created:
      description: Entries that were not there.
      type: int
    updated:
      description: Entries that were changed in place.
      type: int
    replaced:
      description: Entries that were deleted and created again.
      type: int
    deleted:
      description: Entries that were deleted, because of O(state=absent) or O(purge).
      type: int
    unchanged:
      description: Entries that were as declared.
      type: int
    failed:
      description: Entries that are not as declared.
      type: int
  sample: {created: 2, updated: 0, replaced: 0, deleted: 0, unchanged: 0, failed: 0}
kept:
  description: How many entries a purge left alone because they carry the SSH session.
  type: int
  returned: always
  sample: 0
changes:
  description: What was changed, the first O(report_limit) of it.
  type: list
  elements: dict
  returned: always
  contains:
    index:
      description: The place of the entry among those declared, from 0; null for one that a purge deleted.
      type: int
    operation:
      description: V(created), V(updated), V(replaced) or V(deleted).
      type: str
    entry:
      description: The entry as declared; as it was, if a purge deleted it.
      type: dict
    changes:
      description: What was changed of it, each with C(key), C(before) and C(after).
      type: list
      elements: dict
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
  description: What could not be brought about, the first O(report_limit) of it.
  type: list
  elements: dict
  returned: always
  contains:
    index:
      description: The place of the entry among those declared, from 0; null for what a purge could not delete.
      type: int
    entry:
      description: The entry as declared.
      type: dict
    msg:
      description: Why not, and what to do.
      type: str
  sample: []
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.label_map import LABEL_MAP, labels_of
from ansible_collections.netops.conntrack.plugins.module_utils._argspec.purge import SCOPE, scope_of
from ansible_collections.netops.conntrack.plugins.module_utils._module import (
    NETNS,
    PRESENT,
    REPORT_LIMIT,
    check_not_negative,
    run,
)


def declare(module: AnsibleModule) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.entries import (
        parse_entries,
        reconcile_all,
    )
    from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.purge import purge_of
    from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.reconciler import Policy
    from ansible_collections.netops.conntrack.plugins.module_utils._source.file import entries_in, read
    from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
    from ansible_collections.netops.conntrack.plugins.module_utils.client.host.ssh_session import own_connections
    from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

    params = module.params
    check_not_negative(module, "timeout_min", "report_limit")
    labels = labels_of(module)
    scope = scope_of(module, labels)
    if params["src"] is not None:
        documents = entries_in(read(params["src"]), params["src"])
    elif params["entries"] is not None:
        documents = params["entries"]
    else:
        raise InvalidValue("entries", "is null, and so is src; write a list, [] for none, or name a file in src")
    declared = parse_entries(documents, labels, absent=params["state"] == "absent")
    policy = Policy(params["state"], params["on_existing"], params["replace"], params["timeout_min"])
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
            **REPORT_LIMIT,
            **LABEL_MAP,
            **NETNS,
        },
        required_one_of=[("entries", "src")],
        mutually_exclusive=[("entries", "src")],
        supports_check_mode=True,
    )
    counts = {"created": 0, "updated": 0, "replaced": 0, "deleted": 0, "unchanged": 0, "failed": 0}
    run(module, declare, {"counts": counts, "kept": 0, "changes": [], "failed_entries": []})


if __name__ == "__main__":
    main()
