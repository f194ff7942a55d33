# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the names of labels come from."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  label_map:
    description:
      - The file on the target that gives names to label bits, in the format of C(connlabel.conf), a bit number
        and a name to a line.
      - The default is the first that exists of C(/etc/xtables/connlabel.conf) and C(/etc/connlabel.conf).
        Without a file, labels are bit numbers.
    type: path
"""
