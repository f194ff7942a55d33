# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The section with rankings by flows and bytes."""

from __future__ import annotations

from collections.abc import Sequence

from ..components import Document, empty, quantity, section, table
from ..display_names import RANKING_NAMES, SERVICES
from ..formatting import percent, plural, volume, whole
from ..html import Content, Markup, element, joined
from ..metrics import RANKINGS, share

#: Maximum number of rows of a ranking: of all hosts, and of one of several hosts.
ROWS, ROWS_OF_ONE = 10, 5


def rankings(document: Document) -> Markup | None:
    """The rankings of all hosts together."""
    fleet = document["fleet"]
    if not fleet["matched"]:
        return None
    several = fleet["with_facts"] > 1
    tables = [
        ranking
        for name in RANKINGS
        for ranking in (
            _by_flows(name, fleet["top"][name], fleet["matched"], several),
            _by_bytes(name, fleet["top"][name]),
        )
        if ranking is not None
    ]
    if not tables:
        return section("rankings", "Who has the most", empty("Rankings were not gathered."))
    return section(
        "rankings",
        "Who has the most",
        element("div", tables, class_="columns"),
        lead=" ".join(_notes(fleet, several)) or None,
    )  # fmt: skip


def rankings_of_one(figures: Document) -> list[Markup]:
    """Short rankings of one of several hosts."""
    found = []
    for name in ("sources", "destinations", "services"):
        rows = figures["top"][name].get("by_flows", [])[:ROWS_OF_ONE]
        ranking = _by_flows(name, {"by_flows": rows}, figures["matched"], False)
        if ranking is not None:
            found.append(ranking)
    return found


def _notes(fleet: Document, several: bool) -> list[str]:
    notes = []
    if several:
        notes.append("Sums of the highest values of each host. A sum can be too low.")
    accounting = fleet["settings"].get("accounting")
    off = 0 if accounting is None else accounting["others"] if accounting["value"] else accounting["hosts"]
    if off:
        where = f"on {plural(off, 'host')}" if several else "here"
        notes.append(f"Bytes are not counted {where}: accounting is off.")
    return notes


def _by_flows(name: str, ranking: Document, matched: int | None, several: bool) -> Markup | None:
    rows = ranking.get("by_flows", [])[:ROWS]
    if not rows:
        return None
    counted = any("bytes" in row for row in rows)
    columns = [
        (_SINGULAR[name], "who"),
        ("Flows", "n"),
        ("Share", "n"),
        *([("Bytes", "n")] if counted else []),
        *([("Hosts", "n")] if several else []),
    ]
    cells = [
        (
            _who(name, row),
            quantity(whole(row.get("flows"))),
            quantity(percent(share(row.get("flows"), matched))),
            *([quantity(volume(row.get("bytes")))] if counted else []),
            *([quantity(whole(row.get("hosts")))] if several else []),
        )
        for row in rows
    ]
    return table(f"{RANKING_NAMES[name]} by flows", columns, cells, "ranking")


def _by_bytes(name: str, ranking: Document) -> Markup | None:
    rows: Sequence[Document] = [row for row in ranking.get("by_bytes", []) if row.get("bytes")][:ROWS]
    if not rows:
        return None
    columns = [(_SINGULAR[name], "who"), ("Bytes", "n"), ("Flows", "n")]
    cells = [(_who(name, row), quantity(volume(row["bytes"])), quantity(whole(row.get("flows")))) for row in rows]
    return table(f"{RANKING_NAMES[name]} by bytes", columns, cells, "ranking")


_SINGULAR = {"sources": "Source", "destinations": "Destination", "services": "Service", "pairs": "Pair"}


def _who(name: str, row: Document) -> Content:
    if name == "services":
        known = SERVICES.get((row["protocol"], row["port"]))
        return joined(row["protocol"], " ", row["port"], element("span", " ", known, class_="of") if known else None)
    if name == "pairs":
        return joined(row["source"], " → ", row["destination"])
    return row["address"]
