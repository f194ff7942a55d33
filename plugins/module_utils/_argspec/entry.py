# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that describe an entry."""

from __future__ import annotations

from typing import Any

from .tuple import DICTIONARY, NUMBER, TEXT, TEXTS, TUPLE, group

_DIRECTED_TUPLE = {**TUPLE, "zone": NUMBER}
_NAT_END = {"address": TEXT, "port": TEXT}
_TCP_PEER = {"window_scale": NUMBER, "flags": TEXTS}
_ADJUSTMENT = dict.fromkeys(("position", "before", "after"), NUMBER)

#: The keys of an entry as options.
ENTRY: dict[str, Any] = {
    "family": {**TEXT, "choices": ["ipv4", "ipv6"]},
    "protocol": {**TEXT, "required": True},
    "zone": {**NUMBER, "default": 0},
    "original": group(_DIRECTED_TUPLE),
    "reply": group(_DIRECTED_TUPLE),
    "nat": group({"source": group(_NAT_END), "destination": group(_NAT_END)}),
    "timeout": NUMBER,
    "mark": TEXT,
    "labels": TEXTS,
    "status": TEXTS,
    "tcp": group({"state": TEXT, "original": group(_TCP_PEER), "reply": group(_TCP_PEER)}),
    "sctp": group({"state": TEXT, "original_vtag": NUMBER, "reply_vtag": NUMBER}),
    "dccp": group({"state": TEXT, "role": TEXT, "handshake_sequence": NUMBER}),
    "helper": TEXT,
    "master": group({**TUPLE, "protocol": TEXT}),
    "sequence_adjustment": group({"original": group(_ADJUSTMENT), "reply": group(_ADJUSTMENT)}),
    "synproxy": group(dict.fromkeys(("isn", "its", "tsoff"), NUMBER)),
    "counters": DICTIONARY,
    "timestamps": DICTIONARY,
    "security_context": TEXT,
    "id": NUMBER,
    "use": NUMBER,
    "extra": DICTIONARY,
}


def declared_entry(params: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a module that declare an entry."""
    declared = {key: params[key] for key in ENTRY if params.get(key) is not None}
    if not params["zone"]:
        del declared["zone"]
    return declared
