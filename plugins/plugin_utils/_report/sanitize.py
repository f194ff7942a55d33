# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values that a host sent, as far as they are what they should be, and no more of them than a page can bear.

Whatever is of another kind is unknown (None, or empty) and no error: one host must not spoil the report on the others.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: No counter of the kernel is wider.
LARGEST = 2**64 - 1
#: What the smaller entries of a map are counted under, here as in the facts themselves.
OTHER = "other"

#: What is invisible, turns the direction of what follows it, or may not be in XML.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]"
)


def number(value: Any) -> int | None:
    """A count, or None."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
        return None
    return int(value)


def percentage(value: Any) -> float | None:
    """A share in per cent, or None; a table may be more than full."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= LARGEST:
        return None
    return float(value)


def text(value: Any, most: int = 64) -> str:
    """Words in one line of at most so many characters; empty for what is no text."""
    if number(value) is not None:
        return str(int(value))
    if not isinstance(value, str):
        return ""
    line = _UNPRINTABLE.sub("\ufffd", re.sub(r"[ \t\r\n]+", " ", value[: most + 1]))
    return line if len(line) <= most else f"{line[: most - 1]}…"


def mapping(value: Any, *path: str) -> Mapping[Any, Any]:
    """The dictionary at a path below a value; empty where there is none."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def counts(value: Any, most: int) -> dict[str, int]:
    """The `most` largest counts of a map, the sum of all others under `other`."""
    found: dict[str, int] = {}
    for key, count in mapping(value).items():
        name, times = text(key), number(count)
        if name and times is not None:
            found[name] = found.get(name, 0) + times
    others = found.pop(OTHER, 0)
    largest = heapq.nsmallest(most, found.items(), key=_order)
    others += sum(found.values()) - sum(count for _name, count in largest)
    return dict([*largest, (OTHER, others)] if others else largest)


def _order(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def rows(value: Any, most: int) -> Iterator[Mapping[Any, Any]]:
    """The first dictionaries of a list."""
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        for row in value[:most]:
            if isinstance(row, Mapping):
                yield row
