# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The variables of the playbooks: names, types, defaults, and the checks of what users set."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.common.validation import (
    check_type_bool,
    check_type_dict,
    check_type_float,
    check_type_int,
    check_type_list,
    check_type_str,
)

from ansible_collections.netops.conntrack.plugins.module_utils._source.file import shown
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.nested import no_such_key
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue, readable
from ansible_collections.netops.conntrack.plugins.plugin_utils._native import to_native
from ansible_collections.netops.conntrack.plugins.plugin_utils._report import thresholds

PREFIX = "conntrack_"
#: Minimum similarity of names to suggest one for the other, and to assume that one is a misspelling of the other.
SIMILAR, NEARLY_EQUAL = 0.5, 0.8
NOTHING_CHANGED = "Nothing was changed."


class BadVariables(Exception):
    """The variables of a playbook have errors. The message has one sentence for each."""

    def __init__(self, faults: Iterable[str]) -> None:
        super().__init__(readable(" ".join([*(f"{fault}." for fault in faults), NOTHING_CHANGED])))


@dataclass(frozen=True)
class Variable:
    """A variable, without its name. If `default` is None, the variable has no default and may be absent.

    If `remote` names a flag before this variable and the flag is set, the path is on the hosts instead of here.
    """

    kind: str
    default: Any = None
    remote: str = ""


@dataclass(frozen=True)
class Playbook:
    """The variables of one playbook.

    Exactly one variable of each group in `one_of` is required. `hosts` are the names of the variables that select
    hosts, with defaults; these have no prefix. `gather_subset` selects the facts of a report, unless a variable with
    this name does.
    """

    variables: Mapping[str, Variable]
    hosts: Mapping[str, str | None] = field(default_factory=lambda: {"target_hosts": None})
    one_of: tuple[tuple[str, ...], ...] = ()
    gather_subset: tuple[str, ...] = ()


RAW, TEXT, PATH, FLAG, INTEGER, NUMBER, DICTIONARY, LIST = (
    Variable(kind) for kind in ("raw", "text", "path", "flag", "integer", "number", "dictionary", "list")
)
BATCHES = Variable("batches", [1, "25%", "100%"])
MATCH = {"match": RAW, "except": RAW}
#: The files that the module conntrack_report writes, and when it fails.
REPORT = {
    "report_json_path": PATH,
    "report_junit_path": PATH,
    "report_title": TEXT,
    "fail_when": DICTIONARY,
}
#: The verdicts of flows that can be removed.
STALE = ("nat_changed", "refused", "untracked")

PLAYBOOKS = {
    "apply": Playbook(
        {"src": PATH, "config": DICTIONARY, "label_map": TEXT, "report_limit": INTEGER, "batches": BATCHES},
        one_of=(("config", "src"),),
    ),
    "flush": Playbook(
        {
            **MATCH,
            "all": FLAG,
            "limit": INTEGER,
            "max_share": Variable("number", 50),
            "max_share_floor": Variable("integer", 100),
            "keep_ssh": FLAG,
            "batches": BATCHES,
        },
        one_of=(("match", "all"),),
    ),
    "refresh": Playbook(
        {
            **MATCH,
            "verdicts": Variable("verdicts", [*STALE]),
            "remove_stale": Variable("flag", False),
            "limit": INTEGER,
            "max_share": Variable("number", 50),
            "max_share_floor": Variable("integer", 100),
            "top": INTEGER,
            "keep_ssh": FLAG,
            "batches": BATCHES,
        },
    ),
    "drain": Playbook(
        {
            **MATCH,
            "drain_timeout": NUMBER,
            "max_count": Variable("integer", 0),
            "remove_rest": Variable("flag", False),
            "remove_limit": INTEGER,
        },
        one_of=(("match",),),
    ),
    "migrate": Playbook(
        {
            **MATCH,
            "switch": PATH,
            "allow_failures": Variable("flag", False),
            "remove_from_old": Variable("flag", False),
            # The list of flows passes through the controller and must fit into its memory
            "remove_limit": Variable("integer", 100_000),
        },
        hosts={"from_host": None, "to_host": None},
    ),
    "report": Playbook(
        {
            **MATCH,
            "top": INTEGER,
            "gather_subset": Variable("list", ["all", "!capabilities", "!timeout_policies", "snat_ports"]),
            "report_path": Variable("path", "conntrack-report.html"),
            **REPORT,
        },
        hosts={"target_hosts": "all"},
    ),
    "preview": Playbook(
        {
            **MATCH,
            "ruleset_remote_src": Variable("flag", False),
            "ruleset": Variable("path", remote="ruleset_remote_src"),
            "top": INTEGER,
            "report_path": Variable("path", "conntrack-preview.html"),
            **REPORT,
            "report_title": Variable("text", "Preview of a ruleset"),
        },
        hosts={"target_hosts": "all"},
        one_of=(("ruleset",),),
        gather_subset=("stale",),
    ),
    "metrics": Playbook(
        {
            **MATCH,
            "top": INTEGER,
            "gather_subset": Variable("list", ["summary", "statistics", "settings", "expectations"]),
            "group_by": LIST,
            "metrics_path": Variable("metrics_path", "/var/lib/prometheus/node-exporter/conntrack.prom"),
            "metrics_labels": DICTIONARY,
        },
    ),
    "demo": Playbook(
        {
            "vpn_inside": Variable("text", "192.0.2.10"),
            "vpn_outside": Variable("text", "198.51.100.80"),
            "vpn_translated": Variable("text", "203.0.113.10"),
            "stale_flow": RAW,
            "stale_flow_successor": TEXT,
            "remove_stale": Variable("flag", False),
            "report": TEXT,
        },
        hosts={"target_hosts": "all"},
    ),
}


