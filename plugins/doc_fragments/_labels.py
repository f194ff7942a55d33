# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option for names of labels."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  label_map:
    description:
      - The file on the target that gives names to label bits, in the format of C(connlabel.conf). Each line has a
        bit number and a name, which may contain blanks.
      - The module reads the file as C(conntrack) does. If a name or a bit is defined twice, the first definition
        counts. Unusable lines are skipped. A bit above 127 is an error only if you use its name.
      - Bytes that are not UTF-8 are shown as escape sequences, such as V(caf\\xe9).
      - The default is C(/etc/xtables/connlabel.conf) or, if this file does not exist, C(/etc/connlabel.conf). Without a
        file, labels are bit numbers.
    type: path
"""
