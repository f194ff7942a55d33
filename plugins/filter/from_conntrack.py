# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Entries from the forms of conntrack(8)."""

from __future__ import annotations

DOCUMENTATION = r"""
name: from_conntrack
short_description: Read conntrack entries as conntrack(8) writes them
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Reads what C(conntrack) prints, also the lines of its events, what is in C(/proc/net/nf_conntrack), and what
    P(netops.conntrack.to_conntrack#filter) writes, into a list of entries.
  - What the form does not say is not in the entries. R(The guide,
    ansible_collections.netops.conntrack.docsite.guide_forms) tells what each form holds.
positional: form
options:
  _input:
    description:
      - The text, or a list of its lines.
    type: raw
    required: true
  form:
    description:
      - The form that the text is in; if it is not given, it is found out from how the text begins.
    type: str
    choices: [text, extended, save, xml, json]
  label_map:
    description:
      - The file on the controller that gives names to label bits, in the format of C(connlabel.conf), a bit number
        and a name to a line.
      - The default is the first that exists of C(/etc/xtables/connlabel.conf) and C(/etc/connlabel.conf).
        Names that it does not have are taken as they are.
    type: path
seealso:
  - plugin: netops.conntrack.to_conntrack
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Read a file that conntrack -L -o save has written
  ansible.builtin.set_fact:
    entries: "{{ lookup('ansible.builtin.file', 'gateway.conntrack') | netops.conntrack.from_conntrack }}"

- name: Ask a host that has the program only
  ansible.builtin.command: conntrack -L -o extended,id
  register: listed
  changed_when: false

- name: See whom it talks to
  ansible.builtin.debug:
    msg: >-
      {{ listed.stdout | netops.conntrack.from_conntrack
      | map(attribute='original.destination') | unique }}
"""

RETURN = r"""
_value:
  description: The entries.
  type: list
  elements: dict
"""

from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.netops.conntrack.plugins.module_utils.client import shape, text
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.plugin_utils.plain import plain


def from_conntrack(raw: Any, form: str | None = None, label_map: str | None = None) -> list[dict[str, Any]]:
    """The entries in `raw`, a text or a list of lines."""
    raw, form = plain(raw), plain(form)
    if isinstance(raw, list) and all(isinstance(line, str) for line in raw):
        raw = "\n".join(raw)
    if not isinstance(raw, str):
        raise AnsibleFilterError(f"from_conntrack takes a text or its lines, not {type(raw).__name__}")
    if not isinstance(form, (str, type(None))):
        raise AnsibleFilterError(f"from_conntrack: form: {form!r} is not the name of a form")
    try:
        labels = text.Names.read(plain(label_map))
        return [shape.present(entry, labels) for entry in text.read(raw, form, labels)]
    except InvalidValue as fault:
        raise AnsibleFilterError(f"from_conntrack: {fault}") from fault


class FilterModule:
    """The filter under its name."""

    def filters(self) -> dict[str, Any]:
        return {"from_conntrack": from_conntrack}
