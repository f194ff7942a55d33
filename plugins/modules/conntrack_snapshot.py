#!/usr/bin/python
# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Save the connection tracking table to a file, or restore it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conntrack_snapshot
short_description: Save the connection tracking table to a file, or restore it
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Saves the connection tracking table to a file on the target, or restores the table from such a file. You can restore
    a snapshot on the same host or on another host, also with another version of the kernel.
  - A snapshot contains the expectations, and all attributes of entries that can be set. These attributes are both
    tuples, NAT with its ports, zones, marks, labels, helpers, masters, the state of TCP, SCTP and DCCP, adjusted
    sequence numbers and the remaining timeout.
  - A snapshot also contains the counters and timestamps of entries if the kernel records them, but they cannot be
    restored.
  - The module reads the whole snapshot before it changes anything. It refuses a snapshot that is truncated, was changed
    after it was saved, or has a later format. If the file changes during the restore, the module stops and fails.
  - O(match) and O(except) select the entries to save, or the entries of the snapshot to restore. An expectation is
    saved or restored if its master is saved or restored.
  - RV(failed_entries) lists the entries that could not be restored. The module still restores all others, and then
    fails.
  - PPTP tunnels cannot be restored, because the kernel does not return the GRE keys that the PPTP helper stores. The
    client must connect again.
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
      - Path of the file on the target. If the name ends in C(.gz), the file is compressed.
      - When a new snapshot is complete, it replaces an existing snapshot in one step. If an existing file is not a
        snapshot, the module fails and does not change the file. Only the owner can read the file (mode 0600).
      - With O(state=saved), each symbolic link on the path must belong to root or to the user who runs the module. The
        link must not be in a directory where other users may write.
    type: path
    required: true
  on_existing:
    description:
      - Action if an entry to restore exists already.
      - V(keep) leaves the entry unchanged. This is the default, because the state of an entry in use is newer than the
        snapshot.
      - If the entry differs, V(update) changes it, and V(fail) counts it as failed.
    type: str
    choices: [keep, update, fail]
    default: keep
  replace:
    description:
      - Whether O(on_existing=update) deletes an entry and creates it again if it differs in a key that the kernel
        cannot change in place. This interrupts live connections.
    type: bool
    default: false
  purge:
    description:
      - Whether a restore deletes entries in O(scope) that are not in the snapshot. It never deletes other entries. The
        purge takes place before the module creates entries. Entries in the snapshot are kept, even if O(match) does not
        select them.
    type: bool
    default: false
  scope:
    description:
      - Match that selects the entries that O(purge) may delete. It is a dictionary of the keys described with O(match),
        or a list of such dictionaries. A match may contain C(except).
      - Required with O(purge=true). Without O(purge=true), this option is an error. A null is an error, too.
    type: raw
  report_limit:
    description:
      - Maximum number of failures to return, and of lines to show in the diff. All counts are complete.
    type: int
    default: 100
attributes:
  check_mode:
    support: full
    details:
      - Check mode cannot predict whether a kernel has a helper, stores labels or tracks a protocol. The kernel reports
        an error only when an entry is created.
      - Check mode compares each entry of the snapshot with the table, but does not predict all conflicts between two
        entries of the snapshot. A table never contains two entries that conflict. A snapshot can contain them if it was
        edited by hand, or if the table was busy while it was saved. The restore reports the second entry in
        RV(failed_entries).
  idempotent:
    support: partial
    details:
      - Saving a snapshot is always a change. Restoring a snapshot again changes nothing, except for entries that have
        expired.
notes:
  - The names in O(label_map) apply to O(match), O(except), O(scope) and the results. Labels are saved and restored as
    bits, regardless of their names on the target.
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

- name: Restore missing entries, and keep entries that exist
  netops.conntrack.conntrack_snapshot:
    state: restored
    path: /var/lib/conntrack.gz
  become: true

- name: Save only NATed flows with a mark
  netops.conntrack.conntrack_snapshot:
    state: saved
    path: /root/marked.conntrack
    match:
      mark: 0x10
      nat: any
  become: true

