# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that describe an expectation."""

from __future__ import annotations

from typing import Any

from .tuple import DICTIONARY, NUMBER, TEXT, TEXTS, TUPLE, group

_OWN_TUPLE = {"protocol": TEXT, **TUPLE}

#: The keys of an expectation as options.
EXPECTATION: dict[str, Any] = {
    "family": {**TEXT, "choices": ["ipv4", "ipv6"]},
    "zone": NUMBER,
    "tuple": {**group(_OWN_TUPLE), "required": True},
    "mask": group(_OWN_TUPLE),
    "master": group(_OWN_TUPLE),
    "class": NUMBER,
    "flags": TEXTS,
    "function": TEXT,
    "nat": group({"direction": {**TEXT, "choices": ["original", "reply"]}, "tuple": group(_OWN_TUPLE)}),
    "timeout": NUMBER,
    "helper": TEXT,
    "id": NUMBER,
    "extra": DICTIONARY,
}


def declared_expectation(params: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a module that declare an expectation."""
    return {key: params[key] for key in EXPECTATION if params.get(key) is not None}
