# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that name a ruleset which is not loaded yet."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  ruleset:
    description:
      - Path of a file with rules for C(nft -f) that are not loaded yet. The module compares the entries with the rules
        that would apply if the file were loaded, instead of the current rules. The file may be a whole ruleset that
        begins with C(flush ruleset), or a change to the current ruleset.
      - Requires the option O(ignore:stale), or V(stale) in O(ignore:gather_subset).
      - Unless O(remote_src=true), the file is on the controller. You can encrypt it with Ansible Vault. Ansible copies
        the file to the target without parsing it, and removes the copy when the task ends.
      - On the target, the program C(nft) loads the file, but only into a temporary network namespace with a copy of the
        current ruleset. The ruleset of the host does not change. In results, rules from the file have the handles of
        the temporary namespace.
      - An C(include) in the file is resolved on the target. Only O(ruleset) itself is copied there.
    type: path
  remote_src:
    description:
      - Whether O(ruleset) is on the target.
    type: bool
    default: false
"""