- name: Restore zone 5, and delete all other entries in it
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
  description: Metadata of the snapshot. Empty if the snapshot is refused.
  type: dict
  returned: always
  contains:
    entries:
      description: Number of entries in the snapshot.
      type: int
      sample: 48211
    expectations:
      description: Number of expectations in the snapshot.
      type: int
      sample: 3
    host:
      description: Name of the host on which the snapshot was saved.
      type: str
      sample: gw1
    kernel:
      description: Kernel release of that host.
      type: str
      sample: 6.12.9
    time:
      description: Time at which saving began, in UTC.
      type: str
      sample: '2030-01-31T12:00:00Z'
    version:
      description: Version of the format.
      type: int
      sample: 1
  sample:
    entries: 48211
    expectations: 3
    host: gw1
    kernel: 6.12.9
    time: '2030-01-31T12:00:00Z'
    version: 1
checksum:
  description: SHA-256 checksum that the snapshot contains. Empty if the snapshot is refused, and in check mode with
    O(state=saved).
  type: str
  returned: always
  sample: d0f7d272fe57080ce3535c99b2dd4f31b11d866fe39ec176924a15994d563c79
counts:
  description: Number of entries by result. In check mode, the prediction. With O(state=saved), all are 0.
  type: dict
  returned: always
  contains:
    created:
      description: Number of entries that did not exist.
      type: int
      sample: 48210
    updated:
      description: Number of entries that were changed in place.
      type: int
      sample: 0
    replaced:
      description: Number of entries that were deleted and created again.
      type: int
      sample: 0
    deleted:
      description: Number of entries that O(purge) deleted.
      type: int
      sample: 0
    unchanged:
      description: Number of entries that existed and stay unchanged.
      type: int
      sample: 0
    failed:
      description: Number of entries that were not restored, or were only partly restored.
      type: int
      sample: 1
  sample: {created: 48210, updated: 0, replaced: 0, deleted: 0, unchanged: 0, failed: 1}
expectation_counts:
  description: Number of expectations by result, with the keys of RV(counts).
  type: dict
  returned: always
  sample: {created: 3, updated: 0, replaced: 0, deleted: 0, unchanged: 0, failed: 0}
unknown:
  description: Number of entries for which the module cannot determine whether it created them, because the kernel's
    answers were lost. RV(counts) does not contain these entries. If this number is not 0, the result is C(changed).
  type: int
  returned: always
  sample: 0
kept:
  description: Number of entries that O(purge) kept because they belong to the SSH connection that runs this task.
  type: int
  returned: always
  sample: 0
failed_entries:
  description: The first O(report_limit) entries and expectations that were not restored, or were only partly restored.
  type: list
  elements: dict
  returned: always
  contains:
    index:
      description: Position of the record in the snapshot, from 0. Expectations follow the entries. Null for an entry
        that O(purge) could not delete.
      type: int
      sample: 4711
    entry:
      description: The entry or expectation as in the snapshot.
      type: dict
      sample:
        family: ipv4
        protocol: udp
        original: {source: 10.1.0.2, destination: 192.0.2.53, source_port: 40000, destination_port: 53}
        reply: {source: 192.0.2.53, destination: 10.1.0.2, source_port: 53, destination_port: 40000}
        status: [confirmed]
        timeout: 599
        mark: 0
    msg:
      description: The reason, and what to do.
      type: str
      sample: udp 10.1.0.2:40000 -> 192.0.2.53:53 exists already and differs in mark; set on_existing to update to
        change it
  sample:
    - index: 4711
      entry:
        family: ipv4
        protocol: udp
        original: {source: 10.1.0.2, destination: 192.0.2.53, source_port: 40000, destination_port: 53}
        reply: {source: 192.0.2.53, destination: 10.1.0.2, source_port: 53, destination_port: 40000}
        status: [confirmed]
        timeout: 599
        mark: 0
      msg: udp 10.1.0.2:40000 -> 192.0.2.53:53 exists already and differs in mark; set on_existing to update to
        change it
"""

from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.match import MATCH, match_of
from ansible_collections.netops.conntrack.plugins.module_utils._argspec.purge import SCOPE, scope_of
from ansible_collections.netops.conntrack.plugins.module_utils._module import REPORT, check_numbers, run

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
    from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
    from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

    params = module.params
    check_numbers(module, "report_limit")
    labels = LabelMap.read(params["label_map"])
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
        raise InvalidValue("purge", "has an effect only on a restore; leave it out")
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
            **REPORT,
        },
        supports_check_mode=True,
    )
    run(module, save_or_restore, NOTHING)


if __name__ == "__main__":
    main()
