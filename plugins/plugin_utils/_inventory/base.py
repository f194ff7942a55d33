# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Base class of the inventories: file names, options, the cache, and constructed groups and variables.

Data from tables, files and namespaces is not marked as trusted, so Ansible does not evaluate it as templates.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from typing import Any, ClassVar

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable

from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import ConntrackError, InvalidValue
from ansible_collections.netops.conntrack.plugins.plugin_utils._native import to_native

#: Variables by name of host.
Hosts = dict[str, dict[str, Any]]


class FoundInventory(BaseInventoryPlugin, Constructable, Cacheable):
    """An inventory of hosts that are discovered."""

    #: The end of the name of an inventory file, without the extension.
    ENDING: ClassVar[str]
    #: Options that affect which hosts are found.
    DECISIVE: ClassVar[tuple[str, ...]]
    #: The values of options without a documented default that are not given. A null is an error.
    NOT_GIVEN: ClassVar[dict[str, Any]] = {}

    def find(self, options: dict[str, Any], folder: str) -> Hosts:
        """The hosts for the options in `DECISIVE`. `folder` is the directory of the file. Raises `ConntrackError`."""
        raise NotImplementedError

    def verify_file(self, path: str) -> bool:
        ours = re.search(rf"(^|[._-]){self.ENDING}\.ya?ml$", os.path.basename(path))
        return bool(super().verify_file(path) and ours)

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        config = self._read_config_data(path)
        try:
            self._check_names(config)
            hosts = self._cached(path, cache, config)
        except ConntrackError as error:
            raise AnsibleParserError(str(error)) from None  # otherwise, Ansible prints the message twice
        for name, variables in hosts.items():
            self._add(name, variables)

    def _check_names(self, config: Any) -> None:
        """Refuse unknown options. Ansible ignores them, and a misspelled `match` would select everything."""
        for name in config:
            if name not in self._options and name != "plugin":
                known = ", ".join(sorted(self._options))
                raise InvalidValue(str(name), f"no such option; write one of {known}")

    def _cached(self, path: str, cache: bool, config: Any) -> Hosts:
        options = {name: self._templated(name) for name in self.DECISIVE}
        options.update((name, value) for name, value in self.NOT_GIVEN.items() if name not in config)
        folder = os.path.dirname(os.path.abspath(path))
        if not self.get_option("cache"):
            return self.find(options, folder)
        # Hosts found with other options must not be used
        asked = hashlib.sha256(json.dumps([folder, options], sort_keys=True, default=str).encode()).hexdigest()[:16]
        key = f"{self.get_cache_key(path)}_{asked}"
        if cache and key in self._cache:
            found: Hosts = self._cache[key]
        else:
            found = self._cache[key] = self.find(options, folder)
        return found

    def _templated(self, name: str) -> Any:
        """The value of an option, which may be a template with extra variables."""
        self.templar.available_variables = self._vars
        try:
            return to_native(self.templar.template(self.get_option(name)))
        except AnsibleError as error:
            problem = " ".join(str(error).split())
            raise InvalidValue(name, f"{problem}; templates here can use only extra variables (-e)") from None

    def _add(self, name: str, variables: dict[str, Any]) -> None:
        strict = self.get_option("strict")
        self.inventory.add_host(name)
        for key, value in variables.items():
            self.inventory.set_variable(name, key, value)
        known = self.inventory.get_host(name).get_vars()
        self._set_composite_vars(self.get_option("compose"), known, name, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), known, name, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), known, name, strict=strict)
