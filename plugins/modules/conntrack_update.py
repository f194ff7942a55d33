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
  - Sets marks, labels, timeouts and status bits of all matching entries, and removes their helpers.
  - The module reads the table and compares every entry on the target. It sends only differences to the kernel. An entry
    that is already as specified is not touched and causes no event.
  - The module has no options for changes that the kernel does not allow in an existing entry. The kernel does not
    change the NAT, the reply tuple or the master, does not attach a helper, and does not clear status bits. For
    such changes, replace the entry, see O(netops.conntrack.conntrack_entry#module:replace).
  - RV(failed_entries) lists the entries for which some or all changes failed. The module still changes all others, and
    then fails.
  - The module changes nothing unless O(match) or O(all) is set. It is not an error if nothing matches.
  - The kernel identifies the entry to change by its zone and tuple. If an entry is removed and created again after the
    module has read it, the module changes the new entry. The new entry has the same zone and tuple, but may differ in
    the other keys of O(match).
extends_documentation_fragment:
  - netops.conntrack._attributes
  - netops.conntrack._attributes.changes
  - netops.conntrack._match.changing
  - netops.conntrack._labels
options:
  all:
    description:
      - Whether to change every entry of the table, except those that O(except) excludes.
      - Exactly one of O(match) and O(all) is required.
    type: bool
    default: false
  set:
    description:
      - Values to set. At least one key is required. Keys that are left out stay unchanged.
    type: dict
    required: true
    suboptions:
      mark:
        description:
          - Connection mark, V(value) or V(value/mask). With a mask, only the bits in it are compared and set.
        type: str
      labels_add:
        description:
          - Labels to set, as names or bit numbers. Labels that are neither here nor in O(set.labels_remove) stay
            unchanged.
          - The kernel stores labels only if a rule in the network namespace uses them, such as C(ct label set) in
            nftables.
        type: list
        elements: str
      labels_remove:
        description:
          - Labels to clear, as names or bit numbers.
        type: list
        elements: str
      timeout:
        description:
          - Maximum remaining timeout in seconds. If more remains, the module sets the timeout to this value. For
            entries with less, see O(timeout_min).
          - The next packet of a live connection sets the timeout again, to the default for the state of the connection
            or to the value of its timeout policy.
          - The timeout of an entry with V(fixed_timeout) cannot be changed. Such an entry counts as failed unless its
            timeout needs no change. The module does not change the timeouts of entries that are offloaded
            to a flow table, because the flow table manages them.
        type: int
      status:
        description:
          - Status bits to set. Possible values are V(seen_reply), V(assured) and V(fixed_timeout). No bit can be
            cleared.
          - V(fixed_timeout) is permanent. The entry then expires regardless of packets, and its timeout cannot be
            changed.
        type: list
        elements: str
      helper:
        description:
          - An empty string removes the helper of an entry, and the expectations that the helper has created for the
            entry. Linux 7.2, the newest tested kernel, does not allow this change.
        type: str
  timeout_min:
    description:
      - Minimum remaining timeout in seconds. If less remains, the module sets the timeout to O(set.timeout). By
        default, a timeout is never extended.
    type: int
    default: 0
  limit:
    description:
      - Maximum number of entries to change. If more entries match, the task fails and changes nothing. By default,
        there is no limit.
    type: int
  report_limit:
    description:
      - Maximum number of changes, and of failed entries, to return and to show in the diff. All counts are complete.
    type: int
    default: 100
attributes:
  idempotent:
    support: partial
    details:
      - If packets arrive between two runs, they set timeouts again. The second run then applies O(set.timeout) again.
seealso:
  - module: netops.conntrack.conntrack_entry
  - module: netops.conntrack.conntrack_flush
"""

EXAMPLES = r"""
- name: Set the routing mark of the flows of one network, and keep the other bits of the mark
  netops.conntrack.conntrack_update:
    match:
      source: 10.1.0.0/16
    set:
      mark: 0x20/0xf0
  become: true

- name: Shorten the timeout of connections to the database to ten minutes, for at most 5000 entries
  netops.conntrack.conntrack_update:
    match:
      destination: 10.20.0.5
      destination_port: 5432
      state: established
    set:
      timeout: 600
    limit: 5000
  become: true

- name: Set the timeout of a customer's UDP flows to five minutes, unless it is between two and five minutes
  netops.conntrack.conntrack_update:
    match:
      protocol: udp
      labels: [customer]
    set:
      timeout: 300
    timeout_min: 120
    label_map: /etc/xtables/connlabel.conf
  become: true

- name: Set one label and clear another in all entries, except in zone 5
  netops.conntrack.conntrack_update:
    all: true
    except:
      zone: 5
    set:
      labels_add: [7]
      labels_remove: [100]
  become: true

- name: Remove the helper from FTP sessions with one server, to prevent new data connections
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
  description: Number of matching entries.
  type: int
  returned: always
  sample: 17
updated:
  description: Number of matching entries that were changed. In check mode, the prediction.
  type: int
  returned: always
  sample: 11
unchanged:
  description: Number of matching entries that were already as specified.
  type: int
  returned: always
  sample: 4
gone:
  description: Number of matching entries that ended after the module had read them and before it could change them.
  type: int
  returned: always
  sample: 1
refused:
  description: Number of matching entries for which all or some of the required changes failed.
  type: int
  returned: always
  sample: 1
failed_entries:
  description: The first O(report_limit) entries counted in RV(refused), each with the reason.
  type: list
  elements: dict
  returned: always
  contains:
    entry:
      description: The keys that identify the entry, in the format of
        RV(netops.conntrack.conntrack_info#module:entries).
      type: dict
      sample:
        family: ipv4
        protocol: udp
        original: {source: 10.1.0.3, destination: 192.0.2.53, source_port: 40000, destination_port: 53}
    msg:
      description: The reason, and the changes that were made nevertheless.
      type: str
      sample: "updating udp 10.1.0.3:40000 -> 192.0.2.53:53: No space left on device (ENOSPC). Labels are kept only
        where a rule in the network namespace uses them: add one, such as 'ct label set' in nftables or '-m connlabel'
        in iptables. These were changed: mark"
  sample:
    - entry:
        family: ipv4
        protocol: udp
        original: {source: 10.1.0.3, destination: 192.0.2.53, source_port: 40000, destination_port: 53}
      msg: "updating udp 10.1.0.3:40000 -> 192.0.2.53:53: No space left on device (ENOSPC). Labels are kept only where a
        rule in the network namespace uses them: add one, such as 'ct label set' in nftables or '-m connlabel' in
        iptables. These were changed: mark"
changes:
  description: The first O(report_limit) changes, each of one key of an entry.
  type: list
  elements: dict
  returned: always
  contains:
    entry:
      description: The keys that identify the entry, in the format of
        RV(netops.conntrack.conntrack_info#module:entries).
      type: dict
      sample:
        family: ipv4
        protocol: udp
        original: {source: 10.1.0.2, destination: 192.0.2.53, source_port: 40000, destination_port: 53}
    key:
      description: The changed key of the entry, such as V(mark).
      type: str
      sample: mark
    before:
      description: The previous value. Null if there was none. For a mark with a mask and for labels, only the bits to
        set or clear.
      type: raw
      sample: "0x0/0xf0"
    after:
      description: The new value.
      type: raw
      sample: "0x20/0xf0"
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

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.match import LIMIT, REQUIRED_MATCH, match_of
from ansible_collections.netops.conntrack.plugins.module_utils._argspec.update import SET
from ansible_collections.netops.conntrack.plugins.module_utils._module import REPORT, check_numbers, run

#: The result where nothing was done.
NOTHING = {
    **dict.fromkeys(("matched", "updated", "unchanged", "gone", "refused"), 0),
    "failed_entries": [],
    "changes": [],
}


def change(module: AnsibleModule) -> dict[str, Any]:
    from ansible_collections.netops.conntrack.plugins.module_utils._operations.update import parse_wanted, update
    from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
    from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table

    params = module.params
    check_numbers(module, "limit", "report_limit", "timeout_min")
    labels = LabelMap.read(params["label_map"])
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
            **REPORT,
        },
        supports_check_mode=True,
    )
    run(module, change, NOTHING)


if __name__ == "__main__":
    main()
