# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Convert values of templates to plain Python values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def to_native(value: Any) -> Any:
    """A copy without Ansible's tags, lazy containers and string types.

    Values of types that JSON does not have are returned unchanged. The caller must check them.
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
