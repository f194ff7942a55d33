#!/usr/bin/python
# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Save the connection tracking table to a file, and restore it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conntrack_snapshot
short_description: Save the connection tracking table to a file, and restore it
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Saves the kernel's connection tracking table to a file on the target, or restores it from one, on the same host or
    on another, also under another version of the kernel.
  - A snapshot has all that the kernel lets one set of an entry - both tuples, NAT with its ports, zones, marks, labels,
    helpers, masters, the state of TCP, SCTP and DCCP, adjusted sequence numbers and the seconds that were left - and
    the expectations. It has counters and times of entries, too, where the kernel keeps them, but these cannot be
    restored.
  - Before anything is changed, a snapshot is read from beginning to end. One that is cut short, was changed since or
    is of a later format is refused. If the file is changed during the restore, the module stops and fails.
  - O(match) and O(except) say which entries are saved, or restored of those in the snapshot. An expectation is saved
    and restored if its master is.
  - What cannot be restored is returned in RV(failed_entries). The rest is restored all the same, and then the module
    fails.
  - Tunnels of PPTP cannot be restored, because the kernel does not return the keys that its helper keeps. The client
    has to connect again.
extends_documentation_fragment:
  - netops.conntrack._attributes
  - netops.conntrack._attributes.changes
  - netops.conntrack._match
  - netops.conntrack._scope
  - netops.conntrack._labels
options:
  state:
    description:
      - V(saved) writes the file, V(restored) reads it.
    type: str
    choices: [saved, restored]
    required: true
  path:
    description:
      - The file on the target. If its name ends in C(.gz), it is written compressed.
      - What is saved takes the place of an earlier snapshot at once and when it is whole. Anything else that is there
        is left alone, and the module fails. Only the owner can read the file (mode 0600).
      - To save, symbolic links on the path must belong to root or to the user who runs the module, and must not be in a
        directory where other users may write.
    type: path
    required: true
  on_existing:
    description:
      - What to do with an entry that is there already when it is to be restored.
      - V(keep) leaves it as it is. An entry that is in use has a newer state than the snapshot, which must not be
        pushed back.
      - V(update) changes it where it differs, V(fail) counts it as failed where it does.
    type: str
    choices: [keep, update, fail]
    default: keep
  replace:
    description:
      - With O(on_existing=update), delete an entry and create it again where it differs in what the kernel cannot
        change in place. This interrupts live connections.
    type: bool
    default: false
  purge:
    description:
      - When restoring, delete what is in O(scope) and not in the snapshot, and nothing else. It is deleted before
        anything is created. What is in the snapshot stays, also where O(match) leaves it out.
    type: bool
    default: false
  scope:
    description:
      - Which entries O(purge) may delete, as a match - a dictionary of the keys described with O(match), or a list of
        them, also with C(except).
      - Required with O(purge=true), and an error without it. A null is an error.
    type: raw
  report_limit:
    description:
      - How many failures to return, and how many lines to show in the diff. Counts are always whole.
    type: int
    default: 100
attributes:
  check_mode:
    support: full
    details:
      - Whether a kernel has a helper, keeps labels and tracks a protocol shows only when an entry is created.
      - Check mode compares each entry of the snapshot with the table, but does not predict all conflicts between two
        entries of the snapshot. A table never contains both at once, but a snapshot that was edited by hand can, and
        so can a snapshot of a busy table. The restore reports the second one in RV(failed_entries).
  idempotent:
    support: partial
    details:
      - A new snapshot is always a change. To restore one again changes nothing, but for entries whose time is over.
notes:
  - O(label_map) names labels in O(match), O(except) and O(scope) and in what is returned. In a snapshot labels are
    bits, and they are restored as these, whatever their names are here.
seealso:
  - module: netops.conntrack.conntrack_entries
  - module: netops.conntrack.conntrack_info
"""

EXAMPLES = r"""
- name: Save the table before an upgrade
  netops.conntrack.conntrack_snapshot:
    state: saved
    path: /var/lib/conntrack.gz
  become: true

- name: Restore what was lost, and leave alone what has come since
  netops.conntrack.conntrack_snapshot:
    state: restored
    path: /var/lib/conntrack.gz
  become: true

- name: Translated flows of one mark only
  netops.conntrack.conntrack_snapshot:
    state: saved
    path: /root/marked.conntrack
    match:
      mark: 0x10
      nat: any
  become: true

- name: Zone 5 is as it was, and nothing else is in it
  netops.conntrack.conntrack_snapshot:
    state: restored
    path: /var/lib/conntrack.gz
    match:
      zone: 5
    on_existing: update
    purge: true
    scope:
      zone: 5
  become: true
