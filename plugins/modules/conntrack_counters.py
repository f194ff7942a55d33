#!/usr/bin/python
# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Zero the counters of matching entries."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conntrack_counters
short_description: Zero the counters of connection tracking entries, returning what they were
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Sets the packet and byte counters of the entries that match to zero and returns what they had counted.
  - The kernel reads and resets a counter at once. No packet is counted twice and none is lost, so the results of one
    task after the other add up.
  - Without O(match) and O(except), the counters of the whole table are zeroed as they are read, in one pass. This needs
    no C(all), because no entry is removed or changed otherwise. With one of them, the table is read first, and then
    each entry that matches is zeroed by itself; no other is touched.
  - Entries that have counted nothing are left alone. The module warns about entries without counters, which began
    before accounting was turned on, see RV(uncounted).
  - Needs accounting (C(net.netfilter.nf_conntrack_acct)), which
    O(netops.conntrack.conntrack_settings#module:accounting) turns on.
extends_documentation_fragment:
  - netops.conntrack._attributes
  - netops.conntrack._attributes.changes
  - netops.conntrack._match
  - netops.conntrack._labels
options:
  state:
    description:
      - What is to become of the counters.
    type: str
    choices: [zeroed]
    default: zeroed
  report_limit:
    description:
      - How many of the zeroed entries to return and to show in the diff. Counts and RV(total) are always whole, but
        the counters of each further entry are not returned anywhere else.
    type: int
    default: 100
attributes:
  idempotent:
    support: partial
    details:
      - Where packets flow between two runs, the second has something to zero again.
seealso:
  - module: netops.conntrack.conntrack_info
  - module: netops.conntrack.conntrack_settings
"""

EXAMPLES = r"""
- name: What the hosts of a network have sent and received since the last time
  netops.conntrack.conntrack_counters:
    match:
      source: 10.1.0.0/16
    report_limit: 100000
  register: traffic
  become: true

- name: The sum of it
  ansible.builtin.debug:
    msg: "{{ traffic.total.original.bytes }} bytes out, {{ traffic.total.reply.bytes }} bytes in"

- name: Begin to count anew, all but one zone
  netops.conntrack.conntrack_counters:
    except:
      zone: 5
  become: true
"""

RETURN = r"""
matched:
  description: How many entries match.
  type: int
  returned: always
  sample: 17
zeroed:
  description: How many of them had counted something and were zeroed, or in check mode would have been.
  type: int
  returned: always
  sample: 12
gone:
  description: How many of them vanished between the reading and the zeroing, and their counts with them.
  type: int
  returned: always
  sample: 0
uncounted:
  description:
    - How many matching entries have no counters, because they began before accounting was turned on. They are part of
      RV(matched), but not of RV(zeroed) and RV(total).
  type: int
  returned: always
  sample: 0
total:
  description: The sum of the counters of all entries that were zeroed, by direction.
  type: dict
  returned: always
  sample:
    original: {packets: 120, bytes: 9600}
    reply: {packets: 110, bytes: 164000}
entries:
  description:
    - The first O(report_limit) of the entries that were zeroed, with C(counters) as they were then. They have the shape
      of RV(netops.conntrack.conntrack_info#module:entries).
  type: list
  elements: dict
  returned: always
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.label_map import LABEL_MAP, labels_of
from ansible_collections.netops.conntrack.plugins.module_utils._argspec.match import MATCH, match_of
from ansible_collections.netops.conntrack.plugins.module_utils._module import (
    NETNS,
    REPORT_LIMIT,
    check_not_negative,
    run,
)

#: The result where nothing was done.
NOTHING = {
    "matched": 0,
    "zeroed": 0,
    "gone": 0,
    "uncounted": 0,
    "total": {"original": {"packets": 0, "bytes": 0}, "reply": {"packets": 0, "bytes": 0}},
    "entries": [],
}


def reset(module: AnsibleModule) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils._operations.counters import (
        check_accounting,
        warning_of,
        zero,
    )
    from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

    params = module.params
    check_not_negative(module, "report_limit")
    labels = labels_of(module)
    match = match_of(module, labels)
    check_accounting()
    with Table() as table:
        result = zero(table, match, params["report_limit"], labels, module.check_mode)
    warning = warning_of(result)
    if warning:
        module.warn(warning)
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["zeroed"], "default": "zeroed"},
            **MATCH,
            **REPORT_LIMIT,
            **LABEL_MAP,
            **NETNS,
        },
        supports_check_mode=True,
    )
    run(module, reset, NOTHING)


if __name__ == "__main__":
    main()
