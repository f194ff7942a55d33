# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check the types of values from hosts, and limit their size.

A value of another type is unknown (None or empty), not an error: a host must not prevent the report on the others.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

#: The maximum of the kernel's counters.
LARGEST = 2**64 - 1
#: The key for the sum of the smaller counts of a map, as in the facts.
OTHER = "other"

#: Characters that are invisible, change the text direction, or are invalid in XML.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]"
)


def number(value: Any) -> int | None:
    """A count, or None."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
        return None
    return int(value)


def percentage(value: Any) -> float | None:
    """A percentage, or None. The usage of a table may exceed 100 %."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= LARGEST:
        return None
    return float(value)


def text(value: Any, most: int = 64) -> str:
    """A single line of at most `most` characters. Empty if the value is not text."""
    if number(value) is not None:
        return str(int(value))
    if not isinstance(value, str):
        return ""
    line = _UNPRINTABLE.sub("\ufffd", re.sub(r"[ \t\r\n]+", " ", value[: most + 1]))
    return line if len(line) <= most else f"{line[: most - 1]}…"


def mapping(value: Any, *path: str) -> Mapping[Any, Any]:
    """The dictionary at a path below a value. Empty if there is none."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def counts(value: Any, most: int) -> dict[str, int]:
    """The `most` largest counts of a map, and the sum of all others under `other`."""
    found: dict[str, int] = {}
    for key, count in mapping(value).items():
        name, times = text(key), number(count)
        if name and times is not None:
            found[name] = found.get(name, 0) + times
    others = found.pop(OTHER, 0)
    largest = heapq.nsmallest(most, found.items(), key=_order)
    others += sum(found.values()) - sum(count for _name, count in largest)
    return dict([*largest, (OTHER, others)] if others else largest)


def _order(item: tuple[str, int]) -> tuple[Any, ...]:
    return -item[1], by_value(item[0])


def by_value(key: str) -> tuple[int, int, str]:
    """The sort key of a key: numbers and addresses by value, then other texts."""
    if key.isdecimal():
        return 0, int(key), key
    try:
        address = ip_address(key)
    except ValueError:
        return 9, 0, key
    return address.version, int(address), key


def rows(value: Any, most: int) -> Iterator[Mapping[Any, Any]]:
    """The first dictionaries of a list."""
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        for row in value[:most]:
            if isinstance(row, Mapping):
                yield row
