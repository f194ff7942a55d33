# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that writes the output formats of conntrack(8)."""

from __future__ import annotations

DOCUMENTATION = r"""
name: to_conntrack
short_description: Format entries and expectations like conntrack(8)
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Formats a list of entries in one of the output formats of C(conntrack).
  - The text is the same as the output of C(conntrack) for these entries, except where that output is wrong or loses
    information. R(The guide, ansible_collections.netops.conntrack.docsite.guide_forms) lists these cases.
  - Formats lists of expectations as well. For expectations, V(save) writes lines with C(conntrack -I expect), which
    C(conntrack -R) does not load. C(conntrack -I expect) sends neither the protocol nor the ports of an expectation. To
    create expectations, use M(netops.conntrack.conntrack_expectation).
positional: output
options:
  _input:
    description:
      - Entries, as M(netops.conntrack.conntrack_info) returns them or M(netops.conntrack.conntrack_entry) accepts
        them.
      - The list can also contain expectations, as M(netops.conntrack.conntrack_info) returns them with
        O(netops.conntrack.conntrack_info#module:table=expect). A list cannot contain both entries and expectations.
    type: list
    elements: dict
    required: true
  output:
    description:
      - The output format, and optional fields after commas. The names are those of the option C(-o) of C(conntrack),
        except V(text) and V(json).
      - V(text) is the default list of C(conntrack), V(extended) the list with the address family, V(save) the commands
        that C(conntrack -R) loads, and V(xml) an XML document. V(json) is a JSON list of the unchanged entries, one
        on each line.
      - V(id), V(ktimestamp) and V(labels) add fields, for example V(extended,id,labels). V(save) can be combined with
        V(labels) only. Without V(labels), labels are omitted, except in V(json).
    type: str
    default: text
  label_map:
    description:
      - The file on the controller that maps label bits to names, in the format of C(connlabel.conf), with a bit
        number and a name on each line.
      - The default is C(/etc/xtables/connlabel.conf) or, if this file does not exist, C(/etc/connlabel.conf). Names
        that are not in the file are written unchanged, and bits without a name are written as numbers.
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

- name: Show them like conntrack -L
  ansible.builtin.debug:
    msg: "{{ (customer.entries | netops.conntrack.to_conntrack).splitlines() }}"

- name: Save them for conntrack -R
  ansible.builtin.copy:
    content: "{{ customer.entries | netops.conntrack.to_conntrack('save') }}"
    dest: /var/tmp/zone-5.conntrack
    mode: "0600"
"""

RETURN = r"""
_value:
  description: The text, with a line feed at the end of each line.
  type: str
  sample: >
    udp      17 118 src=10.1.0.2 dst=192.0.2.53 sport=40000 dport=53 src=192.0.2.53 dst=10.1.0.2 sport=53 dport=40000
    [ASSURED] mark=0 zone=5 use=1
"""

from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue, quoted
from ansible_collections.netops.conntrack.plugins.module_utils.client.text import formats
from ansible_collections.netops.conntrack.plugins.plugin_utils._native import to_native


def to_conntrack(entries: Any, output: str = "text", label_map: str | None = None) -> str:
    """The entries or expectations in the output format `output`."""
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
