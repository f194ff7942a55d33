# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that reads the output formats of conntrack(8)."""

from __future__ import annotations

DOCUMENTATION = r"""
name: from_conntrack
short_description: Parse the output of conntrack(8)
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Returns the entries in a text as a list. The text can be the output of C(conntrack), also of C(conntrack -E), the
    content of C(/proc/net/nf_conntrack), or the output of P(netops.conntrack.to_conntrack#filter). It can also contain
    commands for C(conntrack -R), as C(conntrack -L -o save) prints them.
  - Reads lists of expectations as well, from C(conntrack -L expect) and C(/proc/net/nf_conntrack_expect). The filter
    recognizes them, and returns them in the format of M(netops.conntrack.conntrack_expectation).
  - Entries contain only the attributes that the output format has. R(The guide to output formats,
    ansible_collections.netops.conntrack.docsite.guide_forms) lists the attributes of each format.
  - The filter ignores empty lines, comments that begin with C(#), and the status messages of C(conntrack), such as the
    line that contains C(flow entries have been shown). If a text contains anything else that is not output of
    C(conntrack), the option O(unknown) applies.
positional: form
options:
  _input:
    description:
      - The text, or a list of its lines.
    type: raw
    required: true
  form:
    description:
      - The output format of the text. By default, the filter detects it from the beginning of the text.
    type: str
    choices: [text, extended, save, xml, json]
  label_map:
    description:
      - The file on the controller that maps label bits to names, in the format of C(connlabel.conf), with a bit
        number and a name on each line.
      - The default is C(/etc/xtables/connlabel.conf) or, if this file does not exist, C(/etc/connlabel.conf). Names
        that are not in the file are kept unchanged.
    type: path
  unknown:
    description:
      - How to handle words that C(conntrack) does not print, such as the flags of a vendor's kernel (C([FASTNAT]),
        C(nmark=0)) or the header of a syslog line.
      - V(fail) refuses the text and names the first such word.
      - V(keep) adds such words to the dictionary RV(ignore:extra) of their entry. The key is the name of the word. The
        value is the text after the name, with each byte in hexadecimal. For example, C(nmark=0) becomes the key
        C(nmark) with the value V(30). Text before an entry on its line has the key C(head).
      - V(skip) leaves such words out. It also leaves out lines without an entry, incomplete XML elements C(<flow>),
        commands with C(-D), and commands with C(-U) that lack one of the four addresses or that have a mark with a
        mask. A warning shows the number of skipped parts.
      - This option has no effect on JSON. JSON with unknown keys is always an error.
    type: str
    choices: [fail, keep, skip]
    default: fail
  ignore_gaps:
    description:
      - Whether to read a text in which C(conntrack) reports that it lost events (C(ENOBUFS)) or failed.
      - By default, such a text is an error because entries are missing. With V(true), the filter prints a warning.
    type: bool
    default: false
seealso:
  - plugin: netops.conntrack.to_conntrack
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Parse a file that conntrack -L -o save has written
  ansible.builtin.set_fact:
    entries: "{{ lookup('ansible.builtin.file', 'gateway.conntrack') | netops.conntrack.from_conntrack }}"

- name: List the entries of a host without Python
  ansible.builtin.raw: conntrack -L -o extended,id
  register: listed
  changed_when: false

- name: Show the destinations of the connections of the host
  ansible.builtin.debug:
    msg: >-
      {{ listed.stdout | netops.conntrack.from_conntrack
      | map(attribute='original.destination') | unique }}

- name: Parse the list of a router whose kernel prints additional words
  ansible.builtin.set_fact:
    entries: >-
      {{ lookup('ansible.builtin.file', 'router.txt') | netops.conntrack.from_conntrack(unknown='skip') }}
"""

RETURN = r"""
_value:
  description: The entries, or the expectations.
  type: list
  elements: dict
  sample:
    - family: ipv4
      protocol: udp
      original: {source: 10.1.0.2, destination: 192.0.2.53, source_port: 40000, destination_port: 53}
      reply: {source: 192.0.2.53, destination: 10.1.0.2, source_port: 53, destination_port: 40000}
      zone: 5
      status: [seen_reply, assured]
      timeout: 118
      use: 1
      mark: 0
"""

from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.utils.display import Display

from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue, quoted
from ansible_collections.netops.conntrack.plugins.module_utils.client.text import formats
from ansible_collections.netops.conntrack.plugins.plugin_utils._native import to_native

display = Display()


def from_conntrack(
    raw: Any, form: str | None = None, label_map: str | None = None, unknown: str = "fail", ignore_gaps: bool = False
) -> list[dict[str, Any]]:
    """The entries or expectations in `raw`, a text or a list of lines."""
    raw, form, unknown = to_native(raw), to_native(form), to_native(unknown)
    if isinstance(raw, list) and all(isinstance(line, str) for line in raw):
        raw = "\n".join(raw)
    if not isinstance(raw, str):
        raise AnsibleFilterError(f"from_conntrack takes a text or its lines, not {type(raw).__name__}")
    if not isinstance(form, (str, type(None))):
        raise AnsibleFilterError(f"from_conntrack: form: {quoted(form)} is not the name of a form")
    if not isinstance(ignore_gaps, bool):
        raise AnsibleFilterError(
            f"from_conntrack: ignore_gaps: {quoted(ignore_gaps)} is not a boolean; write true or false"
        )
    try:
        labels = formats.Names.read(to_native(label_map))
        reading = formats.examine(raw, form, labels, unknown, ignore_gaps)
        entries = [formats.to_document(entry, labels) for entry in reading.entries]
    except InvalidValue as fault:
        raise AnsibleFilterError(f"from_conntrack: {fault}") from fault
    _warn(reading)
    return entries


def _warn(reading: formats.Reading) -> None:
    """Report what is not in the result."""
    if reading.skipped:
        counted = sorted(reading.skipped.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{name} ({count:,})" for name, count in counted[:10])
        more = f", and {len(counted) - 10:,} others" if len(counted) > 10 else ""
        display.warning(f"from_conntrack skipped, with the number of times: {shown}{more}")
    if reading.gaps:
        display.warning(
            f"from_conntrack: the list is incomplete, conntrack reports lost events or failures: {reading.gaps:,}"
        )


class FilterModule:
    """The filter under its name."""

    def filters(self) -> dict[str, Any]:
        return {"from_conntrack": from_conntrack}