# Names


def check_names(name: str, given: Collection[str], old: Collection[str]) -> None:
    """Check the names of variables that are set for this playbook: extra vars, and `vars` of `import_playbook`.

    :param old: The names without prefix that are accepted, because they are extra vars.
    """
    known = PLAYBOOKS[name].variables
    faults = []
    for variable in sorted(given):
        if variable.startswith(PREFIX) and variable.removeprefix(PREFIX) not in known:
            faults.append(_unknown(name, variable))
        elif variable in known and variable not in old:
            faults.append(f"{variable}: is accepted only as an extra variable; use {PREFIX}{variable}")
    if faults:
        raise BadVariables(faults)


def check_inventory(name: str, given: Collection[str]) -> None:
    """Refuse host variables with a name similar to one of this playbook. Others may belong to other software."""
    every = {f"{PREFIX}{variable}" for playbook in PLAYBOOKS.values() for variable in playbook.variables}
    faults = [
        _unknown(name, variable)
        for variable in sorted(given)
        if variable.startswith(PREFIX) and variable not in every and _closest(name, variable, NEARLY_EQUAL)
    ]
    if faults:
        raise BadVariables(faults)


def _unknown(name: str, variable: str) -> str:
    closest = _closest(name, variable, SIMILAR)
    names = ", ".join(PREFIX + known for known in sorted(PLAYBOOKS[name].variables))
    return f"{variable}: the playbook {name} has no such variable; use {closest or f'one of {names}'}"


def _closest(name: str, variable: str, similarity: float) -> str | None:
    """The variable of the playbook whose name is the most similar, if it is similar enough."""
    found = difflib.get_close_matches(variable.removeprefix(PREFIX), PLAYBOOKS[name].variables, 1, similarity)
    return f"{PREFIX}{found[0]}" if found else None


# Hosts


def check_hosts(hosts: Mapping[str, Any], groups: Mapping[str, Any], matching: Callable[[Any], Sequence[str]]) -> None:
    """Check the variables that select hosts.

    :param groups: The names of hosts by groups.
    :param matching: Returns the hosts that a pattern matches, within --limit.
    """
    faults = []
    for key, value in hosts.items():
        if not value:
            wanted = "hosts or groups" if key == "target_hosts" else "a host"
            faults.append(f"{key}: is required; name {wanted} of the inventory")
        elif key != "target_hosts" and value not in groups["all"]:
            faults.append(f"{key}: {shown(to_native(value))} is not a host of the inventory")
        elif not matching(value) and key != "from_host":  # tasks on from_host are delegated
            faults.append(f"{key}: {shown(to_native(value))} matches no host of the inventory, or none within --limit")
    if not faults and len(hosts) == 2 and hosts["from_host"] == hosts["to_host"]:
        faults.append(f"{' and '.join(hosts)}: are the same host; name two hosts")
    if faults:
        raise BadVariables(faults)


# Values


