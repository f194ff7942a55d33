# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options `purge` and `scope`: whether, and where, what is not declared goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule

from .match import absent, recorded

if TYPE_CHECKING:
    from ..client.entry.labels import LabelMap
    from ..client.match.match import Match

#: The value of `scope` if it is not given. A null is an error: templates with undefined variables often become nulls.
NO_SCOPE = "nothing"
SCOPE: dict[str, Any] = {
    "purge": {"type": "bool", "default": False},
    "scope": {"type": "raw", "fallback": absent(NO_SCOPE)},
    "keep_ssh": {"type": "bool", "default": True},
}


def scope_of(module: AnsibleModule, labels: LabelMap) -> Match | None:
    """Where what is not declared goes; None where nothing does."""
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
