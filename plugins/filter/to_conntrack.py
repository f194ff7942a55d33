# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Entries in the forms of conntrack(8)."""

from __future__ import annotations

DOCUMENTATION = r"""
name: to_conntrack
short_description: Write conntrack entries and expectations as conntrack(8) does
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Writes a list of entries in one of the forms of C(conntrack), for programs and people that know these.
  - The text is what the program prints for the same entries, except where that would be wrong or lose
    something; R(the guide, ansible_collections.netops.conntrack.docsite.guide_forms) lists these cases.
  - Writes lists of expectations as well. As commands (V(save)) they are for single calls of C(conntrack), because
    C(conntrack -R) does not load expectations.
positional: output
options:
  _input:
    description:
      - Entries, as M(netops.conntrack.conntrack_info) returns them or M(netops.conntrack.conntrack_entry) takes them.
      - Or expectations, as M(netops.conntrack.conntrack_info) returns them with
        O(netops.conntrack.conntrack_info#module:table=expect). A list contains entries or expectations, not both.
    type: list
    elements: dict
    required: true
  output:
    description:
      - The form, by the words of the program's option C(-o), separated by commas.
      - V(text) is the plain list, V(extended) the one with the family, V(save) the commands that C(conntrack -R)
        loads, V(xml) the document. V(json) is a list of the entries as they are, one to a line.
      - V(id), V(ktimestamp) and V(labels) show more, for instance V(extended,id,labels); V(save) takes V(labels)
        only. Without V(labels), labels are not shown, except in V(json).
    type: str
    default: text
  label_map:
    description:
      - The file on the controller that gives names to label bits, in the format of C(connlabel.conf), a bit number
        and a name to a line.
      - The default is the first that exists of C(/etc/xtables/connlabel.conf) and C(/etc/connlabel.conf).
        Names that it does not have are written as they are, and bits without a name as numbers.
    type: path
seealso:
  - plugin: netops.conntrack.from_conntrack
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Read the entries of one customer
  netops.conntrack.conntrack_info:
    match:
      zone: 5
  register: customer

- name: Show them in the way that everybody knows
  ansible.builtin.debug:
    msg: "{{ (customer.entries | netops.conntrack.to_conntrack).splitlines() }}"

- name: Keep them where only the program is at hand
  ansible.builtin.copy:
    content: "{{ customer.entries | netops.conntrack.to_conntrack('save') }}"
    dest: /var/tmp/zone-5.conntrack # for conntrack -R
    mode: "0600"
"""

RETURN = r"""
_value:
  description: The text, with a line feed at the end of each line.
  type: str
"""

from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue, quoted
from ansible_collections.netops.conntrack.plugins.module_utils.client.text import formats
from ansible_collections.netops.conntrack.plugins.plugin_utils._native import to_native


def to_conntrack(entries: Any, output: str = "text", label_map: str | None = None) -> str:
    """The text in the form that `output` names."""
    documents, output = to_native(entries), to_native(output)
    if not isinstance(documents, list):
        raise AnsibleFilterError(f"to_conntrack takes a list of entries, not {type(documents).__name__}")
    if not isinstance(output, str):
        raise AnsibleFilterError(f"to_conntrack: output: {quoted(output)} is not a text such as extended,id")
    try:
        labels = formats.Names.read(to_native(label_map))
        return formats.write([_entry(*numbered, labels) for numbered in enumerate(documents, 1)], output, labels)
    except InvalidValue as fault:
        raise AnsibleFilterError(f"to_conntrack: {fault}") from fault


def _entry(number: int, document: Any, labels: LabelMap) -> Any:
    try:
        return formats.from_document(document, labels)
    except InvalidValue as fault:
        raise fault.under(f"entry {number}") from None


class FilterModule:
    """The filter under its name."""

    def filters(self) -> dict[str, Any]:
        return {"to_conntrack": to_conntrack}
