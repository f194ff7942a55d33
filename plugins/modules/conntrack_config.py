#!/usr/bin/python
# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declare the connection tracking configuration of a gateway."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conntrack_config
short_description: Declare the connection tracking configuration of a gateway
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Applies one declaration of settings, timeout policies, entries and expectations. The declaration can also contain
    entries that must not exist.
  - Before any change, the whole declaration is checked. The controller validates it against the JSON Schema in the
    folder C(docs) of the collection, and applies the same checks as the module of each section. If it finds errors, it
    sends nothing to the host. With O(remote_src=true), the target applies the checks instead, without the schema.
  - If there are errors, one message lists all errors, one per line, and the module changes nothing.
  - On the host, the module plans all sections before it changes anything. When it plans a section, it takes the planned
    changes of the preceding sections into account. If it finds a change that is not possible, it fails and changes
    nothing.
  - The module applies the sections in the order of the options below. If a section fails while it is applied, the
    module does not apply the following sections. The result contains the changes of each section.
  - The module never changes anything that is not declared, except entries that a purge or O(config.absent) selects.
extends_documentation_fragment:
  - netops.conntrack._attributes
  - netops.conntrack._attributes.changes
  - netops.conntrack._labels
options:
  config:
    description:
      - The declaration. The module does not change sections that are missing or null.
    type: dict
    suboptions:
      settings:
        description:
          - Settings, with the options of M(netops.conntrack.conntrack_settings), including C(persist) and
            C(persist_in).
        type: dict
      timeout_policies:
        description:
          - Timeout policies and default timeouts of protocols, each with the options of
            M(netops.conntrack.conntrack_timeout_policy).
        type: list
        elements: dict
      absent:
        description:
          - Entries that must not exist, as a list of matches. O(ignore:match) of M(netops.conntrack.conntrack_flush)
            describes the keys. A match can also have the key C(except) to exclude entries. The module removes matching
            entries as M(netops.conntrack.conntrack_flush) does.
          - The entry of the SSH connection that runs this task is never removed.
          - No match may select an entry that O(config.entries) declares. This applies to the entry as declared, and to
            the existing entry. Otherwise, the task fails and changes nothing.
        type: list
        elements: raw
      entries:
        description:
          - Entries that must exist.
        type: dict
        suboptions:
          declared:
            description:
              - List of entries, each with the keys of an entry in M(netops.conntrack.conntrack_entry). An empty list is
                valid and declares no entries.
            type: list
            elements: dict
            required: true
          on_existing:
            description:
              - Action if an entry exists and differs from its declaration, as in M(netops.conntrack.conntrack_entries).
            type: str
            choices: [update, keep, fail]
            default: update
          replace:
            description:
              - Whether to delete an entry and create it again if the kernel cannot change it in place. This interrupts
                live connections.
            type: bool
            default: false
          timeout_min:
            description:
              - Minimum remaining timeout in seconds. If less remains, the module sets the timeout of the entry to the
                C(timeout) in its declaration.
            type: int
            default: 0
          purge:
            description:
              - Whether to delete entries in O(config.entries.scope) that are not declared. The entry of the SSH
                connection that runs this task is kept.
            type: bool
            default: false
          scope:
            description:
              - Match, or list of matches, that selects the entries that may be deleted. Required with
                O(config.entries.purge=true). Without O(config.entries.purge=true), this option is an error. A null is
                an error, too.
            type: raw
      expectations:
        description:
          - Expectations, each with the options of M(netops.conntrack.conntrack_expectation). Their masters may be
            declared in O(config.entries.declared).
        type: list
        elements: dict
  src:
    description:
      - Path of a JSON or YAML file with the declaration, instead of O(config). Unless O(remote_src=true), the file is
        on the controller. You can encrypt it with Ansible Vault.
      - The file is not processed as a template.
    type: path
  remote_src:
    description:
      - Whether O(src) is on the target. The declaration is then checked on the target before anything is changed, and
        the target needs PyYAML to read YAML.
    type: bool
    default: false
  report_limit:
    description:
      - Maximum number of changes, and of failures, to return per section. For entries, it also limits the diff. All
        counts are complete. Changes of settings are always returned in full.
    type: int
    default: 100
