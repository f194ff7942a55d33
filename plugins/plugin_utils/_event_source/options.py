# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parse and check the options of the event source."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from ...module_utils.client.codec.types import as_list, parse_integer
from ...module_utils.client.entry.labels import LabelMap
from ...module_utils.client.entry.nested import no_such_key
from ...module_utils.client.errors import InvalidValue, quoted
from ...module_utils.client.events.subscription import ENTRY_GROUPS, GROUPS, RECEIVE_BUFFER
from ...module_utils.client.match.match import EVERYTHING, Match, parse_match
from ...module_utils.client.reevaluate.changes import KINDS
from .namespaces import ALL

#: Names of keys to count by. For each name, the first of these keys that is in the entry is used.
BY: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in ("family", "zone", "mark", "helper")},
    **{
        name: (f"original.{name}",)
        for name in (
            *("protocol", "source", "destination", "source_port", "destination_port"),
            *("icmp_type", "icmp_code", "source_key", "destination_key"),
        )
    },
    **{f"reply_{name}": (f"reply.{name}",) for name in ("source", "destination", "source_port", "destination_port")},
    "state": ("tcp.state", "sctp.state", "dccp.state"),
}

_DAY = 86400.0
_LARGEST_BUFFER = 1 << 30


class Aggregate(NamedTuple):
    """The option `aggregate`: seconds of a window, names of `BY`, and the maximum number of groups to report."""

    window: float = 10.0
    by: tuple[str, ...] = ()
    limit: int = 100


class Threshold(NamedTuple):
    """The options `threshold` and `snat_ports`: percentages to report above and below, and seconds between checks."""

    percent: float
    below: float
    interval: float = 10.0


class Changes(NamedTuple):
    """The option `changes`: kinds of changes to report, and seconds without a change before the event."""

    kinds: tuple[str, ...] = KINDS
    window: float = 5.0


class Options(NamedTuple):
    """The options of the event source."""

    groups: tuple[str, ...] = ENTRY_GROUPS
    match: Match = EVERYTHING
    #: One namespace, or those of a list or `all`.
    netns: str | tuple[str, ...] | None = None
    labels: LabelMap = LabelMap()
    aggregate: Aggregate | None = None
    threshold: Threshold | None = None
    snat_ports: Threshold | None = None
    changes: Changes | None = None
    resync: bool = True
    existing: bool = False
    receive_buffer: int = RECEIVE_BUFFER

    @property
    def several(self) -> bool:
        """Whether the source watches several namespaces."""
        return self.netns == ALL or isinstance(self.netns, tuple)

    @property
    def entry_groups(self) -> tuple[str, ...]:
        return tuple(group for group in self.groups if group in ENTRY_GROUPS)

    @property
    def expectation_groups(self) -> tuple[str, ...]:
        return tuple(group for group in self.groups if group not in ENTRY_GROUPS)


#: The names of the options.
NAMES = (
    *("groups", "match", "except", "netns", "label_map", "aggregate", "threshold", "snat_ports", "changes"),
    *("resync", "existing", "receive_buffer"),
)


def parse_options(args: Mapping[str, Any]) -> Options:
    """The options of a source in a rulebook. `InvalidValue` names the first invalid option and a correction."""
    _check_variables(args, "")
    given = _known(args, "", NAMES)
    for name in ("match", "except"):
        if name in args and args[name] is None:
            raise InvalidValue(name, "is null; leave it out or give it a value")
    labels = LabelMap.read(_text(given, "label_map"))
    match = parse_match(given["match"], labels) if "match" in given else EVERYTHING
    if "except" in given:
        match = match.but_not(parse_match(given["except"], labels, "except"))
    options = Options(
        groups=_names(given["groups"], "groups", GROUPS, "is not a group") if "groups" in given else ENTRY_GROUPS,
        match=match,
        netns=_netns(given),
        labels=labels,
        aggregate=_aggregate(given["aggregate"]) if "aggregate" in given else None,
        threshold=_threshold(given["threshold"], "threshold", 10.0) if "threshold" in given else None,
        snat_ports=_threshold(given["snat_ports"], "snat_ports", 60.0) if "snat_ports" in given else None,
        changes=_changes(given["changes"]) if "changes" in given else None,
        resync=_switch(given.get("resync", True), "resync"),
        existing=_switch(given.get("existing", False), "existing"),
        receive_buffer=parse_integer(given.get("receive_buffer", RECEIVE_BUFFER), "receive_buffer", 1, _LARGEST_BUFFER),
    )
    _check_together(options)
    return options


