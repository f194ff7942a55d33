#!/usr/bin/python
# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declare all that connection tracking is to be on a gateway."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conntrack_config
short_description: Declare all that connection tracking is to be on a gateway
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Takes one declaration for settings, timeout policies, entries, expectations, and for what may not be in the table.
  - The whole of it is checked on the controller, against the JSON Schema that is in the collection's C(docs) and by
    what the modules of the sections know. All errors come in one message, a line for each, and no host is touched.
  - On the host, all sections are planned before anything is changed, each on the table that those before it will leave.
    What is known not to be possible then makes the module fail with nothing changed.
  - Sections are applied in the order of the options below. Should one fail all the same, those behind it are not
    reached, and the result says of each what was done.
  - What is not declared is left alone, apart from what a purge or O(config.absent) matches.
extends_documentation_fragment:
  - netops.conntrack._attributes
  - netops.conntrack._attributes.changes
  - netops.conntrack._labels
options:
  config:
    description:
      - The declaration. A section that is left out, or null, is left alone.
    type: dict
    suboptions:
      settings:
        description:
          - The settings, as M(netops.conntrack.conntrack_settings) takes them, with C(persist) and C(persist_in).
        type: dict
      timeout_policies:
        description:
          - Timeout policies and protocols' default timeouts, each as M(netops.conntrack.conntrack_timeout_policy) takes
            one.
        type: list
        elements: dict
      absent:
        description:
          - What may not be, a list of matches of the keys described with O(ignore:match) of
            M(netops.conntrack.conntrack_flush), also with C(except). What they match is removed as that does it.
          - The flow of the SSH session by which this very task came is never removed.
          - An entry that is declared may not match, neither as it is when it is created nor as it is there. That is an
            error, and nothing is changed.
        type: list
        elements: raw
      entries:
        description:
          - The entries that shall be.
        type: dict
        suboptions:
          declared:
            description:
              - The entries, each a dictionary of the keys that M(netops.conntrack.conntrack_entry) has for one. An
                empty list declares that there shall be none.
            type: list
            elements: dict
            required: true
          on_existing:
            description:
              - What to do where an entry is there already and differs, as with M(netops.conntrack.conntrack_entries).
            type: str
            choices: [update, keep, fail]
            default: update
          replace:
            description:
              - Delete an entry and create it again where the kernel cannot change it in place. This interrupts live
                connections.
            type: bool
            default: false
          timeout_min:
            description:
              - Set the countdown to the C(timeout) of an entry where fewer seconds than this remain.
            type: int
            default: 0
          purge:
            description:
              - Delete what is in O(config.entries.scope) and not declared. The flow of the SSH session is left alone.
            type: bool
            default: false
          scope:
            description:
              - Which entries may be deleted, as a match or a list of them. Required with
                O(config.entries.purge=true), and an error without it. A null is an error.
            type: raw
      expectations:
        description:
          - Expectations, each as M(netops.conntrack.conntrack_expectation) takes one. Their masters may be among
            O(config.entries.declared).
        type: list
        elements: dict
  src:
    description:
      - A file with the declaration instead, in JSON or YAML. It lies on the controller, where it may be encrypted by
        Ansible Vault, unless O(remote_src=true).
      - It is data and no template.
    type: path
  remote_src:
    description:
      - Whether O(src) lies on the target. It is checked there before anything is changed, and there YAML takes PyYAML.
    type: bool
    default: false
  report_limit:
    description:
      - How many changes, and how many failures, are returned and shown of each section at most. Counts are always
        whole.
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
- name: All that a gateway's file says
  netops.conntrack.conntrack_config:
    src: gateway.yml
  become: true

- name: Count bytes, let idle connections go, and have no flow to a network that is gone
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

- name: The flows of one mark are these, and no others
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
  description: How many things were what, or would be in check mode, in all sections together.
  type: dict
  returned: always
  contains:
    created:
      description: Things that were not there.
      type: int
    updated:
      description: Things that were changed. A setting counts once for the kernel and once for each line of a file.
      type: int
    replaced:
      description: Things that were deleted and created again.
      type: int
    deleted:
      description: Things that were deleted, those among them that matched O(config.absent).
      type: int
    unchanged:
      description: Things that were as declared.
      type: int
    failed:
      description: Things that are not as declared.
      type: int
  sample: {created: 2, updated: 1, replaced: 0, deleted: 4, unchanged: 7, failed: 0}
settings:
  description:
    - What became of the settings. C(outcome), C(changed), C(counts), C(changes) and C(msg) are those that every section
      has.
  type: dict
  returned: always
  contains: &section
    outcome:
      description:
        - V(applied), which in check mode it would have been, V(failed), V(not reached) after a section that failed, or
          V(not declared).
      type: str
    changed:
      description: Whether anything was changed.
      type: bool
    counts:
      description:
        - The same as RV(counts), of this section alone. If the task fails, sections with the outcome V(not reached) or
          V(not declared) do not have it.
      type: dict
    changes:
      description:
        - What was changed, the first O(report_limit) of it. Settings have the shape of
          RV(netops.conntrack.conntrack_settings#module:changes), all others that of
          RV(netops.conntrack.conntrack_entries#module:changes) with C(policy) or C(expectation) in place of C(entry).
      type: list
      elements: dict
    msg:
      description: Why the section failed, empty if it did not.
      type: str
  sample:
    outcome: applied
    changed: true
    counts: {created: 0, updated: 1, replaced: 0, deleted: 0, unchanged: 0, failed: 0}
    changes:
      - {key: accounting, where: kernel, before: 0, after: 1}
    msg: ""
timeout_policies:
  description: What became of the timeout policies.
  type: dict
  returned: always
  contains: *section
absent:
  description:
    - What became of what may not be. C(kept) counts the entries that stay because they carry the SSH session.
  type: dict
  returned: always
  contains: *section
entries:
  description:
    - What became of the entries. C(kept) and C(failed_entries) are those of
      RV(netops.conntrack.conntrack_entries#module:failed_entries).
  type: dict
  returned: always
  contains: *section
expectations:
  description:
    - What became of the expectations. C(evicted) are those that the kernel forgot to make room.
  type: dict
  returned: always
  contains: *section
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.config import config_of, outline
from ansible_collections.netops.conntrack.plugins.module_utils._argspec.label_map import LABEL_MAP, labels_of
from ansible_collections.netops.conntrack.plugins.module_utils._module import (
    NETNS,
    REPORT_LIMIT,
    check_not_negative,
    run,
)


def declare(module: AnsibleModule) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.config import Context, reconcile
    from ansible_collections.netops.conntrack.plugins.module_utils.client.host.ssh_session import own_connections

    check_not_negative(module, "report_limit")
    labels = labels_of(module)
    declaration = config_of(module, labels)
    removes = bool(declaration.absent) or declaration.scope is not None
    scene = Context(labels, own_connections() if removes else frozenset(), module.params["report_limit"])
    result = reconcile(declaration, module.check_mode, scene)
    for sentence in result.pop("warnings"):
        module.warn(sentence)
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "dict", "options": outline()},
            "src": {"type": "path"},
            "remote_src": {"type": "bool", "default": False},
            **REPORT_LIMIT,
            **LABEL_MAP,
            **NETNS,
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
