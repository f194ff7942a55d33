# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that describe an expectation."""

from __future__ import annotations

from typing import Any

from .tuple import TUPLE, group

_OWN_TUPLE: dict[str, Any] = {"protocol": {"type": "str"}, **TUPLE}

#: The keys of an expectation as options.
EXPECTATION: dict[str, Any] = {
    "family": {"type": "str", "choices": ["ipv4", "ipv6"]},
    "zone": {"type": "int"},
    "tuple": {**group(_OWN_TUPLE), "required": True},
    "mask": group(_OWN_TUPLE),
    "master": group(_OWN_TUPLE),
    "class": {"type": "int"},
    "flags": {"type": "list", "elements": "str"},
    "function": {"type": "str"},
    "nat": group({"direction": {"type": "str", "choices": ["original", "reply"]}, "tuple": group(_OWN_TUPLE)}),
    "timeout": {"type": "int"},
    "helper": {"type": "str"},
    "id": {"type": "int"},
    "extra": {"type": "dict"},
}


def declared_expectation(params: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a module that declare an expectation."""
    return {key: params[key] for key in EXPECTATION if params.get(key) is not None}
