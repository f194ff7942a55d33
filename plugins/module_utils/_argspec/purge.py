# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options `purge` and `scope`: whether to delete entries that are not declared, and which ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule

from .match import absent, check_given, recorded

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
    from ..client.match.match import parse_match

    scope = module.params["scope"]
    check_given(module.params, "scope")
    return recorded(parse_match(scope, labels, "scope"), "scope") if has_scope(module.params["purge"], scope) else None


def is_given(scope: Any) -> bool:
    """Return whether the option `scope` was set."""
    return scope not in (None, NO_SCOPE)


def has_scope(purge: bool, scope: Any) -> bool:
    """Return whether there is a scope. Raises `InvalidValue` for a purge without one, and for one without a purge."""
    given = is_given(scope)
    if purge != given:
        from ..client.errors import InvalidValue

        cure = "has an effect only with purge; write purge: true or leave scope out"
        if purge:
            cure = "is missing; write which entries purge may remove if they are not declared"
        raise InvalidValue("scope", cure)
    return given
