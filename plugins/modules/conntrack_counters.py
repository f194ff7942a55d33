#!/usr/bin/python
# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Zero the counters of matching entries."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conntrack_counters
short_description: Zero the counters of connection tracking entries and return their previous values
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Zeroes the packet and byte counters of matching entries and returns their previous values.
  - The kernel reads and zeroes a counter atomically. Every packet of an existing entry therefore counts in exactly one
    task, so you can add up the results of successive tasks. If an entry ends between two tasks, its counts since the
    first task are lost.
  - Without O(match) and O(except), the module reads and zeroes the counters of the whole table in one pass. Unlike
    other modules, it does not require C(all) for this, because it removes no entry and changes nothing else.
  - With O(match) or O(except), the module first reads the table. It then zeroes the counters of each matching entry
    individually, and does not touch other entries.
  - The module does not touch entries whose counters are zero. If a connection began before accounting was turned on,
    its entry has no counters. The module warns about such entries, see RV(uncounted).
  - Requires accounting (C(net.netfilter.nf_conntrack_acct)). Turn it on with
    O(netops.conntrack.conntrack_settings#module:accounting).
extends_documentation_fragment:
  - netops.conntrack._attributes
  - netops.conntrack._attributes.changes
  - netops.conntrack._match
  - netops.conntrack._labels
options:
  state:
    description:
      - State of the counters after the task.
    type: str
    choices: [zeroed]
    default: zeroed
  report_limit:
    description:
      - Maximum number of zeroed entries to return and to show in the diff. All counts and RV(total) are complete. The
        individual counters of further entries are lost.
    type: int
    default: 100
attributes:
  idempotent:
    support: partial
    details:
      - If packets arrive between two runs, the second run zeroes the counters of their entries again.
seealso:
  - module: netops.conntrack.conntrack_info
  - module: netops.conntrack.conntrack_settings
"""

EXAMPLES = r"""
- name: Read and zero the counters of a network
  netops.conntrack.conntrack_counters:
    match:
      source: 10.1.0.0/16
    report_limit: 100000
  register: traffic
  become: true

- name: Show the number of bytes since the last run
  ansible.builtin.debug:
    msg: "{{ traffic.total.original.bytes }} bytes out, {{ traffic.total.reply.bytes }} bytes in"

- name: Zero all counters, except those of one zone
  netops.conntrack.conntrack_counters:
    except:
      zone: 5
  become: true
"""

RETURN = r"""
matched:
  description: Number of matching entries.
  type: int
  returned: always
  sample: 17
zeroed:
  description: Number of matching entries with counters above zero that were zeroed. In check mode, the prediction.
  type: int
  returned: always
  sample: 12
gone:
  description: Number of matching entries that ended after the module had read them and before it could zero them. Their
    counts are lost.
  type: int
  returned: always
  sample: 0
uncounted:
  description:
    - Number of matching entries without counters, because the connections began before accounting was turned on.
      RV(matched) includes them, RV(zeroed) and RV(total) do not.
  type: int
  returned: always
  sample: 0
total:
  description: Sum of the counters of all zeroed entries, by direction.
  type: dict
  returned: always
  sample:
    original: {packets: 120, bytes: 9600}
    reply: {packets: 110, bytes: 164000}
entries:
  description:
    - The first O(report_limit) zeroed entries, with their previous C(counters). They have the format of
      RV(netops.conntrack.conntrack_info#module:entries).
  type: list
  elements: dict
  returned: always
  sample:
    - family: ipv4
      protocol: udp
      original: {source: 10.1.0.2, destination: 192.0.2.53, source_port: 40000, destination_port: 53}
      reply: {source: 192.0.2.53, destination: 10.1.0.2, source_port: 53, destination_port: 40000}
      status: [seen_reply, assured, confirmed]
      timeout: 118
      counters:
        original: {packets: 12, bytes: 960}
        reply: {packets: 11, bytes: 16400}
      mark: 0
      id: 1748080083
      use: 1
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.match import MATCH, match_of
from ansible_collections.netops.conntrack.plugins.module_utils._module import REPORT, check_numbers, run

#: The result where nothing was done.
NOTHING = {
    **dict.fromkeys(("matched", "zeroed", "gone", "uncounted"), 0),
    "total": {"original": {"packets": 0, "bytes": 0}, "reply": {"packets": 0, "bytes": 0}},
    "entries": [],
}


def reset(module: AnsibleModule) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils._operations.counters import (
        check_accounting,
        warnings_of,
        zero,
    )
    from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
    from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

    params = module.params
    check_numbers(module, "report_limit")
    labels = LabelMap.read(params["label_map"])
    match = match_of(module, labels)
    check_accounting()
    with Table() as table:
        result = zero(table, match, params["report_limit"], labels, module.check_mode)
    return {**result, "warnings": warnings_of(result)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["zeroed"], "default": "zeroed"},
            **MATCH,
            **REPORT,
        },
        supports_check_mode=True,
    )
    run(module, reset, NOTHING)


if __name__ == "__main__":
    main()
