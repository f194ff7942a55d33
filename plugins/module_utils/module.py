# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules have in common: options, the namespace, labels, errors."""

from __future__ import annotations

from typing import Any, Callable, Dict

from ansible.module_utils.basic import AnsibleModule

from .client import namespace, settings
from .client.errors import ConntrackError, InvalidValue
from .client.labels import LabelMap
from .client.match import EVERYTHING, Match, parse_match
from .failure import Failed

Spec = Dict[str, Any]

NETNS: Spec = {"netns": {"type": "str"}}
LABEL_MAP: Spec = {"label_map": {"type": "path"}}
REPORT_LIMIT: Spec = {"report_limit": {"type": "int", "default": 100}}
#: Defaults that are not null: a null is what a template with an undefined variable often becomes.
_ALL, _NONE = "everything", "nothing"
MATCH: Spec = {
    "match": {"type": "raw", "default": _ALL},
    "except": {"type": "raw", "default": _NONE},
}

PRESENT: Spec = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "on_existing": {"type": "str", "choices": ["update", "keep", "fail"], "default": "update"},
    "replace": {"type": "bool", "default": False},
    "timeout_min": {"type": "int", "default": 0},
}

_TUPLE: Spec = {
    "source": {"type": "str"},
    "destination": {"type": "str"},
    "source_port": {"type": "int"},
    "destination_port": {"type": "int"},
    "icmp_type": {"type": "int"},
    "icmp_code": {"type": "int"},
    "icmp_id": {"type": "int"},
    "source_key": {"type": "int", "no_log": False},
    "destination_key": {"type": "int", "no_log": False},
}
_DIRECTED_TUPLE: Spec = {**_TUPLE, "zone": {"type": "int"}}
_NAT_END: Spec = {"address": {"type": "str"}, "port": {"type": "str"}}
_TCP_PEER: Spec = {
    "window_scale": {"type": "int"},
    "flags": {"type": "list", "elements": "str"},
}
_ADJUSTMENT: Spec = {
    "position": {"type": "int"},
    "before": {"type": "int"},
    "after": {"type": "int"},
}


def _group(options: Spec) -> Spec:
    return {"type": "dict", "options": options}


#: The keys of an entry as options.
ENTRY: Spec = {
    "family": {"type": "str", "choices": ["ipv4", "ipv6"]},
    "protocol": {"type": "str", "required": True},
    "zone": {"type": "int", "default": 0},
    "original": _group(_DIRECTED_TUPLE),
    "reply": _group(_DIRECTED_TUPLE),
    "nat": _group({"source": _group(_NAT_END), "destination": _group(_NAT_END)}),
    "timeout": {"type": "int"},
    "mark": {"type": "str"},
    "labels": {"type": "list", "elements": "str"},
    "status": {"type": "list", "elements": "str"},
    "tcp": _group({"state": {"type": "str"}, "original": _group(_TCP_PEER), "reply": _group(_TCP_PEER)}),
    "sctp": _group(
        {
            "state": {"type": "str"},
            "original_vtag": {"type": "int"},
            "reply_vtag": {"type": "int"},
        }
    ),
    "dccp": _group(
        {
            "state": {"type": "str"},
            "role": {"type": "str"},
            "handshake_sequence": {"type": "int"},
        }
    ),
    "helper": {"type": "str"},
    "master": _group({**_TUPLE, "protocol": {"type": "str"}}),
    "sequence_adjustment": _group({"original": _group(_ADJUSTMENT), "reply": _group(_ADJUSTMENT)}),
    "synproxy": _group({"isn": {"type": "int"}, "its": {"type": "int"}, "tsoff": {"type": "int"}}),
    "counters": {"type": "dict"},
    "timestamps": {"type": "dict"},
    "security_context": {"type": "str"},
    "id": {"type": "int"},
    "use": {"type": "int"},
    "extra": {"type": "dict"},
}

_OWN_TUPLE: Spec = {"protocol": {"type": "str"}, **_TUPLE}

#: The keys of an expectation as options.
EXPECTATION: Spec = {
    "family": {"type": "str", "choices": ["ipv4", "ipv6"]},
    "zone": {"type": "int"},
    "tuple": {**_group(_OWN_TUPLE), "required": True},
    "mask": _group(_OWN_TUPLE),
    "master": _group(_OWN_TUPLE),
    "class": {"type": "int"},
    "flags": {"type": "list", "elements": "str"},
    "function": {"type": "str"},
    "nat": _group({"direction": {"type": "str", "choices": ["original", "reply"]}, "tuple": _group(_OWN_TUPLE)}),
    "timeout": {"type": "int"},
    "helper": {"type": "str"},
    "id": {"type": "int"},
    "extra": {"type": "dict"},
}

