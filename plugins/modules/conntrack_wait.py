#!/usr/bin/python
# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until matching entries have ended, or exist."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conntrack_wait
short_description: Wait until matching entries have ended, or exist
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Waits until at most O(max_count), or at least O(min_count), entries of the connection tracking table match. The
    module changes nothing. To drain a host, wait until no connection to this host is in the state V(established).
  - An entry counts as ended when it no longer matches, because it is closed, in another state, deleted or expired. The
    module also waits for entries that begin to match during the wait.
  - The kernel's events wake the module, so it rarely reads the table. If C(net.netfilter.nf_conntrack_events) is 0, the
    kernel sends no events. The module then reads some entries or the table at short intervals.
  - With O(max_count), the module ends the wait only after it has checked the table itself. Lost events therefore make
    no difference.
  - With O(min_count), the module also counts entries that begin and end while it waits, even if they last less than a
    millisecond. To count such an entry, the module must receive the first and the last event of the entry in the same
    turn. A turn is the time between two progress lines. The module does not count the entry if one of these events is
    lost, occurs between two turns, or is not sent by the kernel. If O(match) contains timeouts, ages, bytes or packets,
    the module counts only entries that it finds in the table.
  - After O(timeout), the module fails. The message has the number of remaining entries, and describes the first
    entries.
  - While the module waits, it prints progress lines with the number of remaining entries, the number that end per
    second, and the estimated remaining time. The command that runs the play prints these lines to its standard error.
extends_documentation_fragment:
  - netops.conntrack._attributes
  - netops.conntrack._attributes.read_only
  - netops.conntrack._match.changing
  - netops.conntrack._labels
attributes:
  action:
    description: Indicates this has a corresponding action plugin so some parts of the options can be executed on the
      controller.
    support: full
    details:
      - The action plugin waits in turns of up to a minute, and prints the progress between two turns. A task with
        C(async) waits in one turn, and prints no progress.
  async:
    description: Supports being used with the C(async) keyword.
    support: full
  check_mode:
    support: full
    details:
      - In check mode, the module reads the table once, does not wait, and does not fail. RV(reached) shows whether the
        number of matching entries meets O(max_count) or O(min_count).
options:
  all:
    description:
      - Whether to count every entry of the table, except those that O(except) excludes.
      - Exactly one of O(match) and O(all) is required.
    type: bool
    default: false
  max_count:
    description:
      - The wait ends when at most this number of entries match. The default is 0 unless O(min_count) is set.
    type: int
  min_count:
    description:
      - The wait ends when at least this number of entries match. The entries in RV(ended) count as well.
    type: int
  timeout:
    description:
      - Maximum time to wait, in seconds. Afterwards the module checks the table once more. It fails if the number of
        matching entries still does not meet O(max_count) or O(min_count).
      - With 0, the module checks the table once and does not wait.
    type: float
    default: 300
  report_limit:
    description:
      - Maximum number of matching entries to return. All counts are complete.
    type: int
    default: 100
seealso:
  - module: netops.conntrack.conntrack_flush
  - module: netops.conntrack.conntrack_info
  - module: ansible.builtin.wait_for
"""

EXAMPLES = r"""
- name: Wait until no client is connected to the old server
  netops.conntrack.conntrack_wait:
    match:
      protocol: tcp
      destination: 10.20.0.7
      state: established
    timeout: 600
  become: true

- name: Wait up to two minutes until at most ten connections remain, and continue in any case
  netops.conntrack.conntrack_wait:
    match:
      reply_source: 10.20.0.7
      state: established
    max_count: 10
    timeout: 120
  register: drained
  failed_when: drained is failed and not drained.timed_out
  become: true

- name: Wait for the first flow from the other gateway
  netops.conntrack.conntrack_wait:
    match:
      source: 10.30.0.0/16
    min_count: 1
    timeout: 30
  become: true
"""

RETURN = r"""
elapsed:
  description: Duration of the wait in seconds.
  type: float
  returned: always
  sample: 42.618
initial:
  description: Number of entries that matched at the start.
  type: int
  returned: always
  sample: 20000
remaining:
  description: Number of entries that match at the end.
  type: int
  returned: always
  sample: 0
ended:
  description:
    - Number of entries that began, matched and ended while the module waited, and whose events it received.
    - Without O(min_count), this number is 0.
  type: int
  returned: always
  sample: 0
reached:
  description:
    - Whether at most O(max_count) entries match at the end, or at least O(min_count) entries match or have ended.
  type: bool
  returned: always
  sample: true
timed_out:
  description: Whether the task failed because of the timeout, and not because of another error.
  type: bool
  returned: always
  sample: false
entries:
  description:
    - The first O(report_limit) entries that match at the end. They have the format of
      RV(netops.conntrack.conntrack_info#module:entries).
  type: list
  elements: dict
  returned: always
  sample: []
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.match import REQUIRED_MATCH, match_of
from ansible_collections.netops.conntrack.plugins.module_utils._argspec.wait import WAIT, goal_of, seconds_of
from ansible_collections.netops.conntrack.plugins.module_utils._module import REPORT, check_numbers, run


def look_until(module: AnsibleModule) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils._operations.wait import wait
    from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
    from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

    check_numbers(module, "report_limit")
    goal, seconds = goal_of(module), seconds_of(module)
    labels = LabelMap.read(module.params["label_map"])
    match = match_of(module, labels)
    with Table() as table:
        return wait(table, match, goal, seconds, module.params["report_limit"], labels, module.check_mode)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **REQUIRED_MATCH,
            **WAIT,
            "all": {"type": "bool", "default": False},
            **REPORT,
        },
        mutually_exclusive=[("max_count", "min_count")],
        supports_check_mode=True,
    )
    nothing_done = {
        **dict.fromkeys(("elapsed", "initial", "remaining", "ended"), 0),
        **dict.fromkeys(("reached", "timed_out"), False),
        "entries": [],
    }
    run(module, look_until, nothing_done, reads_only=True)


if __name__ == "__main__":
    main()
