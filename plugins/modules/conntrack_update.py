#!/usr/bin/python
# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Change matching entries of the connection tracking table."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conntrack_update
short_description: Change matching entries of the connection tracking table
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Sets marks, labels, countdowns and status bits of all entries that match, and takes helpers away from them.
  - The table is read and every entry compared on the target. Only what differs is sent to the kernel; an entry that is
    as it is to be is not touched, and no listener hears of it.
  - What the kernel cannot change in an entry that is there is no option here. That is address translation, the reply
    tuple, the master, another helper, and status bits that are to be cleared; see
    O(netops.conntrack.conntrack_entry#module:replace).
  - What an entry refuses is listed in RV(failed_entries). All the rest is done, and then the module fails.
  - Nothing is changed unless O(match) or O(all) says so. That nothing matches is no error.
  - The kernel finds the entry to change by its zone and tuple. Where the connection's entry was removed and made anew
    in the instant between the reading and the change, the new one is changed; it may not match in what else O(match)
    asks for.
extends_documentation_fragment:
  - netops.conntrack._attributes
  - netops.conntrack._attributes.changes
  - netops.conntrack._match.changing
  - netops.conntrack._labels
options:
  all:
    description:
      - Change every entry of the table, apart from those that O(except) spares.
      - One of O(match) and O(all) must be given, and not both.
    type: bool
    default: false
  set:
    description:
      - What the entries are to have. At least one key is needed; what is not named stays as it is.
    type: dict
    required: true
    suboptions:
      mark:
        description:
          - The mark, V(value) or V(value/mask). With a mask, only the bits in it are compared and set.
        type: str
      labels_add:
        description:
          - Labels to be set, names or bit numbers. Labels named neither here nor in O(set.labels_remove) stay.
          - The kernel keeps labels only where a rule in the network namespace uses them, such as C(ct label set) in
            nftables.
        type: list
        elements: str
      labels_remove:
        description:
          - Labels to be cleared, names or bit numbers.
        type: list
        elements: str
      timeout:
        description:
          - Seconds that an entry has left at most. Where more remain, the countdown is set to this; see
            O(timeout_min) for entries with fewer.
          - The next packet of a connection that is alive sets the countdown anew, to what the protocol's state or a
            timeout policy says. Entries with V(fixed_timeout) keep theirs, and are no failure where it is right
            already; those that a flow table has taken over count down elsewhere and are left alone.
        type: int
      status:
        description:
          - Status bits to be set, of V(seen_reply), V(assured) and V(fixed_timeout). No bit can be cleared.
          - V(fixed_timeout) is for good. The countdown then runs out whatever packets come, and cannot be changed.
        type: list
        elements: str
      helper:
        description:
          - An empty string takes the helper away that an entry has, and the expectations it has announced with it.
            Linux 7.2 refuses that.
        type: str
  timeout_min:
    description:
      - Set the countdown to O(set.timeout) also where fewer seconds than this remain. By default that is never done.
    type: int
    default: 0
  limit:
    description:
      - The maximum number of entries to change. If more entries match, the module fails and changes none. By default,
        there is no limit.
    type: int
  report_limit:
    description:
      - How many of the changes, and of the entries that failed, to return and to show in the diff. Counts are always
        whole.
    type: int
    default: 100
attributes:
  idempotent:
    support: partial
    details:
      - Where packets flow between two runs, they set countdowns anew, and O(set.timeout) has something to do again.
seealso:
  - module: netops.conntrack.conntrack_entry
  - module: netops.conntrack.conntrack_flush
"""

EXAMPLES = r"""
- name: Route the flows of one network by the table of mark 0x20, and leave the other bits of their marks alone
  netops.conntrack.conntrack_update:
    match:
      source: 10.1.0.0/16
    set:
      mark: 0x20/0xf0
  become: true

- name: Idle connections to the database go after ten minutes, but no more than 5000 of them are changed
  netops.conntrack.conntrack_update:
    match:
      destination: 10.20.0.5
      destination_port: 5432
      state: established
    set:
      timeout: 600
    limit: 5000
  become: true

- name: UDP flows of a customer live on for at least two minutes, and for five at most
  netops.conntrack.conntrack_update:
    match:
      protocol: udp
      labels: [customer]
    set:
      timeout: 300
    timeout_min: 120
    label_map: /etc/xtables/connlabel.conf
  become: true

- name: What was suspicious has been looked at, outside of zone 5
  netops.conntrack.conntrack_update:
    all: true
    except:
      zone: 5
    set:
      labels_add: [7]
      labels_remove: [100]
  become: true

- name: No more data connections for FTP sessions with one server
  netops.conntrack.conntrack_update:
    match:
      helper: ftp
      destination: 192.0.2.21
    set:
      helper: ""
  become: true
"""

RETURN = r"""
matched:
  description: How many entries match.
  type: int
  returned: always
  sample: 17
updated:
  description: How many of them were changed, or in check mode would have been.
  type: int
  returned: always
  sample: 12
unchanged:
  description: How many were as they are to be.
  type: int
  returned: always
  sample: 4
gone:
  description: How many vanished by themselves between the reading and the change.
  type: int
  returned: always
  sample: 1
refused:
  description: How many were not changed, or not in full.
  type: int
  returned: always
  sample: 0
failed_entries:
  description: The first O(report_limit) of those, each with the reason.
  type: list
  elements: dict
  returned: always
  contains:
    entry:
      description: What names the entry, in the shape of RV(netops.conntrack.conntrack_info#module:entries).
      type: dict
    msg:
      description: Why, and what was changed all the same.
      type: str
changes:
  description: The first O(report_limit) of the changes, a key of an entry each.
  type: list
  elements: dict
  returned: always
  contains:
    entry:
      description: What names the entry, in the shape of RV(netops.conntrack.conntrack_info#module:entries).
      type: dict
    key:
      description: The key of the entry that was changed, such as V(mark).
      type: str
    before:
      description: The value it had, null if none. Of a mark under a mask and of labels, only what is to be set.
      type: raw
    after:
      description: The value it has.
      type: raw
  sample:
    - entry:
        family: ipv4
        protocol: udp
        original:
          source: 10.1.0.2
          destination: 192.0.2.53
          source_port: 40000
          destination_port: 53
      key: mark
      before: "0x0/0xf0"
      after: "0x20/0xf0"
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.label_map import LABEL_MAP, labels_of
from ansible_collections.netops.conntrack.plugins.module_utils._argspec.match import LIMIT, REQUIRED_MATCH, match_of
from ansible_collections.netops.conntrack.plugins.module_utils._argspec.update import SET
from ansible_collections.netops.conntrack.plugins.module_utils._module import (
    NETNS,
    REPORT_LIMIT,
    check_not_negative,
    run,
)

#: The result where nothing was done.
NOTHING = {
    "matched": 0,
    "updated": 0,
    "unchanged": 0,
    "gone": 0,
    "refused": 0,
    "failed_entries": [],
    "changes": [],
}


def change(module: AnsibleModule) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils._operations.update import parse_wanted, update
    from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

    params = module.params
    check_not_negative(module, "limit", "report_limit", "timeout_min")
    labels = labels_of(module)
    match = match_of(module, labels)
    wanted = parse_wanted(params["set"], params["timeout_min"], labels)
    with Table() as table:
        return update(table, match, wanted, params["limit"], params["report_limit"], module.check_mode)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **REQUIRED_MATCH,
            "all": {"type": "bool", "default": False},
            **SET,
            **LIMIT,
            **REPORT_LIMIT,
            **LABEL_MAP,
            **NETNS,
        },
        supports_check_mode=True,
    )
    run(module, change, NOTHING)


if __name__ == "__main__":
    main()