def check_values(name: str, given: Mapping[str, Any], without_effect: Collection[str] = ()) -> dict[str, Any]:
    """The values of the variables of a playbook, converted to their types, with defaults.

    :param given: Values by the names without prefix.
    :param without_effect: Names without prefix that are set where only names with the prefix have an effect.
    """
    playbook = PLAYBOOKS[name]
    values, faults = _converted(playbook.variables, given)
    for group in playbook.one_of:
        present = [f"{PREFIX}{one}" for one in group if values.get(one, False) is not False]
        if len(present) > 1:
            faults.append(f"{' and '.join(present)}: only one of them can be set; leave out the other")
        elif not present:
            old = [one for one in group if one in without_effect]
            reason = f"; the variable {old[0]} has no effect without the prefix" if old else ""
            faults.append(f"{' or '.join(PREFIX + one for one in group)}: is required{reason}")
    faults += _unmeasured(name, values)
    if faults:
        raise BadVariables(faults)
    return values


def _unmeasured(name: str, values: Mapping[str, Any]) -> list[str]:
    """The errors of thresholds that do not exist, or whose figures the playbook does not gather."""
    limits = [limit for limit, value in values.get("fail_when", {}).items() if value is not None]
    if not limits:
        return []
    # Not needed by most playbooks
    from ansible_collections.netops.conntrack.plugins.module_utils._operations.facts import chosen

    try:
        measurable = thresholds.measurable(chosen(values.get("gather_subset", PLAYBOOKS[name].gather_subset)))
    except InvalidValue:  # the module reports it
        return []
    faults = []
    for limit in limits:
        if limit not in thresholds.NAMES:
            faults.append(str(no_such_key(f"{PREFIX}fail_when", limit, measurable)))
        elif limit not in measurable:
            known = ", ".join(measurable)
            faults.append(
                f"{PREFIX}fail_when.{limit}: the playbook {name} does not gather its figure; use one of {known}"
            )
    return faults


def check_batches(given: Mapping[str, Any]) -> dict[str, Any]:
    """The value of the variable `batches`, without checking other variables."""
    values, faults = _converted({"batches": BATCHES}, given)
    if faults:
        raise BadVariables(faults)
    return values


def _converted(variables: Mapping[str, Variable], given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values and defaults by the names of variables, and the errors."""
    values: dict[str, Any] = {}
    faults = []
    for variable, option in variables.items():
        value = given.get(variable, option.default)
        if variable in given and value is None:
            faults.append(f"{PREFIX}{variable}: is null; leave it out or give it a value")
        elif value is not None:
            check, wanted = KINDS["remote_path" if values.get(option.remote) else option.kind]
            try:
                values[variable] = check(value)
            except (TypeError, ValueError):
                faults.append(f"{PREFIX}{variable}: {shown(to_native(value))} is not valid; use {wanted}")
    return values, faults


def _path(value: Any) -> str:
    """An absolute path. A relative path starts at the working directory of this process."""
    text: str = check_type_str(value, allow_conversion=False)
    if not text:
        raise ValueError
    return os.path.abspath(os.path.expanduser(os.path.expandvars(text)))


def _remote_path(value: Any) -> str:
    """An absolute path on the hosts."""
    text: str = check_type_str(value, allow_conversion=False)
    if not text.startswith("/"):
        raise ValueError
    return text


def _metrics_path(value: Any) -> str:
    """An absolute path on the hosts that the textfile collector reads."""
    path = _remote_path(value)
    if not path.endswith(".prom"):
        raise ValueError
    return path


def _batches(value: Any) -> Any:
    sizes = value if isinstance(value, list) else [value]
    if not sizes or not all(re.fullmatch(r"\d+%?", str(size)) for size in sizes):
        raise ValueError
    return value


def _verdicts(value: Any) -> list[str]:
    verdicts: list[str] = check_type_list(value)
    if not verdicts or not set(verdicts) <= set(STALE):
        raise ValueError
    return verdicts


KINDS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "raw": (lambda value: value, ""),
    "text": (check_type_str, "text"),
    "path": (_path, "the path of a file"),
    "remote_path": (_remote_path, "the absolute path of a file on the hosts"),
    "metrics_path": (_metrics_path, "the absolute path of a file on the hosts that ends with .prom"),
    "flag": (check_type_bool, "true or false"),
    "integer": (check_type_int, "an integer"),
    "number": (check_type_float, "a number"),
    "dictionary": (check_type_dict, "a dictionary"),
    "list": (check_type_list, "a list"),
    "verdicts": (_verdicts, f"one or more of {', '.join(STALE)}"),
    "batches": (_batches, 'numbers of hosts or percentages, such as [1, "25%", "100%"]'),
}
