# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules have in common: options, the namespace, labels, errors."""

from __future__ import annotations

import os
import sys
from typing import Any, Callable, Dict

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from .client import settings
from .client.errors import ConntrackError, InvalidValue
from .client.labels import LabelMap
from .client.match import EVERYTHING, Match, parse_match

Spec = Dict[str, Any]

NETNS: Spec = {"netns": {"type": "str"}}
LABEL_MAP: Spec = {"label_map": {"type": "path"}}
REPORT_LIMIT: Spec = {"report_limit": {"type": "int", "default": 100}}
MATCH: Spec = {
    "match": {"type": "raw"},
    "except": {"type": "raw"},
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
    "zone": {"type": "int"},
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


def declared_entry(params: dict[str, Any]) -> dict[str, Any]:
    """The part of a module's parameters that declares an entry."""
    return {key: params[key] for key in ENTRY if params.get(key) is not None}


def run(module: AnsibleModule, task: Callable[[AnsibleModule], dict[str, Any]], nothing_done: dict[str, Any]) -> None:
    """Run a task in the namespace asked for and exit with its result, or fail with one sentence.

    `nothing_done` has every key of the result; a failure returns it, with what the error's own
    `result` says in its place.
    """
    try:
        _enter_namespace(module)
        result = task(module)
    except InvalidValue as fault:
        module.fail_json(msg=f"{fault}. Nothing was changed.", **nothing_done)
    except ConntrackError as error:
        module.fail_json(msg=str(error), **{**nothing_done, **getattr(error, "result", {})})
    else:
        module.exit_json(**result)


def _enter_namespace(module: AnsibleModule) -> None:
    """Enter the network namespace of the option `netns` for good: the process ends soon."""
    name = module.params.get("netns")
    if not name:
        return
    path = name if "/" in name else os.path.join("/run/netns", name)
    try:
        _set_namespace(path)
    except OSError as error:
        raise ConntrackError(
            f"netns: cannot enter {path}: {error.strerror}; name a namespace under "
            "/run/netns or a path such as /proc/PID/ns/net, and run as root (become: true)"
        ) from error


def _set_namespace(path: str) -> None:
    if sys.version_info >= (3, 12):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.setns(descriptor, os.CLONE_NEWNET)
        finally:
            os.close(descriptor)
        return
    try:
        from pyroute2.netns import setns
    except ImportError:
        raise ConntrackError(missing_required_lib("pyroute2", reason="for the option netns")) from None
    setns(path, flags=os.O_RDONLY)


def labels_of(module: AnsibleModule) -> LabelMap:
    """The label map of the option `label_map`, or the host's own."""
    return LabelMap.read(module.params.get("label_map"))


def match_of(module: AnsibleModule, labels: LabelMap) -> Match:
    """What the options `match` and `except` ask for, everything where neither is given.

    For a module with the option `all`, everything has to be asked for by name.
    """
    params = module.params
    if "all" in params:
        if params["all"] and params["match"] is not None:
            raise InvalidValue("all", "match is given too; write one of them")
        if not params["all"] and params["match"] is None:
            raise InvalidValue("match", "is missing; write which entries, or all: true for every one")
    match = EVERYTHING if params["match"] is None else parse_match(params["match"], labels)
    if params["except"] is not None:
        match = match.but_not(parse_match(params["except"], labels, "except"))
    _check_recorded(match)
    return match


def check_not_negative(module: AnsibleModule, *options: str) -> None:
    """`InvalidValue` for a limit below zero."""
    for option in options:
        if (module.params[option] or 0) < 0:
            raise InvalidValue(option, f"{module.params[option]} is negative; write 0 or more")


def _check_recorded(match: Match) -> None:
    """`InvalidValue` where a match asks for what the kernel does not record in this namespace."""
    for need in sorted(match.needs):
        if settings.read(need) == 0:
            file = settings.NAMES[need]
            raise InvalidValue(
                "match",
                f"asks for what needs {need}, which is off; set net.netfilter.nf_conntrack_{file}=1 "
                "(it counts for connections that begin after that)",
            )
