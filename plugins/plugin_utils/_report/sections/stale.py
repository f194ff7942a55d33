# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The section about stale flows, for facts in which flows were judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..components import LISTED, Document, empty, host_heading, listing, quantity, section, share_cell, shares, table
from ..display_names import VERDICT_NAMES
from ..formatting import UNKNOWN, plural, whole
from ..html import Content, Markup, element, joined
from ..metrics import AFFECTED

#: Maximum number of rules: of all hosts, and of one of several hosts.
RULES, RULES_OF_ONE = 10, 5


def stale(document: Document) -> Markup | None:
    """The section, or None if no host has judged its flows."""
    fleet = document["fleet"]
    judged = fleet["stale"]
    if judged is None:
        return None
    several = fleet["hosts"] > 1
    where = f" on {plural(judged['hosts'], 'host')}" if several else ""
    if not judged["judged"]:
        return section("stale", "Stale flows", empty(f"No flows were judged{where}, because none match."))
    rules = _rules(judged["rules"][:RULES], "Rules that decide", several)
    return section(
        "stale",
        "Stale flows",
        shares("Verdicts", "Verdict", verdict_rows(judged), judged["judged"]),
        _hosts(document) if several else None,
        rules,
        lead=joined(
            f"How the rules would treat {plural(judged['judged'], 'flow')}{where} if they began now.",
            " Each host returns the rules with the most flows. A sum can be too low." if several and rules else None,
        ),
    )


def rules_of_one(figures: Document) -> Markup | None:
    """The first rules of one of several hosts."""
    judged = figures["stale"]
    return None if judged is None else _rules(judged["rules"][:RULES_OF_ONE], "Rules that decide", False)


def verdict_rows(judged: Document) -> Sequence[tuple[Content, int]]:
    return [(name, judged["verdicts"][verdict]) for verdict, name in VERDICT_NAMES.items()]


def _hosts(document: Document) -> Markup:
    """All hosts, those with the highest share of stale flows first."""
    hosts = sorted(enumerate(document["hosts"]), key=lambda one: _by_share(one[1]))

    def listed(part: Sequence[tuple[int, Document]]) -> Markup:
        caption = "Hosts, those with the most stale flows first" if part[0] == hosts[0] else "The other hosts"
        kinds = [(_heading(VERDICT_NAMES[verdict]), "n") for verdict in AFFECTED]
        columns = [("Host", None), ("Stale", "n share"), *kinds, ("Judged", "n")]
        return table(caption, columns, [_host_row(place, host) for place, host in part], "hosts", stacks=True)

    return listing(hosts, LISTED, listed, "{} more hosts")


def _heading(name: str) -> str:
    return name[0].upper() + name[1:]


def _of(host: Document) -> Any:
    return (host["figures"] or {}).get("stale")


def _by_share(host: Document) -> tuple[Any, ...]:
    judged = _of(host)
    return judged is None, -((judged or {}).get("stale_percent") or 0), host["name"]


def _host_row(place: int, host: Document) -> Sequence[Content]:
    judged = _of(host)
    if judged is None:
        unknown = [quantity(UNKNOWN)] * (len(AFFECTED) + 1)
        return host_heading(host, place), element("span", "not judged", class_="none"), *unknown
    numbers = [*(judged["verdicts"][verdict] for verdict in AFFECTED), judged["judged"]]
    urgency = next((one["level"] for one in host["reasons"] if one["about"] == "stale_percent"), "quiet")
    cells = (quantity(whole(number)) for number in numbers)
    share = element("span", "no flow judged", class_="none")
    if judged["judged"]:
        share = share_cell(judged["stale_percent"], urgency)
    return host_heading(host, place), share, *cells


def _rules(rows: Sequence[Document], caption: str, several: bool) -> Markup | None:
    if not rows:
        return None
    columns = [("Rule", "who"), ("Verdict", None), ("Flows", "n"), *([("Hosts", "n")] if several else [])]
    cells = [
        (
            _rule(row["rule"]),
            _verdict(row),
            quantity(whole(row["entries"])),
            *([quantity(whole(row["hosts"]))] if several else []),
        )
        for row in rows
    ]
    return table(caption, columns, cells, "rules", stacks=True)


def _rule(rule: Document | None) -> Content:
    """A rule as in `nft -a list ruleset`, with its comment below."""
    if rule is None:
        return element("span", "no rule decides", class_="none")
    names = " ".join(rule[key] or UNKNOWN for key in ("family", "table", "chain"))
    handle = rule["handle"]
    place = "" if handle is None else f", handle {handle}" if handle else ", policy"
    comment = element("span", rule["comment"], class_="meaning") if rule["comment"] else None
    return joined(element("code", names, place), comment)


def _verdict(row: Document) -> Content:
    reason = element("span", row["reason"], class_="meaning") if row["reason"] else None
    return joined(VERDICT_NAMES[row["verdict"]], reason)
