# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options `match` and `except`, and `all` where a module has it: which entries are meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable

from ansible.module_utils.basic import AnsibleModule

if TYPE_CHECKING:
    from ..client.labels import LabelMap
    from ..client.match import Match

#: Defaults that are not null: a null is what a template with an undefined variable often becomes.
_ALL, _NONE = "everything", "nothing"
MATCH: dict[str, Any] = {
    "match": {"type": "raw", "default": _ALL},
    "except": {"type": "raw", "default": _NONE},
}


def match_of(
    module: AnsibleModule, labels: LabelMap, parse: Callable[[Any, LabelMap, str], Match] | None = None
) -> Match:
    """What the options `match` and `except` of a module ask for.

    Raises `InvalidValue` where that is what the kernel does not record in this namespace.
    """
    return recorded(asked_for(module.params, labels, parse), "match or except")


def asked_for(
    params: dict[str, Any], labels: LabelMap, parse: Callable[[Any, LabelMap, str], Match] | None = None
) -> Match:
    """What the options `match` and `except` ask for, everything where neither is given.

    With the option `all`, everything has to be asked for by name. `parse` knows the keys, those of entries unless
    it is given.
    """
    from ..client.errors import InvalidValue
    from ..client.match import EVERYTHING, parse_match

    parse = parse or parse_match
    for key in ("match", "except"):
        if params[key] is None:
            raise InvalidValue(key, "is null; leave it out or give it a value")
    everything = params["match"] == _ALL
    if "all" in params:
        if params["all"] and not everything:
            raise InvalidValue("all", "match is given too; write one of them")
        if everything and not params["all"]:
            raise InvalidValue("match", "is missing; write which entries, or all: true for every one")
    match = EVERYTHING if everything else parse(params["match"], labels, "match")
    if params["except"] != _NONE:
        match = match.but_not(parse(params["except"], labels, "except"))
    return match


def recorded(match: Match, key: str) -> Match:
    """The match. Raises `InvalidValue` where it asks for what the kernel does not record in this namespace."""
    if match.needs:
        from ..client.settings import check_recorded

        check_recorded(match.needs, key)
    return match
