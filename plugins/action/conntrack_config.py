# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Validate a declaration for a gateway on the controller, before the module runs."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.config import SECTIONS, without_counts
from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.entries import NO_COUNTS
from ansible_collections.netops.conntrack.plugins.module_utils._source.file import config_in
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidDocument, readable
from ansible_collections.netops.conntrack.plugins.plugin_utils._config_validation import faults_of
from ansible_collections.netops.conntrack.plugins.plugin_utils._native import to_native
from ansible_collections.netops.conntrack.plugins.plugin_utils._src_action import DeclaringAction


class ActionModule(DeclaringAction):
    """The action of the module conntrack_config."""

    MODULE = "netops.conntrack.conntrack_config"
    DECLARED = "config"
    NOTHING_DONE: ClassVar[dict[str, Any]] = {
        "counts": NO_COUNTS,
        **{name: {**without_counts(section), "outcome": "not reached"} for name, section in SECTIONS.items()},
    }

    def arguments(self) -> dict[str, Any]:
        given: dict[str, Any] = self._task.args
        path = self.own_source()
        if path is not None:
            config = config_in(self.loaded(path), path)
            _check(config, path)
            return {**given, **self.sent_text(json.dumps(config), "config.json")}
        if given.get("config") is not None:
            _check(to_native(given["config"]), "")
        return given


def _check(config: Any, path: str) -> None:
    faults = faults_of(config)
    if faults:
        raise InvalidDocument(f"{readable(path, 180)}: {faults}" if path else str(faults))
