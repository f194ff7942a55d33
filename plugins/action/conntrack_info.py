# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Send the ruleset by which the module judges entries, if it is in a file on the controller."""

from __future__ import annotations

from typing import Any, ClassVar

from ansible_collections.netops.conntrack.plugins.plugin_utils._ruleset_action import RulesetAction


class ActionModule(RulesetAction):
    """The action of the module conntrack_info."""

    MODULE = "netops.conntrack.conntrack_info"
    NOTHING_DONE: ClassVar[dict[str, Any]] = {"entries": [], "matched": 0, "truncated": False}
