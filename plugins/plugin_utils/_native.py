# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values of templates as plain Python values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def to_native(value: Any) -> Any:
    """A copy without anything of Ansible: tags, lazy containers, text of its own kinds.

    What is no JSON is left as it is, for whoever checks the value to complain about.
    """
    if isinstance(value, Mapping):
        return {to_native(key): to_native(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_native(item) for item in value]
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    return value