requirements:
  - The Python package C(jsonschema) on the controller, unless O(remote_src=true).
seealso:
  - module: netops.conntrack.conntrack_entries
  - module: netops.conntrack.conntrack_expectation
  - module: netops.conntrack.conntrack_flush
  - module: netops.conntrack.conntrack_settings
  - module: netops.conntrack.conntrack_timeout_policy
"""

EXAMPLES = r"""
- name: Apply the declaration of a gateway from a file
  netops.conntrack.conntrack_config:
    src: gateway.yml
  become: true

- name: Count bytes, shorten the timeout of idle connections, and remove all entries of a former network
  netops.conntrack.conntrack_config:
    config:
      settings:
        accounting: true
        persist: true
      timeout_policies:
        - default: true
          protocol: tcp
          timeouts:
            established: 7200
      absent:
        - destination: 10.66.0.0/16
        - reply_source: 10.66.0.0/16
  become: true

- name: Declare the entries of one mark, and delete all others with this mark
  netops.conntrack.conntrack_config:
    config:
      entries:
        declared:
          - protocol: udp
            original:
              source: 10.1.0.2
              destination: 192.0.2.53
              source_port: 40000
              destination_port: 53
            mark: 0x10
            timeout: 600
        purge: true
        scope:
          mark: 0x10
  become: true
"""

RETURN = r"""
counts:
  description: Number of items by result, in all sections together. In check mode, the prediction.
  type: dict
  returned: always
  contains:
    created:
      description: Number of items that did not exist.
      type: int
      sample: 2
    updated:
      description: Number of items that were changed. For settings, this is the number of changes in the kernel and in
        files.
      type: int
      sample: 1
    replaced:
      description: Number of items that were deleted and created again.
      type: int
      sample: 0
    deleted:
      description: Number of items that were deleted, including entries that matched O(config.absent).
      type: int
      sample: 1
    unchanged:
      description: Number of items that were as declared.
      type: int
      sample: 7
    failed:
      description: Number of items that are not as declared.
      type: int
      sample: 0
  sample: {created: 2, updated: 1, replaced: 0, deleted: 1, unchanged: 7, failed: 0}
