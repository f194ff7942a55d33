#!/usr/bin/python
# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until matching entries are gone, or are there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conntrack_wait
short_description: Wait until matching entries are gone, or are there
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Waits until no more entries of the kernel's connection tracking table match than O(max_count), or no fewer than
    O(min_count), and changes nothing. To drain a host, wait until no connection to it is in the state
    V(established).
  - An entry has gone as soon as it does not match any more, be it closed, in another state, deleted or expired. What
    comes to match meanwhile is waited for, too.
  - The kernel's events wake it; it does not read the table over and over. That the wait is over is seen in the table
    itself, so it makes no difference if events are lost. It also works where
    C(net.netfilter.nf_conntrack_events) is 0.
  - With O(min_count), entries that begin and end while the module waits count as well, even if they last less than a
    millisecond. Their events must reach the module. Events that are lost, that occur between two turns, or that the
    kernel does not send are not counted, nor is an entry that begins in one turn and ends in the next. A turn is the
    time between two progress lines. Matches on timeouts, ages, bytes and packets count entries of the table only.
  - When the time is up, it fails and says how many are left, and who.
  - While it waits, a line now and then says how many are left, how many go in a second, and when about all will be
    gone. These lines go to the standard error of the command that runs the play.
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
      - The action plugin waits in turns of up to a minute, and says how far it is between two. A task with C(async)
        waits in one turn, and says nothing until it is over.
  async:
    description: Supports being used with the C(async) keyword.
    support: full
  check_mode:
    support: full
    details:
      - In check mode it looks once, does not wait, and does not fail. RV(reached) says whether the wait would be over.
options:
  all:
    description:
      - Count every entry of the table, apart from those that O(except) takes away.
      - One of O(match) and O(all) must be given, and not both.
    type: bool
    default: false
  max_count:
    description:
      - Wait until no more entries than this match. It is 0 unless O(min_count) is given.
    type: int
  min_count:
    description:
      - Wait until no fewer entries than this match, including those in RV(ended).
    type: int
  timeout:
    description:
      - For how many seconds to wait. After them it looks once more, and fails if the wait is not over.
      - With 0 it looks and does not wait.
    type: float
    default: 300
  report_limit:
    description:
      - How many of the entries that match to return. Counts are always whole.
    type: int
    default: 100
seealso:
  - module: netops.conntrack.conntrack_flush
  - module: netops.conntrack.conntrack_info
  - module: ansible.builtin.wait_for
"""

EXAMPLES = r"""
- name: Until the last client has left the old server
  netops.conntrack.conntrack_wait:
    match:
      protocol: tcp
      destination: 10.20.0.7
      state: established
    timeout: 600
  become: true

- name: Until nearly all have left, and go on in any case
  netops.conntrack.conntrack_wait:
    match:
      reply_source: 10.20.0.7
      state: established
    max_count: 10
    timeout: 120
  register: drained
  failed_when: drained is failed and not drained.timed_out
  become: true

- name: Until the other gateway has sent at least one flow this way
  netops.conntrack.conntrack_wait:
    match:
      source: 10.30.0.0/16
    min_count: 1
    timeout: 30
  become: true
"""

RETURN = r"""
elapsed:
  description: For how many seconds it waited.
  type: float
  returned: always
  sample: 42.618
initial:
  description: How many entries matched in the beginning.
  type: int
  returned: always
  sample: 20000
remaining:
  description: How many match in the end.
  type: int
  returned: always
  sample: 0
ended:
  description:
    - The number of entries that began, matched and ended while the module waited, as far as it received their events.
    - It is 0 without O(min_count).
  type: int
  returned: always
  sample: 0
reached:
  description:
    - Whether no more than O(max_count) match in the end, or no fewer than O(min_count) match or have ended.
  type: bool
  returned: always
  sample: true
timed_out:
  description: Whether it failed because the time was up, and not because something went wrong.
  type: bool
  returned: always
  sample: false
entries:
  description:
    - The first O(report_limit) of those that match in the end, who is left or who is there. They have the shape of
      RV(netops.conntrack.conntrack_info#module:entries).
  type: list
  elements: dict
  returned: always
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.label_map import LABEL_MAP, labels_of
from ansible_collections.netops.conntrack.plugins.module_utils._argspec.match import REQUIRED_MATCH, match_of
from ansible_collections.netops.conntrack.plugins.module_utils._argspec.wait import WAIT, goal_of, seconds_of
from ansible_collections.netops.conntrack.plugins.module_utils._module import (
    NETNS,
    REPORT_LIMIT,
    check_not_negative,
    run,
)


def look_until(module: AnsibleModule) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils._operations.wait import wait
    from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

    check_not_negative(module, "report_limit")
    goal, seconds = goal_of(module), seconds_of(module)
    labels = labels_of(module)
    match = match_of(module, labels)
    with Table() as table:
        return wait(table, match, goal, seconds, module.params["report_limit"], labels, module.check_mode)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **REQUIRED_MATCH,
            "all": {"type": "bool", "default": False},
            **WAIT,
            **REPORT_LIMIT,
            **LABEL_MAP,
            **NETNS,
        },
        mutually_exclusive=[("max_count", "min_count")],
        supports_check_mode=True,
    )
    nothing_done = {
        "elapsed": 0,
        "initial": 0,
        "remaining": 0,
        "ended": 0,
        "reached": False,
        "timed_out": False,
        "entries": [],
    }
    run(module, look_until, nothing_done, reads_only=True)


if __name__ == "__main__":
    main()
