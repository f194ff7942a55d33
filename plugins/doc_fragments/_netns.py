# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option `netns` of modules that can do their work in several namespaces."""

from __future__ import annotations


class ModuleDocFragment:
    #: List it before the fragment _attributes, whose option `netns` is the name of one namespace.
    DOCUMENTATION = r"""
options:
  netns:
    description:
      - The network namespace of the table, by its name under C(/run/netns) or by a path such as C(/proc/4711/ns/net).
        The default is the namespace in which the module runs.
      - With a list of names and paths, or with V(all), the module does its work in each of these namespaces in turn, in
        one task. The result then has the list C(namespaces), with an item for each namespace. Outside of this list, the
        result has values for all namespaces together, mostly sums.
      - An item has the result of the module in the namespace, and two more keys. C(netns) is the name or path of the
        namespace. C(processes) has the C(pid) and C(name) of up to three processes in the namespace.
      - V(all) means the namespace in which the module runs, all namespaces with a name under C(/run/netns), and those
        of all processes. It leaves out a namespace that exists only because of a socket, an open file or a mount in
        another directory. It also leaves out a namespace in which only single threads of a process run. To select a
        namespace whose name is V(all), write its path.
      - A namespace with several names or processes has one item. If a namespace ends before the module enters it,
        V(all) leaves the namespace out, and with a list, the item has an error.
      - If the work fails in a namespace, its item has the error as C(msg). The module continues with the next
        namespace, and the task fails at the end, with the results of all.
    type: raw
"""
