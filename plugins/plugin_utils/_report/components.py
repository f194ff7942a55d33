# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Components of the sections of the page: tables, badges, quantities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import svg
from .formatting import THIN, UNKNOWN, percent, whole
from .html import Content, Markup, element, joined
from .metrics import share

#: The report, or a part of it.
Document = Mapping[str, Any]
#: A column: its heading, and the class of its cells ("n" is a number).
Column = tuple[str, "str | None"]

#: The levels of hosts that are listed at the top of the page.
URGENT = ("critical", "warning")
#: Maximum number of hosts before the rest is folded, and maximum number of hosts with details.
LISTED, DETAILED = 20, 500

LEVEL_NAMES = {"critical": "Critical", "warning": "Warning", "notice": "Notice", "quiet": "Quiet"}


def table(
    caption: Content,
    columns: Sequence[Column],
    rows: Iterable[Sequence[Content]],
    class_: str | None = None,
    stacks: bool = False,
) -> Markup:
    """A table. The first cell of each row is its heading.

    With `stacks`, the cells of a row are below each other on a narrow page, each with the name of its column.
    """

    def line(row: Sequence[Content]) -> Markup:
        cells = [
            element("td", cell, class_=kind, data_label=name if stacks else None)
            for cell, (name, kind) in zip(row[1:], columns[1:], strict=True)
        ]
        return element("tr", element("th", row[0], scope="row", class_=columns[0][1]), cells)

    return element(
        "table",
        element("caption", caption),
        element("thead", element("tr", [element("th", name, scope="col", class_=kind) for name, kind in columns])),
        element("tbody", [line(row) for row in rows]),
        class_=f"{class_} stacks" if stacks else class_,
    )


def shares(
    caption: str, what: str, counts: Iterable[tuple[Content, int]], whole_of: int | None, bars: bool = True
) -> Markup:
    """Counts, each with its share of the total."""
    rows = [(name, quantity(whole(count)), share_cell(share(count, whole_of), bars=bars)) for name, count in counts]
    return table(caption, [(what, None), ("Entries", "n"), ("Share", "n share")], rows, "shares")


def share_cell(value: float | None, urgency: str = "quiet", marks: bool = False, bars: bool = True) -> Markup:
    """A share as a bar and a number."""
    return joined(svg.share(value, urgency, marks) if bars else None, quantity(percent(value)))


def quantity(shown: str) -> Markup:
    """A number, with its unit in a softer colour. Zero and unknown numbers have that colour, too."""
    figure, thin, unit = shown.rpartition(THIN)
    class_ = "q none" if (figure or shown) in ("0", UNKNOWN) else "q"
    if not thin:
        return element("span", shown, class_=class_)
    return element("span", figure, element("span", THIN + unit, class_="unit"), class_=class_)


def badge(level: str, word: str | None = None) -> Markup:
    """A level as a symbol and a word."""
    return element("span", svg.sign(level), " ", word or LEVEL_NAMES[level], class_=f"badge {level}")


def host_link(host: Mapping[str, Any], place: int) -> Markup:
    """The name of a host, with a link to its details."""
    if place >= DETAILED:
        return element("span", host["name"], class_="name")
    return element("a", host["name"], href=f"#host-{place + 1}", class_="name")


def host_heading(host: Mapping[str, Any], place: int) -> Markup:
    """The name of a host at the beginning of a row, with a symbol if the host needs attention."""
    urgent = host["level"] if host["level"] in URGENT else None
    sign = joined(" ", svg.sign(urgent), element("span", f" ({urgent})", class_="hidden")) if urgent else None
    return joined(host_link(host, place), sign)


def definitions(pairs: Iterable[tuple[Content, Content]], class_: str = "facts") -> Markup:
    return element(
        "dl", [element("div", element("dt", name), element("dd", value)) for name, value in pairs], class_=class_
    )


def section(identifier: str, heading: str, *content: Content, lead: Content = None) -> Markup:
    return element(
        "section",
        element("h2", heading, id=identifier),
        element("p", lead, class_="lead") if lead else None,
        *content,
        aria_labelledby=identifier,
    )


def folded(summary: Content, *content: Content, open_: bool = False, class_: str | None = None) -> Markup:
    return element("details", element("summary", summary), *content, class_=class_, open="" if open_ else None)


def empty(*said: Content) -> Markup:
    return element("p", *said, class_="empty")


def listing(items: Sequence[Any], shown: int, render: Any, rest: str) -> Markup:
    """The first items, with the others folded."""
    if len(items) <= shown + shown // 4:  # a few more items are not worth folding
        return joined(render(items))
    return joined(render(items[:shown]), folded(rest.format(whole(len(items) - shown)), render(items[shown:])))
