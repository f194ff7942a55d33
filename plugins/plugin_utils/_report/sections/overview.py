# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The top of the page: a summary, the main figures, and the hosts that need attention."""

from __future__ import annotations

from collections.abc import Sequence

from .. import svg
from ..components import LISTED, URGENT, Document, badge, empty, host_link, listing, quantity, section, table
from ..formatting import UNKNOWN, percent, plural, short, whole
from ..html import Content, Markup, element, joined
from ..thresholds import OF_HOSTS, compared, shown, value_of


def overview(document: Document) -> Markup:
    """The main figures."""
    fleet = document["fleet"]
    usage = fleet["usage_percent"]["highest"]
    statistics = fleet["statistics"]
    fullest = quantity(percent(usage["value"] if usage else None))
    tiles: list[tuple[str, Content, Content]] = []
    if fleet["hosts"] > 1:
        missing = fleet["without_facts"]
        answered = f"{whole(missing)} without facts" if missing else "all have answered"
        tiles.append(("Hosts", whole(fleet["hosts"]), answered))
        tiles.append(("Fullest table", fullest, usage["host"] if usage else "not known"))
    else:
        figures = document["hosts"][0]["figures"] or {}
        tiles.append(("Fill", fullest, f"of {whole(figures.get('max'))}"))
    tiles.append(("Entries", quantity(short(fleet["count"])), _median(fleet)))
    if fleet["stale"]:
        tiles += _judged_tiles(fleet["stale"])
    if statistics or not fleet["stale"]:
        tiles.append(_counter_tile("Dropped packets", "drop", statistics))
        tiles.append(_counter_tile("Failed inserts", "insert_failed", statistics))
    return element(
        "dl",
        [
            element("div", element("dt", name), element("dd", figure), element("dd", note, class_="note"))
            for name, figure, note in tiles
        ],
        class_="tiles",
    )


def _median(fleet: Document) -> str:
    usage = fleet["usage_percent"]
    if usage["known"] > 1:
        return f"median fill {percent(usage['median'])}"
    if fleet["matched"] is None:
        return "in the table"
    return f"{whole(fleet['matched'])} looked at"


def _judged_tiles(judged: Document) -> list[tuple[str, Content, Content]]:
    said = "no flow was judged"
    if judged["judged"]:
        said = f"{percent(judged['stale_percent'])} of {short(judged['judged'])} judged"
    uncertain = judged["verdicts"]["uncertain"]
    return [
        ("Stale flows", quantity(short(judged["stale"])), said),
        ("Uncertain flows", quantity(short(uncertain)), percent(judged["uncertain_percent"])),
    ]


def _counter_tile(name: str, counter: str, statistics: Document) -> tuple[str, Content, Content]:
    figures = statistics.get(counter)
    if figures is None:
        return name, whole(None), "unknown"
    note = "none since the start"
    if figures["nonzero"]:
        note = f"on {plural(figures['nonzero'], 'host')}" if figures["known"] > 1 else "since the start"
    return name, quantity(short(figures["total"])), note


def verdict(document: Document) -> Markup:
    """A summary of the report in one sentence."""
    fleet = document["fleet"]
    levels = fleet["by_level"]
    if not fleet["hosts"]:
        return element("p", "There are no hosts to report on.", class_="verdict")
    if levels["critical"]:
        level, said = "critical", f"{_need(levels['critical'], fleet['hosts'])} attention now"
        if levels["warning"]:
            said += f", and {whole(levels['warning'])} {'is' if levels['warning'] == 1 else 'are'} worth a look"
    elif levels["warning"]:
        level, said = "warning", f"{_need(levels['warning'], fleet['hosts'])} a look"
    else:
        level, said = "quiet", "Nothing needs attention"
    return element("p", svg.sign(level), " ", said, ".", class_=f"verdict {level}")


def _need(count: int, hosts: int) -> str:
    if hosts == 1:
        return "This host needs"
    return f"{whole(count)} of {whole(hosts)} hosts {'needs' if count == 1 else 'need'}"


def thresholds(document: Document) -> Markup | None:
    """The results of the thresholds."""
    if not document["fail_when"]:
        return None
    above: dict[str, list[Document]] = {}
    for one in document["exceeded"]:
        above.setdefault(one["threshold"], []).append(one)
    rows = []
    for name, limit in document["fail_when"].items():
        found, unknown = above.get(name, []), _unknown(name, document["hosts"])
        most = max(found, key=lambda one: one["value"], default=None)
        outcome = badge("quiet", "kept")
        if most is not None:
            outcome = badge("critical", "exceeded")
        elif unknown:
            outcome = badge("notice", "unknown")
        rows.append(
            (
                element("code", name),
                quantity(shown(name, limit) if most is None else compared(name, most["value"], limit)[1]),
                outcome,
                _where(name, found, most, unknown),
            )
        )
    return section(
        "thresholds",
        "Thresholds",
        table(
            "Thresholds at which this report fails",
            [("Threshold", None), ("Limit", "n"), ("Outcome", None), ("Where", "wide")],
            rows,
            "plain unnamed",
            stacks=True,
        ),
    )


def _unknown(name: str, hosts: Sequence[Document]) -> list[str]:
    """The hosts with facts that do not contain the figure of a threshold. All hosts if none has facts."""
    if name not in OF_HOSTS:
        return []
    with_facts = [host for host in hosts if host["figures"] is not None]
    if not with_facts:
        return [host["name"] for host in hosts]
    return [host["name"] for host in with_facts if value_of(name, host["figures"]) is None]


def _where(name: str, found: Sequence[Document], most: Document | None, unknown: Sequence[str]) -> Content:
    """The hosts that exceed a threshold, or else those whose figure is unknown."""
    if most is None:
        more = f" and {plural(len(unknown) - 1, 'other host')}" if len(unknown) > 1 else ""
        return f"not known on {unknown[0]}{more}" if unknown else UNKNOWN
    if name not in OF_HOSTS:
        return f"{plural(most['value'], 'host')} without facts"
    on = f"{plural(len(found), 'host')}, most on " if len(found) > 1 else ""
    return joined(on, most["host"], " with ", quantity(compared(name, most["value"], most["limit"])[0]))


def attention(document: Document) -> Markup:
    """The hosts that need attention, the most urgent first."""
    urgent = [(place, host) for place, host in enumerate(document["hosts"]) if host["level"] in URGENT]
    several = len(document["hosts"]) > 1

    def listed(part: Sequence[tuple[int, Document]]) -> Markup:
        return element(
            "ol",
            [
                element(
                    "li",
                    element("div", badge(host["level"]), class_="level"),
                    element("div", host_link(host, place) if several else host["name"], class_="who"),
                    element("ul", [element("li", reason["text"]) for reason in host["reasons"]], class_="why"),
                    class_=host["level"],
                )
                for place, host in part
            ],
            class_="attention",
        )

    content = listing(urgent, LISTED, listed, "{} more hosts") if urgent else empty("No host, according to the facts.")
    return section("attention", "Needs attention", content)
