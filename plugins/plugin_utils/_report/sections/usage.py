# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The section about the usage of the tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import svg
from ..components import LISTED, Document, empty, host_heading, listing, quantity, section, share_cell, table
from ..formatting import UNKNOWN, percent, span, whole
from ..html import Content, Markup, element
from ..severity import FILLING, NEARLY_FULL

#: Minimum number of hosts for a histogram instead of bars.
HISTOGRAM = 10


def fill(document: Document) -> Markup | None:
    """The usage of the tables."""
    hosts = document["hosts"]
    if len(hosts) == 1:
        return _fill_of_one(hosts[0])
    fleet = document["fleet"]
    usage = fleet["usage_percent"]
    return section(
        "fill",
        "How full the tables are",
        _histogram(usage["hosts_by_tenth"]) if usage["known"] >= HISTOGRAM else None,
        _fullest(document),
    )


def _fill_of_one(host: Document) -> Markup | None:
    figures = host["figures"]
    if figures is None:
        return None
    usage = figures["usage_percent"]
    if usage is None:
        return section("fill", "How full the table is", empty("Its maximum is unknown, and therefore also its usage."))
    label = f"{percent(usage)} full: {whole(figures['count'])} of {whole(figures['max'])} entries"
    return section(
        "fill",
        "How full the table is",
        svg.gauge(usage, _urgency(usage), label),
        element("p", label, ".", class_="caption"),
    )


def _urgency(usage: float | None) -> str:
    if usage is None or usage < FILLING:
        return "quiet"
    return "critical" if usage >= NEARLY_FULL else "warning"


def _histogram(tenths: Sequence[int]) -> Markup:
    highest = max(tenths)
    return element(
        "table",
        element("caption", "Hosts by how full their table is"),
        element(
            "thead",
            element(
                "tr",
                element("th", element("span", "Fill in per cent", class_="hidden"), scope="row"),
                [element("th", span(10 * tenth, 10 * tenth + 10), scope="col") for tenth in range(len(tenths))],
            ),
        ),
        element(
            "tbody",
            element(
                "tr",
                element("th", element("span", "Hosts", class_="hidden"), scope="row"),
                [
                    element(
                        "td",
                        element("span", whole(count), class_="q" if count else "q none"),
                        svg.column(count, highest, _urgency(10 * tenth + 5)),
                    )
                    for tenth, count in enumerate(tenths)
                ],
            ),
        ),
        class_="histogram",
    )


def _fullest(document: Document) -> Markup:
    """All hosts, those with the highest usage first."""
    hosts = sorted(enumerate(document["hosts"]), key=lambda one: _by_fill(one[1]))

    def listed(part: Sequence[tuple[int, Document]]) -> Markup:
        caption = "Hosts, the fullest first" if part[0] == hosts[0] else "The other hosts"
        numbers = [(name, "n") for name in ("Entries", "Maximum", "Dropped", "Failed inserts")]
        columns = [("Host", None), ("Fill", "n share"), *numbers]
        return table(caption, columns, [_host_row(place, host) for place, host in part], "hosts", stacks=True)

    return listing(hosts, LISTED, listed, "{} more hosts")


def _by_fill(host: Document) -> tuple[Any, ...]:
    usage = (host["figures"] or {}).get("usage_percent")
    return host["figures"] is None, usage is None, -(usage or 0), host["name"]


def _host_row(place: int, host: Document) -> Sequence[Content]:
    figures = host["figures"]
    name = host_heading(host, place)
    if figures is None:
        return name, element("span", "no facts", class_="none"), *[quantity(UNKNOWN)] * 4
    usage, statistics = figures["usage_percent"], figures["statistics"]
    numbers = (figures["count"], figures["max"], statistics.get("drop"), statistics.get("insert_failed"))
    return name, share_cell(usage, _urgency(usage), marks=True), *(quantity(whole(number)) for number in numbers)
