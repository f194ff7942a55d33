# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options about purging."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  purge:
    description:
      - Whether to delete the entries in O(scope) that are not declared. The module deletes them before it creates
        others.
    type: bool
    default: false
  scope:
    description:
      - The entries that O(purge) may delete. This is a match, as described with O(ignore:match) of
        M(netops.conntrack.conntrack_flush), or a list of matches. A match may contain C(except).
      - Declared entries do not have to match the scope.
      - Required with O(purge=true). Without O(purge=true), this option is an error. A null is an error, too.
    type: raw
  keep_ssh:
    description:
      - Whether O(purge) keeps the entry of the SSH connection that runs this task, as
        M(netops.conntrack.conntrack_flush) does.
      - For the cases in which the task fails and changes nothing, see
        O(netops.conntrack.conntrack_flush#module:keep_ssh).
    type: bool
    default: true
"""
