# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test whether an entry matches."""

from __future__ import annotations

DOCUMENTATION = r"""
name: matches
short_description: Check whether a conntrack entry matches
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Checks whether an entry matches the keys and values in O(match). The modules select entries by the same rules. The
    entry can come from any source.
  - Use this test to select some of the entries that you have read before, without reading the table of the host again.
    If you need only the matching entries, read only these with O(netops.conntrack.conntrack_info#module:match), which
    is faster.
positional: match
options:
  _input:
    description:
      - An entry, as M(netops.conntrack.conntrack_info) returns it.
    type: dict
    required: true
  match:
    description:
      - A match, or a list of matches of which at least one must apply, as in the modules. See R(the guide,
        ansible_collections.netops.conntrack.docsite.guide_match).
      - Keys such as C(bytes_above) and C(packets_below) require an entry with C(counters). C(age_below) and
        C(age_above) require an entry with C(timestamps). Otherwise, the test fails with an error.
    type: raw
    required: true
  label_map:
    description:
      - The file on the controller that maps label bits to names, in the format of C(connlabel.conf).
      - The default is C(/etc/xtables/connlabel.conf) or, if this file does not exist, C(/etc/connlabel.conf). Unknown
        names are an error. The file must have the same names as that of the host whose table contained the entry. If it
        differs, copy the file of that host to the controller.
    type: path
seealso:
  - module: netops.conntrack.conntrack_info
"""

EXAMPLES = r"""
- name: Read the entries of one customer
  netops.conntrack.conntrack_info:
    match:
      zone: 5
  register: customer

- name: Check that no client is connected to the old database
  ansible.builtin.assert:
    that: left | length == 0
    fail_msg: "Still connected: {{ left | map(attribute='original.source') | unique | join(', ') }}"
  vars:
    left: "{{ customer.entries | select('netops.conntrack.matches', old) }}"
    old:
      destination: 10.20.0.0/24
      destination_port: [5432, 6432]
      state: established
"""

RETURN = r"""
_value:
  description: Whether the entry matches.
  type: bool
  sample: true
"""

from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import parse_match
from ansible_collections.netops.conntrack.plugins.plugin_utils._native import to_native


def matches(entry: Any, match: Any, label_map: str | None = None) -> bool:
    """Whether an entry matches."""
    try:
        labels = LabelMap.read(to_native(label_map))
        return parse_match(to_native(match), labels)(from_document(to_native(entry), labels))
    except InvalidValue as fault:
        raise AnsibleFilterError(f"matches: {fault}") from fault


class TestModule:
    """The test under its name."""

    def tests(self) -> dict[str, Any]:
        return {"matches": matches}
