# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookup that checks and returns the variables of a playbook of this collection."""

from __future__ import annotations

DOCUMENTATION = r"""
name: playbook_variables
short_description: Variables of a playbook of this collection
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Returns the variables that are set for a playbook of this collection, checked and converted, with their defaults.
    The playbooks of the collection use this lookup. You can use it in your own version of a playbook.
  - Each variable has the prefix C(conntrack_), except those that select hosts, such as C(target_hosts). The keys of the
    result have no prefix.
  - The old names without the prefix are deprecated. They are used only if they are extra variables (C(-e)), so that
    variables of the inventory with the same names have no effect.
  - The lookup fails if a variable has a wrong type, if a required variable is missing, or if a name that begins with
    C(conntrack_) is unknown. A variable of the inventory with an unknown name is an error only if the name is similar
    to that of a known variable, because other software may use the prefix as well.
  - In the keywords C(hosts) and C(serial) of a play, no host is known yet. There, the lookup checks only the names of
    the variables, the variables that select hosts, and C(conntrack_batches), the value of C(serial). It fails if the
    pattern in C(target_hosts) matches no host of the inventory, or none within C(--limit).
options:
  _terms:
    description: The name of the playbook, without the name of the collection.
    type: list
    elements: str
    required: true
seealso:
  - ref: ansible_collections.netops.conntrack.docsite.playbook_variables
    description: The prefix, the old names, and what is checked.
"""

EXAMPLES = r"""
- name: Remove matching entries on all hosts in one batch
  hosts: "{{ _conntrack.target_hosts }}"
  gather_facts: false
  vars:
    _conntrack: "{{ lookup('netops.conntrack.playbook_variables', 'flush') }}"

  tasks:
    - name: Remove matching entries
      netops.conntrack.conntrack_flush:
        match: "{{ _conntrack.match | default(omit) }}"
        limit: "{{ _conntrack.limit | default(omit) }}"
"""

RETURN = r"""
_raw:
  description:
    - A dictionary with the variables of the playbook, without the prefix. Variables without a value and without a
      default are absent.
  type: list
  elements: dict
  sample:
    - target_hosts: gateways
      match: {address: 10.1.0.3}
      limit: 100
      max_share: 50.0
      max_share_floor: 100
      batches: [1, "25%", "100%"]
"""

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from ansible import context
from ansible.errors import AnsibleLookupError, AnsibleValueOmittedError
from ansible.inventory.manager import InventoryManager
from ansible.plugins.lookup import LookupBase
from ansible.utils.display import Display
from ansible.utils.vars import load_extra_vars

from ansible_collections.netops.conntrack.plugins.plugin_utils._playbooks import (
    PLAYBOOKS,
    PREFIX,
    BadVariables,
    check_batches,
    check_hosts,
    check_inventory,
    check_names,
    check_values,
)

display = Display()


class LookupModule(LookupBase):  # type: ignore[misc]  # ansible-core has no types
    """Collects the variables. `plugin_utils._playbooks` checks them."""

    def run(self, terms: Any, variables: Any = None, **kwargs: Any) -> list[dict[str, Any]]:
        self.set_options(var_options=variables, direct=kwargs)
        if len(terms) != 1 or terms[0] not in PLAYBOOKS:
            raise AnsibleLookupError(f"name one playbook of {', '.join(PLAYBOOKS)}")
        try:
            if "inventory_hostname" in variables:
                return [self._of_host(terms[0], variables)]
            return [self._of_play(terms[0], variables)]
        except BadVariables as problem:
            raise AnsibleLookupError(str(problem)) from None

    def _of_play(self, name: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Variables in keywords of a play, without a host: extra variables, and those of `import_playbook`."""
        old = self._old_names(name, variables)
        check_names(name, variables, old)
        hosts = self._hosts(name, variables)
        if not any(context.CLIARGS.get(option) for option in ("syntax", "listtasks", "listtags")):
            check_hosts(hosts, variables["groups"], lambda pattern: self._matching(pattern, variables))
        # Values of other variables may be templates with variables of a host
        batches = self._set({"batches"} & PLAYBOOKS[name].variables.keys(), variables, old)
        return {**{key: value or "all" for key, value in hosts.items()}, **check_batches(batches)}

    def _of_host(self, name: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """All variables, including those of the inventory."""
        check_inventory(name, variables)
        old = self._old_names(name, variables)
        without_effect = {variable for variable in PLAYBOOKS[name].variables if variable in variables} - old
        for variable in sorted(without_effect):
            if "_" in variable:  # shorter names are mostly variables of other software
                display.warning(f"{variable}: has no effect in the inventory; use {PREFIX}{variable}.")
        given = self._set(PLAYBOOKS[name].variables, variables, old)
        return {**self._hosts(name, variables), **check_values(name, given, without_effect)}

    def _hosts(self, name: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: self._templar.template(variables[key]) if key in variables else default
            for key, default in PLAYBOOKS[name].hosts.items()
        }

    def _matching(self, pattern: Any, variables: Mapping[str, Any]) -> list[str]:
        """The hosts of the inventory, within --limit, that a pattern matches."""
        manager = InventoryManager(self._loader, parse=False)
        for group, members in variables["groups"].items():
            manager.add_group(group)
            for host in members:
                manager.add_host(host, group=group)
        manager.subset(variables.get("ansible_limit"))
        return [host.name for host in manager.get_hosts(pattern)]

    def _old_names(self, name: str, variables: Mapping[str, Any]) -> set[str]:
        """The deprecated names of variables among the extra variables; each causes a warning."""
        extra = load_extra_vars(self._loader)
        old = {variable for variable in PLAYBOOKS[name].variables if variable in extra}
        for variable in sorted(old):
            new = f"{PREFIX}{variable}"
            ignored = " It is ignored, because both are set." if new in variables else ""
            display.deprecated(
                f"The variable {variable} of the playbook netops.conntrack.{name} is now named {new}.{ignored}",
                version="2.0.0",
                collection_name="netops.conntrack",
            )
        return old

    def _set(self, names: Iterable[str], variables: Mapping[str, Any], old: set[str]) -> dict[str, Any]:
        """The values of the variables that are set, by name without prefix."""
        spelled = {
            name: f"{PREFIX}{name}" if f"{PREFIX}{name}" in variables else name
            for name in names
            if f"{PREFIX}{name}" in variables or name in old
        }
        found = {}
        for name, variable in spelled.items():
            with contextlib.suppress(AnsibleValueOmittedError):  # a template that returns `omit`
                found[name] = self._templar.template(variables[variable])
        return found
