# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The attributes of modules, and the options that all modules have."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  netns:
    description:
      - The network namespace of the table, by its name under C(/run/netns) or by a path such as C(/proc/4711/ns/net).
        The default is the namespace in which the module runs.
    type: str
requirements:
  - Linux with the kernel module C(nf_conntrack_netlink), which is loaded on demand.
  - The capability C(CAP_NET_ADMIN), usually through O(ignore:become=true).
notes:
  - The target needs only Python 3.8 or newer. The module needs no other program or package there, unless an option
    mentions one.
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying the target.
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no
      change.
  action_group:
    description: Use C(group/netops.conntrack.conntrack) in C(module_defaults) to set defaults for this module.
  platform:
    description: Target OS/families that can be operated against.
"""

    READ_ONLY = r"""
options: {}
attributes:
  check_mode:
    support: full
    details:
      - This action does not modify state.
  diff_mode:
    support: N/A
    details:
      - This action does not modify state.
  idempotent:
    support: full
    details:
      - This action does not modify state.
  action_group:
    support: full
    membership:
      - netops.conntrack.conntrack
  platform:
    support: full
    platforms: linux
"""

    FACTS = r"""
options: {}
attributes:
  facts:
    description: Action returns an C(ansible_facts) dictionary that will update existing host facts.
    support: full
  check_mode:
    support: full
    details:
      - This action does not modify state.
  diff_mode:
    support: N/A
    details:
      - This action does not modify state.
  idempotent:
    support: full
    details:
      - This action does not modify state.
  action_group:
    support: full
    membership:
      - netops.conntrack.conntrack
  platform:
    support: full
    platforms: linux
"""

    CHANGES = r"""
options: {}
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
  action_group:
    support: full
    membership:
      - netops.conntrack.conntrack
  platform:
    support: full
    platforms: linux
"""