"""

RETURN = r"""
snapshot:
  description: What the snapshot says of itself; empty where it is refused.
  type: dict
  returned: always
  contains:
    entries:
      description: How many entries it has.
      type: int
    expectations:
      description: How many expectations it has.
      type: int
    host:
      description: The name of the host it was taken of.
      type: str
    kernel:
      description: The release of that host's kernel.
      type: str
    time:
      description: When it was begun, in UTC.
      type: str
    version:
      description: The version of its format.
      type: int
  sample:
    entries: 48211
    expectations: 3
    host: gw1
    kernel: 6.12.9
    time: '2030-01-31T12:00:00Z'
    version: 1
checksum:
  description: The SHA-256 that the snapshot says of itself; empty where it is refused, and in check mode where it
    would be written.
  type: str
  returned: always
  sample: d0f7d272fe57080ce3535c99b2dd4f31b11d866fe39ec176924a15994d563c79
counts:
  description: How many entries were what, or would be in check mode. All are 0 with O(state=saved).
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
      description: Entries that O(purge) deleted.
      type: int
    unchanged:
      description: Entries that were there and are left as they were.
      type: int
    failed:
      description: Entries that are not, or not in all, as in the snapshot.
      type: int
  sample: {created: 48211, updated: 0, replaced: 0, deleted: 0, unchanged: 0, failed: 0}
expectation_counts:
  description: The same of expectations.
  type: dict
  returned: always
  sample: {created: 3, updated: 0, replaced: 0, deleted: 0, unchanged: 0, failed: 0}
unknown:
  description: Number of entries that RV(counts) does not contain, because the answers of the kernel to their creation
    were lost and the module cannot determine whether it created them. If it is not 0, the result is C(changed).
  type: int
  returned: always
  sample: 0
kept:
  description: How many entries O(purge) left alone because they carry the SSH session.
  type: int
  returned: always
  sample: 0
failed_entries:
  description: What is not, or not in all, as in the snapshot, the first O(report_limit) of it.
  type: list
  elements: dict
  returned: always
  contains:
    index:
      description: The place of the record in the snapshot, from 0; expectations are counted on behind the entries.
        Null for what O(purge) could not delete.
      type: int
    entry:
      description: The entry, or expectation, as it is in the snapshot.
      type: dict
    msg:
      description: Why, and what to do.
      type: str
  sample: []
"""

from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.label_map import LABEL_MAP, labels_of
from ansible_collections.netops.conntrack.plugins.module_utils._argspec.match import MATCH, match_of
from ansible_collections.netops.conntrack.plugins.module_utils._argspec.purge import SCOPE, scope_of
from ansible_collections.netops.conntrack.plugins.module_utils._module import (
    NETNS,
    REPORT_LIMIT,
    check_not_negative,
    run,
)

if TYPE_CHECKING:
    from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
    from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import Match
    from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

COUNTS = dict.fromkeys(("created", "updated", "replaced", "deleted", "unchanged", "failed"), 0)
#: The result where nothing was done.
NOTHING = {
    "snapshot": {},
    "checksum": "",
    "counts": COUNTS,
    "expectation_counts": COUNTS,
    "kept": 0,
    "unknown": 0,
    "failed_entries": [],
}


def save_or_restore(module: AnsibleModule) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

    params = module.params
    check_not_negative(module, "report_limit")
    labels = labels_of(module)
    match = match_of(module, labels)
    scope = scope_of(module, labels)
    with Table() as table:
        if params["state"] == "saved":
            return {**NOTHING, **save(module, table, match, labels, scope)}
        return restore(module, table, match, labels, scope)


def save(module: AnsibleModule, table: Table, match: Match, labels: LabelMap, scope: Match | None) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils._snapshot.save import save
    from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue

    if scope is not None:
        raise InvalidValue("purge", "is of use only when restoring; leave it out")
    return save(table, module.params["path"], match, labels, module.check_mode)


def restore(module: AnsibleModule, table: Table, match: Match, labels: LabelMap, scope: Match | None) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.reconciler import Policy
    from ansible_collections.netops.conntrack.plugins.module_utils._snapshot.file import Snapshot
    from ansible_collections.netops.conntrack.plugins.module_utils._snapshot.restore import restore
    from ansible_collections.netops.conntrack.plugins.module_utils.client.host.ssh_session import own_connections

    params = module.params
    policy = Policy(on_existing=params["on_existing"], replace=params["replace"])
    keep = own_connections() if scope is not None and params["keep_ssh"] else frozenset()
    with Snapshot(params["path"]) as snapshot:
        return restore(table, snapshot, match, policy, labels, module.check_mode, params["report_limit"], scope, keep)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["saved", "restored"], "required": True},
            "path": {"type": "path", "required": True},
            "on_existing": {"type": "str", "choices": ["keep", "update", "fail"], "default": "keep"},
            "replace": {"type": "bool", "default": False},
            **MATCH,
            **SCOPE,
            **REPORT_LIMIT,
            **LABEL_MAP,
            **NETNS,
        },
        supports_check_mode=True,
    )
    run(module, save_or_restore, NOTHING)


if __name__ == "__main__":
    main()
