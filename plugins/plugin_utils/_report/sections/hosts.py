# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The section with the details of each host, folded."""

from __future__ import annotations

from ..components import DETAILED, Document, badge, definitions, folded, quantity, section, shares
from ..formatting import percent, whole
from ..html import Content, Markup, element, joined
from .kernel import peculiar
from .stale import rules_of_one, verdict_rows
from .top import rankings_of_one
from .traffic import nat_rows, state_rows


def hosts(document: Document) -> Markup | None:
    """The section, or None for a single host, which the other sections describe completely."""
    every = document["hosts"]
    if len(every) < 2:
        return None
    note = None
    if len(every) > DETAILED:
        note = f"The first {whole(DETAILED)} of {whole(len(every))}; all others are in the JSON beside this page."
    common = document["fleet"]["settings"]
    return section(
        "hosts", "Host by host", [_host(place, host, common) for place, host in enumerate(every[:DETAILED])], lead=note
    )


def _host(place: int, host: Document, common: Document) -> Markup:
    figures = host["figures"]
    fill = (
        element("span", "no facts", class_="none") if figures is None else quantity(percent(figures["usage_percent"]))
    )
    return folded(
        joined(element("h3", host["name"]), badge(host["level"]), element("span", fill, class_="usage")),
        element(
            "div",
            element("ul", [element("li", reason["text"]) for reason in host["reasons"]], class_="why")
            if host["reasons"]
            else None,
            None if figures is None else _details(figures, common),
            id=f"host-{place + 1}",
            class_="inside",
        ),
        class_="host",
    )


def _details(figures: Document, common: Document) -> Markup:
    matched, judged = figures["matched"], figures["stale"]
    what = (
        ("Protocols", "Protocol", list(figures["by_protocol"].items())),
        ("States", "State", state_rows(figures)),
        ("NAT", "Address", nat_rows(figures)),
    )
    tables = [shares(caption, name, rows, matched, bars=False) for caption, name, rows in what if rows]
    tables = tables + rankings_of_one(figures) if matched else []
    if judged is not None and judged["judged"]:
        tables.insert(0, shares("Verdicts", "Verdict", verdict_rows(judged), judged["judged"], bars=False))
    return joined(
        definitions(_facts(figures)),
        element("div", tables, class_="grid") if tables else None,
        rules_of_one(figures),
        peculiar(figures, common),
    )


def _facts(figures: Document) -> list[tuple[Content, Content]]:
    """Single values of a host that are not 0."""
    values: list[tuple[Content, Content]] = [("Entries", quantity(whole(figures["count"])))]
    if figures["max"] is not None:
        values.append(("Maximum", quantity(whole(figures["max"]))))
    values += [
        (element("code", name), quantity(whole(count))) for name, count in figures["statistics"].items() if count
    ]
    if figures["expectations"].get("count"):
        values.append(("Expectations", quantity(whole(figures["expectations"]["count"]))))
    for name, heading in (("by_zone", "Zones"), ("by_mark", "Marks")):
        if set(figures[name]) - {"0"}:
            values.append((heading, ", ".join(f"{key}: {whole(count)}" for key, count in figures[name].items())))
    return values
