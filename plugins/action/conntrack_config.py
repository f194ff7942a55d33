# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check a declaration for a gateway before the gateway is touched."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from ansible_collections.netops.conntrack.plugins.module_utils.config import SECTIONS
from ansible_collections.netops.conntrack.plugins.module_utils.entries import NO_COUNTS
from ansible_collections.netops.conntrack.plugins.module_utils.source import SourceFault, config_in
from ansible_collections.netops.conntrack.plugins.plugin_utils.checked import faults_of
from ansible_collections.netops.conntrack.plugins.plugin_utils.declaring import DeclaringAction
from ansible_collections.netops.conntrack.plugins.plugin_utils.plain import plain


class ActionModule(DeclaringAction):
    """The action of the module conntrack_config."""

    MODULE = "netops.conntrack.conntrack_config"
    DECLARED = "config"
    NOTHING_DONE: ClassVar[dict[str, Any]] = {
        "counts": NO_COUNTS,
        **{name: {**section, "outcome": "not reached"} for name, section in SECTIONS.items()},
    }

    def arguments(self) -> dict[str, Any]:
        given = self._task.args
        path = self.own_source()
        if path is not None:
            config = config_in(self.loaded(path), path)
            _check(config, f"{path}: ")
            return {**given, **self.sent(json.dumps(config), "config.json")}
        if given.get("config") is not None:
            _check(plain(given["config"]), "")
        return given


def _check(config: Any, where: str) -> None:
    faults = faults_of(config)
    if faults:
        raise SourceFault(f"{where}{faults}")
