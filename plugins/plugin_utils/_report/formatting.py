# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Format numbers, units and times for the page."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

#: Narrow no-break space between a number and its unit.
THIN = "\u202f"
#: Placeholder for unknown values.
UNKNOWN = "\u2013"

_PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y", "R", "Q")


def span(first: int, last: int) -> str:
    """A range of numbers."""
    return f"{first}\u2013{last}"


def whole(value: int | None) -> str:
    """A count: `18,233`; with three digits and a prefix from a billion on, `12.4 G`."""
    return short(value, 10**9)


def short(value: int | None, most: int = 10**6) -> str:
    """A count for large type: `18,233`; with three digits and a prefix from `most` on, `1.24 M`."""
    if value is None:
        return UNKNOWN
    return f"{value:,}" if value < most else scaled(value)


def volume(value: int | None) -> str:
    """A number of bytes: `812 B`, `1.24 GB`."""
    if value is None:
        return UNKNOWN
    return f"{value}{THIN}B" if value < 1000 else f"{scaled(value)}B"


def scaled(value: int) -> str:
    """Three digits and a decimal prefix: `1.24 M`."""
    power = min((len(str(value)) - 1) // 3, len(_PREFIXES) - 1)
    figure = value / 1000**power
    if figure >= 999.5 and power + 1 < len(_PREFIXES):
        power, figure = power + 1, figure / 1000
    digits = 2 if figure < 9.995 else 1 if figure < 99.95 else 0
    return f"{figure:.{digits}f}{THIN}{_PREFIXES[power]}"


def percent(value: float | None) -> str:
    """A share: `6.9 %`. Rounding never shows 0 % or 100 % for other values."""
    if value is None:
        return UNKNOWN
    if 0 < value < 0.05:
        return f"<{THIN}0.1{THIN}%"
    if 99.95 <= value < 100:
        return f">{THIN}99.9{THIN}%"
    if value in (0, 100):
        return f"{value:.0f}{THIN}%"
    return f"{value:,.1f}{THIN}%" if value < 999.95 else f"{short(round(value))}{THIN}%"


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 host`, `2 hosts`."""
    return f"{whole(count)} {one if count == 1 else many or one + 's'}"


def seconds(value: int) -> str:
    """A timeout: `30 s`, or in the largest unit that divides it, `5 d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if value >= 2 * size and value % size == 0:
            return f"{whole(value // size)}{THIN}{unit}"
    return f"{whole(value)}{THIN}s"


def utc(moment: str) -> str:
    """A time in ISO 8601, in UTC with whole seconds. Raises `ValueError`, also for a time without a time zone."""
    parsed: Any = datetime.fromisoformat(moment)
    if parsed.tzinfo is None:
        raise ValueError("it has no time zone")
    return f"{parsed.astimezone(UTC):%Y-%m-%dT%H:%M:%S}Z"
