# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where what is not declared goes."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  purge:
    description:
      - Delete what is in O(scope) and not declared, and nothing else. It is deleted before anything is created.
    type: bool
    default: false
  scope:
    description:
      - Which entries O(purge) may delete, as a match - a dictionary of the keys described with O(ignore:match) of
        M(netops.conntrack.conntrack_flush), or a list of them, also with C(except).
      - An entry that is declared need not be in there.
      - Required with O(purge=true), and an error without it. A null is an error.
    type: raw
  keep_ssh:
    description:
      - Whether O(purge) leaves the flow alone that carries the SSH session of this very task, as
        M(netops.conntrack.conntrack_flush) does.
      - If this flow cannot be found, the task fails and changes nothing.
    type: bool
    default: true
"""
