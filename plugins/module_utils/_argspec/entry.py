# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that describe an entry."""

from __future__ import annotations

from typing import Any

from .tuple import TUPLE, group

_DIRECTED_TUPLE: dict[str, Any] = {**TUPLE, "zone": {"type": "int"}}
_NAT_END: dict[str, Any] = {"address": {"type": "str"}, "port": {"type": "str"}}
_TCP_PEER: dict[str, Any] = {
    "window_scale": {"type": "int"},
    "flags": {"type": "list", "elements": "str"},
}
_ADJUSTMENT: dict[str, Any] = {
    "position": {"type": "int"},
    "before": {"type": "int"},
    "after": {"type": "int"},
}

#: The keys of an entry as options.
ENTRY: dict[str, Any] = {
    "family": {"type": "str", "choices": ["ipv4", "ipv6"]},
    "protocol": {"type": "str", "required": True},
    "zone": {"type": "int", "default": 0},
    "original": group(_DIRECTED_TUPLE),
    "reply": group(_DIRECTED_TUPLE),
    "nat": group({"source": group(_NAT_END), "destination": group(_NAT_END)}),
    "timeout": {"type": "int"},
    "mark": {"type": "str"},
    "labels": {"type": "list", "elements": "str"},
    "status": {"type": "list", "elements": "str"},
    "tcp": group({"state": {"type": "str"}, "original": group(_TCP_PEER), "reply": group(_TCP_PEER)}),
    "sctp": group(
        {
            "state": {"type": "str"},
            "original_vtag": {"type": "int"},
            "reply_vtag": {"type": "int"},
        }
    ),
    "dccp": group(
        {
            "state": {"type": "str"},
            "role": {"type": "str"},
            "handshake_sequence": {"type": "int"},
        }
    ),
    "helper": {"type": "str"},
    "master": group({**TUPLE, "protocol": {"type": "str"}}),
    "sequence_adjustment": group({"original": group(_ADJUSTMENT), "reply": group(_ADJUSTMENT)}),
    "synproxy": group({"isn": {"type": "int"}, "its": {"type": "int"}, "tsoff": {"type": "int"}}),
    "counters": {"type": "dict"},
    "timestamps": {"type": "dict"},
    "security_context": {"type": "str"},
    "id": {"type": "int"},
    "use": {"type": "int"},
    "extra": {"type": "dict"},
}


def declared_entry(params: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a module that declare an entry."""
    declared = {key: params[key] for key in ENTRY if params.get(key) is not None}
    if not params["zone"]:
        del declared["zone"]
    return declared
