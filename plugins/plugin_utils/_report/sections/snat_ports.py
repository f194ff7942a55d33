# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The section about the use of SNAT ports, for facts that contain it."""

from __future__ import annotations

from collections.abc import Sequence

from ..components import Document, empty, quantity, section, share_cell, table
from ..formatting import whole
from ..html import Content, Markup, element, joined
from ..severity import FILLING, NEARLY_FULL

#: Maximum number of rows.
ROWS = 10


def snat_ports(document: Document) -> Markup | None:
    """The section, or None if no host has gathered the use of its ports."""
    used = document["fleet"]["snat_ports"]
    if used is None:
        return None
    if not used:
        return section("snat_ports", "SNAT ports", empty("No flow has source NAT."))
    several = document["fleet"]["hosts"] > 1
    columns = [
        ("Address", "who"),
        ("Destination", None),
        ("Use", "n share"),
        ("Used", "n"),
        ("Limit", "n"),
        ("Most ports", None),
        *([("Host", None)] if several else []),
    ]
    rows = [_row(row, several) for row in used[:ROWS]]
    return section(
        "snat_ports",
        "SNAT ports",
        table("Highest use", columns, rows, "ports", stacks=True),
        lead="Each flow to a destination needs a port of its own. If none is left, new flows to this destination fail.",
    )


def _row(row: Document, several: bool) -> Sequence[Content]:
    percentage = row["usage_percent"]
    urgency = "critical" if percentage >= NEARLY_FULL else "warning" if percentage >= FILLING else "quiet"
    to = joined(row["destination"], " ", element("span", f"{row['protocol']} {row['destination_port']}", class_="of"))
    first = row["sources"][0] if row["sources"] else None
    return (
        row["address"],
        to,
        share_cell(percentage, urgency),
        quantity(whole(row["used"])),
        quantity(whole(row["limit"])),
        joined(first["address"], " ", quantity(whole(first["ports"]))) if first else None,
        *([row["host"]] if several else []),
    )