#: The keys of a timeout policy as options.
TIMEOUT_POLICY: Spec = {
    "name": {"type": "str"},
    "default": {"type": "bool", "default": False},
    "family": {"type": "str", "choices": ["ipv4", "ipv6"]},
    "protocol": {"type": "str"},
    "timeouts": {"type": "dict"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "replace": {"type": "bool", "default": False},
    "use": {"type": "int"},
}

#: The settings as options.
SETTINGS: Spec = {
    "max": {"type": "int"},
    "buckets": {"type": "int"},
    "expect_max": {"type": "int"},
    "accounting": {"type": "bool"},
    "timestamps": {"type": "bool"},
    "events": {"type": "int"},
    "checksum": {"type": "bool"},
    "log_invalid": {"type": "int"},
    "tcp_loose": {"type": "bool"},
    "tcp_be_liberal": {"type": "bool"},
    "tcp_max_retrans": {"type": "int"},
    "tcp_ignore_invalid_rst": {"type": "bool"},
    "timeouts": {"type": "dict"},
}


def declared_entry(params: dict[str, Any]) -> dict[str, Any]:
    """The part of a module's parameters that declares an entry."""
    declared = {key: params[key] for key in ENTRY if params.get(key) is not None}
    if not params["zone"]:
        del declared["zone"]
    return declared


def declared_expectation(params: dict[str, Any]) -> dict[str, Any]:
    """The part of a module's parameters that declares an expectation."""
    return {key: params[key] for key in EXPECTATION if params.get(key) is not None}


def run(module: AnsibleModule, task: Callable[[AnsibleModule], dict[str, Any]], nothing_done: dict[str, Any]) -> None:
    """Run a task in the namespace asked for and exit with its result, or fail with one sentence.

    `nothing_done` has every key of the result; a failure returns it, with what a `Failed` says was done
    in its place.
    """
    try:
        _enter_namespace(module)
        result = task(module)
    except InvalidValue as fault:
        module.fail_json(msg=f"{fault}. Nothing was changed.", **{"changed": False, **nothing_done})
    except ConntrackError as error:
        done = error.result if isinstance(error, Failed) else {}
        module.fail_json(msg=str(error), **{**nothing_done, **done})
    else:
        module.exit_json(**result)


def _enter_namespace(module: AnsibleModule) -> None:
    """Enter the network namespace of the option `netns` for good: the process ends soon."""
    name = module.params.get("netns")
    if name is None:
        return
    if not name:
        raise InvalidValue("netns", "is empty; name a namespace, or leave it out to mean the host's own")
    path = namespace.path_of(name)
    try:
        namespace.enter(path)
    except OSError as error:
        raise ConntrackError(
            f"netns: cannot enter {path}: {error.strerror}; name a namespace under "
            "/run/netns or a path such as /proc/PID/ns/net, and run as root (become: true)"
        ) from error


def labels_of(module: AnsibleModule) -> LabelMap:
    """The label map of the option `label_map`, or the host's own."""
    return LabelMap.read(module.params.get("label_map"))


def match_of(
    module: AnsibleModule, labels: LabelMap, parse: Callable[[Any, LabelMap, str], Match] = parse_match
) -> Match:
    """What the options `match` and `except` ask for, everything where neither is given.

    For a module with the option `all`, everything has to be asked for by name. `parse` knows the keys.
    """
    params = module.params
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
    _check_recorded(match)
    return match


def check_accounting() -> None:
    """`ConntrackError` where the kernel counts nothing in this namespace."""
    if settings.read("accounting") == 0:
        raise ConntrackError(
            "Accounting is off, so there is nothing to zero; turn it on with conntrack_settings "
            "(accounting: true, net.netfilter.nf_conntrack_acct=1). It counts for connections that begin after that"
        )


def check_not_negative(module: AnsibleModule, *options: str) -> None:
    """`InvalidValue` for a limit below zero."""
    for option in options:
        if module.params[option] < 0:
            raise InvalidValue(option, f"{module.params[option]} is negative; write 0 or more")


def _check_recorded(match: Match) -> None:
    """`InvalidValue` where a match asks for what the kernel does not record in this namespace."""
    for need in sorted(match.needs):
        if settings.read(need) == 0:
            file = settings.NAMES[need]
            raise InvalidValue(
                "match or except",
                f"asks for what needs {need}, which is off; set net.netfilter.nf_conntrack_{file}=1 "
                "(it counts for connections that begin after that)",
            )