def _check_variables(value: Any, key: str) -> None:
    """Refuse the objects that ansible-rulebook passes where a template names a variable that is not set."""
    variable = getattr(value, "_undefined_name", None)
    if isinstance(variable, str):
        raise InvalidValue(key, f"the variable {variable} is not set; set {variable} in the file of --vars")
    if isinstance(value, Mapping):
        for name, item in value.items():
            _check_variables(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _check_variables(item, f"{key}[{number}]")


def _check_together(options: Options) -> None:
    for name in ("threshold", "snat_ports", "changes"):
        if options.several and getattr(options, name) is not None:
            raise InvalidValue(
                name, f"applies to one namespace, and netns names several; write one in netns, or leave {name} out"
            )
    if not (options.groups or options.threshold or options.snat_ports or options.changes):
        raise InvalidValue(
            "groups", "is empty, and there is nothing else to report; set groups, threshold, snat_ports or changes"
        )
    if options.existing and not options.resync:
        raise InvalidValue("existing", "needs the table to be read, which resync: false forbids; leave one of them out")
    if options.aggregate is not None and not options.entry_groups:
        raise InvalidValue("aggregate", "counts new, update and destroy, and groups has none of them; add one")
    if options.match.needs and not options.resync and {"new", "update"} & set(options.groups):
        raise InvalidValue(
            "match",
            "uses counters or ages, which only destroy events have; write groups: [destroy], or leave resync on",
        )


def _names(raw: Any, key: str, known: Collection[str], problem: str) -> tuple[str, ...]:
    """The different names in a list of known names, or a single one."""
    names = as_list(raw)
    for name in names:
        if not isinstance(name, str) or name not in known:
            raise InvalidValue(key, f"{quoted(name)} {problem}; write some of {', '.join(known)}")
    return tuple(dict.fromkeys(names))


def _aggregate(raw: Any) -> Aggregate:
    given = _known(raw, "aggregate", Aggregate._fields)
    by = _names(given.get("by", []), "aggregate.by", BY, "cannot be counted by")
    default = Aggregate()
    return Aggregate(
        _number(given.get("window", default.window), "aggregate.window", 0.1, _DAY),
        by,
        parse_integer(given.get("limit", default.limit), "aggregate.limit", 1, 10_000),
    )


def _threshold(raw: Any, key: str, interval: float) -> Threshold:
    given = _known(raw, key, Threshold._fields)
    if "percent" not in given:
        raise InvalidValue(f"{key}.percent", "is missing; write the percentage at which the usage is too high")
    percent = _number(given["percent"], f"{key}.percent", 0.001, 100.0)
    below = _number(given.get("below", 0.9 * percent), f"{key}.below", 0.0, 100.0)
    if not 0 < below <= percent:
        cure = f"write a number above 0 and up to {percent:g}"
        raise InvalidValue(f"{key}.below", f"{below:g} is not between 0 and percent, {percent:g}; {cure}")
    return Threshold(percent, below, _number(given.get("interval", interval), f"{key}.interval", 0.1, _DAY))


def _changes(raw: Any) -> Changes:
    given = _known(raw, "changes", Changes._fields)
    default = Changes()
    kinds = _names(given.get("kinds", list(default.kinds)), "changes.kinds", KINDS, "is not a kind of change")
    if not kinds:
        raise InvalidValue("changes.kinds", f"is empty; write some of {', '.join(KINDS)}, or leave it out")
    return Changes(kinds, _number(given.get("window", default.window), "changes.window", 0.1, _DAY))


def _known(raw: Any, key: str, names: tuple[str, ...]) -> dict[str, Any]:
    """The values of the known names, without nulls. Raises `InvalidValue` for an unknown name."""
    if not isinstance(raw, Mapping):
        raise InvalidValue(key, f"{quoted(raw)} is not a dictionary; write some of {', '.join(names)}")
    for name in raw:
        if name not in names:
            raise no_such_key(key, name, names)
    return {name: value for name, value in raw.items() if value is not None}


def _text(given: Mapping[str, Any], key: str) -> str | None:
    value = given.get(key)
    if value is not None and not (isinstance(value, str) and value):
        raise InvalidValue(key, f"{quoted(value)} is not a name or path; write one, or leave it out")
    return value


def _netns(given: Mapping[str, Any]) -> str | tuple[str, ...] | None:
    value = given.get("netns")
    if not isinstance(value, list):
        return _text(given, "netns")
    if not value or not all(isinstance(name, str) and name not in ("", ALL) for name in value):
        raise InvalidValue(
            "netns", f"{quoted(value)} names no namespaces; write a name, a path, a list of names and paths, or all"
        )
    return tuple(value)


def _switch(raw: Any, key: str) -> bool:
    if isinstance(raw, str) and raw.strip().lower() in ("true", "false"):  # from an environment variable
        return raw.strip().lower() == "true"
    if not isinstance(raw, bool):
        raise InvalidValue(key, f"{quoted(raw)} is neither; write true or false")
    return raw


def _number(raw: Any, key: str, lowest: float, highest: float) -> float:
    try:
        number = float("nan" if isinstance(raw, bool) else raw)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not lowest <= number <= highest:
        raise InvalidValue(key, f"{quoted(raw)} is out of range; write a number from {lowest:g} to {highest:g}")
    return number
