# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options `match` and `except`, and `all` where a module has it: which entries are meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable

from ansible.module_utils.basic import AnsibleModule

if TYPE_CHECKING:
    from ..client.entry.labels import LabelMap
    from ..client.match.match import Match

#: What options are that are not given. A null is refused: a template with an undefined variable often becomes a null.
_ALL, _NONE = "everything", "nothing"


def absent(value: Any) -> tuple[Callable[[], Any]]:
    """A `fallback` in place of a `default`: the value of an option that is not given. It is not documented."""
    return (lambda: value,)


_EXCEPT: dict[str, Any] = {"type": "raw", "fallback": absent(_NONE)}
#: For modules that read. They read every entry by default.
MATCH: dict[str, Any] = {"match": {"type": "raw", "default": _ALL}, "except": _EXCEPT}
#: For modules that change entries or wait for them. They need a match, or the option `all`.
REQUIRED_MATCH: dict[str, Any] = {"match": {"type": "raw", "fallback": absent(_ALL)}, "except": _EXCEPT}
#: The maximum number of entries to change. A table never has more than the value of an absent limit.
LIMIT: dict[str, Any] = {"limit": {"type": "int", "fallback": absent(0xFFFFFFFF)}}


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
    from ..client.match.match import EVERYTHING, parse_match

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
        from ..client.host.sysctl import check_recorded

        check_recorded(match.needs, key)
    return match