settings:
  description:
    - Result of the section O(config.settings). Every section returns C(outcome), C(changed), C(changes) and C(msg), and
      with exceptions C(counts).
  type: dict
  returned: always
  contains: &section
    outcome:
      description:
        - V(applied), V(failed), V(not reached) or V(not declared). V(not reached) means that a preceding section
          failed. In check mode, V(applied) is a prediction.
      type: str
      sample: applied
    changed:
      description: Whether the section changed anything.
      type: bool
      sample: false
    counts:
      description:
        - The same as RV(counts), for this section alone. Sections with the outcome V(not reached) do not have this key.
          Sections with the outcome V(not declared) have it only if the task succeeds.
      type: dict
      sample: {created: 0, updated: 0, replaced: 0, deleted: 0, unchanged: 7, failed: 0}
    changes:
      description:
        - The first O(report_limit) changes. Settings have the format of
          RV(netops.conntrack.conntrack_settings#module:changes). All other sections have the format of
          RV(netops.conntrack.conntrack_entries#module:changes), with C(policy) or C(expectation) instead of C(entry).
      type: list
      elements: dict
      sample: []
    msg:
      description: Why the section failed. Empty if it did not fail.
      type: str
      sample: ""
  sample:
    outcome: applied
    changed: true
    counts: {created: 0, updated: 1, replaced: 0, deleted: 0, unchanged: 0, failed: 0}
    changes:
      - {key: accounting, where: kernel, before: 0, after: 1}
    msg: ""
timeout_policies:
  description: Result of the section O(config.timeout_policies).
  type: dict
  returned: always
  contains: *section
  sample:
    outcome: applied
    changed: true
    counts: {created: 1, updated: 0, replaced: 0, deleted: 0, unchanged: 0, failed: 0}
    changes:
      - index: 0
        operation: created
        policy: {name: web, family: ipv4, protocol: tcp, timeouts: {established: 3600}}
        changes: []
    msg: ""
absent:
  description:
    - Result of the section O(config.absent). C(kept) is the number of entries that were kept because they belong to the
      SSH connection that runs this task.
  type: dict
  returned: always
  contains: *section
  sample:
    outcome: applied
    changed: true
    counts: {created: 0, updated: 0, replaced: 0, deleted: 1, unchanged: 0, failed: 0}
    changes:
      - index: null
        operation: deleted
        entry:
          family: ipv4
          protocol: udp
          original: {source: 10.66.0.2, destination: 192.0.2.53, source_port: 40000, destination_port: 53}
          reply: {source: 192.0.2.53, destination: 10.66.0.2, source_port: 53, destination_port: 40000}
          status: [confirmed]
          timeout: 25
          mark: 0
          id: 1748080083
          use: 1
        changes: []
    msg: ""
    kept: 0
entries:
  description:
    - Result of the section O(config.entries). C(kept) and C(failed_entries) have the meaning that they
      have in M(netops.conntrack.conntrack_entries).
  type: dict
  returned: always
  contains: *section
  sample:
    outcome: applied
    changed: true
    counts: {created: 1, updated: 0, replaced: 0, deleted: 0, unchanged: 7, failed: 0}
    changes:
      - index: 0
        operation: created
        entry:
          family: ipv4
          protocol: udp
          original: {source: 10.1.0.2, destination: 192.0.2.53, source_port: 40000, destination_port: 53}
          timeout: 600
          mark: 16
        changes: []
    msg: ""
    kept: 0
    failed_entries: []
expectations:
  description:
    - Result of the section O(config.expectations). C(evicted) lists the expectations that the kernel removed to make
      room.
  type: dict
  returned: always
  contains: *section
  sample:
    outcome: not declared
    changed: false
    counts: {created: 0, updated: 0, replaced: 0, deleted: 0, unchanged: 0, failed: 0}
    changes: []
    msg: ""
    evicted: []
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.config import config_of, outline
from ansible_collections.netops.conntrack.plugins.module_utils._module import REPORT, check_numbers, run


def declare(module: AnsibleModule) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.config import Context, reconcile
    from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
    from ansible_collections.netops.conntrack.plugins.module_utils.client.host.ssh_session import own_connections

    check_numbers(module, "report_limit")
    labels = LabelMap.read(module.params["label_map"])
    declaration = config_of(module, labels)
    removes = bool(declaration.absent) or declaration.scope is not None
    context = Context(labels, own_connections() if removes else frozenset(), module.params["report_limit"])
    return reconcile(declaration, module.check_mode, context)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "dict", "options": outline()},
            "src": {"type": "path"},
            "remote_src": {"type": "bool", "default": False},
            **REPORT,
        },
        required_one_of=[("config", "src")],
        mutually_exclusive=[("config", "src")],
        supports_check_mode=True,
    )
    counts = {"created": 0, "updated": 0, "replaced": 0, "deleted": 0, "unchanged": 0, "failed": 0}
    nothing = {"outcome": "not reached", "changed": False, "changes": [], "msg": ""}
    nothing_done = {
        "counts": counts,
        "settings": nothing,
        "timeout_policies": nothing,
        "absent": {**nothing, "kept": 0},
        "entries": {**nothing, "kept": 0, "failed_entries": []},
        "expectations": {**nothing, "evicted": []},
    }
    run(module, declare, nothing_done)


if __name__ == "__main__":
    main()
