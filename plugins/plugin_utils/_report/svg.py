# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Charts as inline SVG, with the colours of the page's style sheet.

A bar beside its number is hidden from screen readers. A chart without a number has a description.
"""

from __future__ import annotations

from collections.abc import Sequence

from .formatting import percent
from .html import Content, Markup, element, joined
from .severity import FILLING, NEARLY_FULL

#: Number of shades of a strip. The first is for the largest part, the last for all remaining parts.
SHADES = 6


def share(value: float | None, urgency: str = "quiet", marks: bool = False) -> Markup:
    """A percentage as a bar, with optional marks at the levels of filling up and nearly full."""
    if value is None:
        return Markup("")
    width = _bounded(value)
    return _image(
        "bar",
        "100 8",
        element("rect", class_="track", width=100, height=8, rx=1),
        element("rect", class_=f"fill {urgency}", width=_number(width), height=8) if width else None,
        [_mark(at, 8) for at in (FILLING, NEARLY_FULL)] if marks else None,
    )


def gauge(value: float, urgency: str, label: str) -> Markup:
    """The usage of a table as a large bar."""
    return _image(
        "gauge",
        "100 10",
        element("title", label),
        element("desc", f"Marks are at {percent(FILLING)}, filling up, and {percent(NEARLY_FULL)}, nearly full."),
        element("rect", class_="track", width=100, height=10),
        element("rect", class_=f"fill {urgency}", width=_number(max(_bounded(value), 0.2)), height=10)
        if value
        else None,
        [_mark(at, 10) for at in (FILLING, NEARLY_FULL)],
        label=label,
    )


def column(value: int, highest: int, urgency: str) -> Markup:
    """A count as a column of a histogram."""
    height = 100 * value / highest if highest else 0
    height = max(height, 1.5) if value else 0
    rect = element("rect", class_=f"fill {urgency}", y=_number(100 - height), width=10, height=_number(height))
    return _image("column", "10 100", rect)


def strip(parts: Sequence[tuple[str, int]], label: str) -> Markup:
    """A stacked bar of the parts of a total, with the order and shades of `key`."""
    total = sum(count for _name, count in parts) or 1
    pieces, at = [], 0.0
    for place, (name, count) in enumerate(parts):
        width = 100 * count / total
        pieces.append(
            element(
                "rect",
                element("title", f"{name}: {percent(width)}"),
                class_=f"shade-{shade(place)}",
                x=_number(at),
                width=_number(width),
                height=10,
            )
        )
        at += width
    listed = ", ".join(f"{name} {percent(100 * count / total)}" for name, count in parts)
    return _image(
        "strip", "100 10", element("title", label), element("desc", listed), pieces, label=f"{label}: {listed}"
    )


def key(place: int) -> Markup:
    """The legend symbol for a part of a strip."""
    rect = element("rect", class_=f"shade-{shade(place)}", width=10, height=10, rx=2)
    return _image("key", "10 10", rect, stretches=False)


def shade(place: int) -> int:
    return min(place, SHADES - 1)


#: A symbol for each level, for readers that cannot distinguish the colours.
_SIGNS = {
    "critical": joined(element("rect", x=1, y=1, width=10, height=10, rx=1.5)),
    "warning": joined(element("path", d="M6 .8 11.6 11H.4z")),
    "notice": joined(element("circle", cx=6, cy=6, r=4.2)),
    "quiet": joined(element("path", class_="line", d="M1.8 6.6 4.8 9.4 10.4 2.8")),
}


def sign(urgency: str) -> Markup:
    return _image(f"sign {urgency}", "12 12", _SIGNS[urgency], stretches=False)


def _image(class_: str, size: str, *content: Content, label: str | None = None, stretches: bool = True) -> Markup:
    """An image with its description, or without one hidden from screen readers. `size` is its width and height."""
    return element(
        "svg",
        *content,
        class_=class_,
        viewBox=f"0 0 {size}",
        preserveAspectRatio="none" if stretches else None,
        role="img" if label else None,
        aria_label=label,
        aria_hidden=None if label else "true",
        focusable=None if label else "false",
    )


def _mark(at: float, height: int) -> Markup:
    return element("rect", class_="mark", x=at, width=0.4, height=height)


def _bounded(value: float) -> float:
    return min(max(value, 0.0), 100.0)


def _number(value: float) -> str:
    """A coordinate with at most two decimals, which is more than a screen can show."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
