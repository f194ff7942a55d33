# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The section about the entries of the tables: protocols, states, NAT and status."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .. import svg
from ..components import Document, empty, section, shares
from ..display_names import ALWAYS_SHOWN, NAT_NAMES, STATUS_NAMES, words
from ..formatting import plural
from ..html import Content, Markup, element, joined


def traffic(document: Document) -> Markup | None:
    """The section for all hosts together."""
    fleet = document["fleet"]
    if not fleet["with_facts"] or fleet["matched"] is None:
        return None
    heading = "What is in the tables" if fleet["hosts"] > 1 else "What is in the table"
    if not fleet["matched"]:
        return section("traffic", heading, empty("No entries were found."))
    parts = list(fleet["by_protocol"].items())
    keyed = [(joined(svg.key(place), name), count) for place, (name, count) in enumerate(parts)]
    where = f" on {plural(fleet['with_facts'], 'host')}" if fleet["hosts"] > 1 else ""
    return section(
        "traffic",
        heading,
        svg.strip(parts, "Entries by protocol") if parts else None,
        element(
            "div",
            _shares("Protocols", "Protocol", keyed, fleet),
            _shares("Families", "Family", fleet["by_family"].items(), fleet),
            _shares("NAT", "Address", nat_rows(fleet), fleet),
            _shares("States", "State", state_rows(fleet), fleet),
            _shares("Answers", "Status", _status_rows(fleet), fleet),
            class_="flowing",
        ),
        lead=f"{plural(fleet['matched'], 'entry', 'entries')}{where}.",
    )


def _shares(caption: str, what: str, rows: Iterable[tuple[Content, int]], fleet: Document) -> Markup | None:
    found = list(rows)
    return shares(caption, what, found, fleet["matched"]) if found else None


def state_rows(figures: Document) -> Sequence[tuple[Content, int]]:
    """The states of all protocols, the most frequent first."""
    states = [
        (count, protocol, state) for protocol, found in figures["by_state"].items() for state, count in found.items()
    ]
    states.sort(key=lambda one: (-one[0], one[1], one[2]))
    return [
        (joined(element("span", protocol, class_="of"), " ", words(state)), count) for count, protocol, state in states
    ]


def nat_rows(figures: Document) -> Sequence[tuple[str, int]]:
    """The counts by kind of NAT. An entry with source and destination NAT is counted in both rows."""
    return [(NAT_NAMES.get(name, name), count) for name, count in figures["nat"].items()]


def _status_rows(figures: Document) -> Sequence[tuple[str, int]]:
    if not figures["status"]:
        return []
    status = {**dict.fromkeys(ALWAYS_SHOWN, 0), **figures["status"]}
    return [(said, status[name]) for name, said in STATUS_NAMES.items() if name in status]
