# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that select entries: `match`, `except` and, if the module has them, `all` and `stale`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable

from ansible.module_utils.basic import AnsibleModule

if TYPE_CHECKING:
    from ..client.entry.labels import LabelMap
    from ..client.match.match import Match

#: The values of absent options. A null is an error: a template with an undefined variable often becomes a null.
_ALL, _NONE = "everything", "nothing"


def absent(value: Any) -> tuple[Callable[[], Any]]:
    """Return a `fallback` with the value of an absent option. Unlike a `default`, it need not be documented."""
    return (lambda: value,)


_EXCEPT: dict[str, Any] = {"type": "raw", "fallback": absent(_NONE)}
#: Options of modules that only read. By default, they read every entry.
MATCH: dict[str, Any] = {"match": {"type": "raw", "default": _ALL}, "except": _EXCEPT}
#: Options of modules that change entries or wait for them. They require a match, or the option `all`.
REQUIRED_MATCH: dict[str, Any] = {"match": {"type": "raw", "fallback": absent(_ALL)}, "except": _EXCEPT}
#: The maximum number of entries to change. A table never has more than the value of an absent limit.
LIMIT: dict[str, Any] = {"limit": {"type": "int", "fallback": absent(0xFFFFFFFF)}}
#: What the current rules would do with the entries to select.
STALE: dict[str, Any] = {"stale": {"type": "raw", "fallback": absent(False)}}
#: A file of a ruleset that is not loaded yet.
RULESET: dict[str, Any] = {
    "ruleset": {"type": "path", "fallback": absent("")},
    "remote_src": {"type": "bool", "default": False},
}
_VERDICTS = ("nat_changed", "refused", "untracked")


def check_given(params: dict[str, Any], *options: str) -> None:
    """Raise `InvalidValue` for an option that is null."""
    for option in options:
        if params[option] is None:
            from ..client.errors import InvalidValue

            raise InvalidValue(option, "is null; leave it out or give it a value")


def match_of(
    module: AnsibleModule,
    labels: LabelMap,
    parse: Callable[[Any, LabelMap, str], Match] | None = None,
    optional: bool = False,
) -> Match:
    """Return the match of a module's options `match` and `except`. See `requested_match`.

    Raises `InvalidValue`, also if the match needs values that the kernel does not record in this namespace.
    """
    return recorded(requested_match(module.params, labels, parse, optional), "match or except")


def requested_match(
    params: dict[str, Any],
    labels: LabelMap,
    parse: Callable[[Any, LabelMap, str], Match] | None = None,
    optional: bool = False,
) -> Match:
    """Return the match of the options `match` and `except`. Without both, it matches everything.

    If there is an option `all`, either `match` or `all` is required, unless `optional` is set. `parse` parses a match;
    by default, one of entries. Raises `InvalidValue`.
    """
    from ..client.errors import InvalidValue
    from ..client.match.match import EVERYTHING, parse_match

    parse = parse or parse_match
    check_given(params, "match", "except")
    everything = params["match"] == _ALL
    if "all" in params:
        if params["all"] and not everything:
            raise InvalidValue("all", "match is set, too; write one of them")
        if everything and not params["all"] and not optional:
            raise InvalidValue("match", "is missing; write which entries, or all: true for every one")
    match = EVERYTHING if everything else parse(params["match"], labels, "match")
    if params["except"] != _NONE:
        match = match.but_not(parse(params["except"], labels, "except"))
    return match


def recorded(match: Match, key: str) -> Match:
    """Return the match. Raises `InvalidValue` if it needs values that the kernel does not record in this namespace."""
    if match.needs:
        from ..client.host.sysctl import check_recorded

        check_recorded(match.needs, key)
    return match


def stale_of(module: AnsibleModule) -> tuple[str, ...]:
    """Return the verdicts that the option `stale` selects. Empty if it is absent or false. Raises `InvalidValue`."""
    from ..client.errors import InvalidValue, quoted

    value = module.params["stale"]
    check_given(module.params, "stale")
    if isinstance(value, str) and value.lower() in ("true", "yes", "false", "no"):  # of a template or a command line
        value = value.lower() in ("true", "yes")
    if value is False:
        return ()
    if module.params["table"] != "conntrack":
        raise InvalidValue("stale", f"is for the table conntrack; leave it out with table: {module.params['table']}")
    if value is True:
        return _VERDICTS
    named = value.split(",") if isinstance(value, str) else value
    if not isinstance(named, list) or not named:
        raise InvalidValue("stale", f"{quoted(value)} is not a list; write true, or a list of {', '.join(_VERDICTS)}")
    for verdict in named:
        if verdict not in _VERDICTS:
            raise InvalidValue(
                "stale", f"{quoted(verdict)} is not a verdict; write one or more of {', '.join(_VERDICTS)}"
            )
    return tuple(dict.fromkeys(named))


def ruleset_of(module: AnsibleModule, judges: bool, judging: str) -> str | None:
    """Return the path of the option `ruleset`. Raises `InvalidValue` if the task does not judge entries.

    If the file is on the controller, the action plugin has copied it, and has set `remote_src`.
    """
    check_given(module.params, "ruleset")
    path: str = module.params["ruleset"]
    if not path:
        return None
    from ..client.errors import InvalidValue

    if not judges:
        raise InvalidValue("ruleset", f"requires {judging}; set it as well")
    if not module.params["remote_src"]:
        raise InvalidValue(
            "ruleset",
            "a file on the controller is not available to gather_facts, which runs this module without its action; "
            "write the path of a file on the target, and remote_src: true",
        )
    return path
