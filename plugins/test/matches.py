# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an entry is among those that a match asks for."""

from __future__ import annotations

DOCUMENTATION = r"""
name: matches
short_description: Whether a conntrack entry matches
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Tells of an entry whether the modules would find it with the same match, wherever the entry was read.
  - Of what was read once, it picks without asking the host again. To read only what matches in the first place is
    quicker.
positional: match
options:
  _input:
    description:
      - An entry, as M(netops.conntrack.conntrack_info) returns it.
    type: dict
    required: true
  match:
    description:
      - A match, or a list of them of which one has to hold, as in the modules; see R(the guide,
        ansible_collections.netops.conntrack.docsite.guide_match).
      - Bytes, packets and ages take an entry that has them; it is an error where it has none.
    type: raw
    required: true
  label_map:
    description:
      - The file on the controller that gives names to label bits, in the format of C(connlabel.conf).
      - The default is the first that exists of C(/etc/xtables/connlabel.conf) and C(/etc/connlabel.conf). Names that
        neither has are an error; take the file that the host of the entry uses.
    type: path
seealso:
  - module: netops.conntrack.conntrack_info
"""

EXAMPLES = r"""
- name: Read what one customer has
  netops.conntrack.conntrack_info:
    match:
      zone: 5
  register: customer

- name: Nobody there talks to the old database any more
  ansible.builtin.assert:
    that: left | length == 0
    fail_msg: "{{ left | map(attribute='original.source') | unique | join(', ') }} still do"
  vars:
    left: "{{ customer.entries | select('netops.conntrack.matches', old) }}"
    old:
      destination: 10.20.0.0/24
      destination_port: [5432, 6432]
      state: established
"""

RETURN = r"""
_value:
  description: Whether it matches.
  type: bool
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
