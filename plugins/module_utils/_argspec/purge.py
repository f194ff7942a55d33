# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options `purge` and `scope`: whether to delete entries that are not declared, and which ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule

from .match import absent, recorded

if TYPE_CHECKING:
    from ..client.entry.labels import LabelMap
    from ..client.match.match import Match

#: The value of `scope` if it is absent. A null is an error: a template with an undefined variable often becomes a null.
NO_SCOPE = "nothing"
SCOPE: dict[str, Any] = {
    "purge": {"type": "bool", "default": False},
    "scope": {"type": "raw", "fallback": absent(NO_SCOPE)},
    "keep_ssh": {"type": "bool", "default": True},
}


def scope_of(module: AnsibleModule, labels: LabelMap) -> Match | None:
    """Return the match for the entries that a purge may delete, None without a purge. Raises `InvalidValue`."""
    from ..client.errors import InvalidValue
    from ..client.match.match import parse_match

    purge, scope = module.params["purge"], module.params["scope"]
    if scope is None:
        raise InvalidValue("scope", "is null; leave it out or give it a value")
    if not purge:
        if scope != NO_SCOPE:
            raise InvalidValue("scope", "is of use only for purge; write purge: true or leave scope out")
        return None
    if scope == NO_SCOPE:
        raise InvalidValue("scope", "is missing; write which entries purge may remove if they are not declared")
    return recorded(parse_match(scope, labels, "scope"), "scope")
