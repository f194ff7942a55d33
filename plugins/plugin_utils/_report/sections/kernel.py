# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sections about the kernel's counters and settings."""

from __future__ import annotations

from collections.abc import Iterable

from ....module_utils.client.host.sysctl import flat
from ..components import Document, definitions, empty, folded, quantity, section, table
from ..display_names import COUNTERS_MEAN, SWITCHES
from ..formatting import UNKNOWN, seconds, whole
from ..html import Content, Markup, element, joined

_TIMEOUT = "timeouts."


def counters(document: Document) -> Markup | None:
    fleet = document["fleet"]
    if not fleet["with_facts"]:
        return None
    heading = "What went wrong"
    if not fleet["statistics"] and fleet["stale"]:
        return None  # the page is about stale flows
    if not fleet["statistics"]:
        return section("counters", heading, empty("No counters of the kernel were gathered."))
    several = fleet["with_facts"] > 1
    columns = [("Counter", None), ("Total", "n"), *([("Hosts", "n"), ("Most", "wide")] if several else [])]
    rows = [
        (
            joined(element("code", name), element("span", COUNTERS_MEAN[name], class_="meaning")),
            quantity(whole(figures["total"])),
            *([quantity(whole(figures["nonzero"])), _most(figures["highest"])] if several else []),
        )
        for name, figures in fleet["statistics"].items()
    ]
    return section(
        "counters",
        heading,
        table("Counters of the kernels", columns, rows, "plain unnamed", stacks=True),
        lead="Counted by the kernel since it started. Only a second report shows whether it still happens.",
    )


def _most(highest: Document | None) -> Content:
    if highest is None:
        return quantity(UNKNOWN)
    return joined(quantity(whole(highest["value"])), " on ", highest["host"])


def settings(document: Document) -> Markup | None:
    """The settings of most hosts, with the number of hosts that have others."""
    fleet = document["fleet"]
    common = fleet["settings"]
    if not common:
        return None
    heading = "How they are set up" if fleet["with_facts"] > 1 else "How it is set up"
    one = fleet["with_facts"] == 1
    shown = {name: setting for name, setting in common.items() if not name.startswith(_TIMEOUT)}
    timeouts = {name: setting for name, setting in common.items() if name not in shown}

    def listed(caption: str, part: Document) -> Markup:
        return _setup((name, setting["value"]) for name, setting in part.items()) if one else _agreement(caption, part)

    return section(
        "settings",
        heading,
        listed("Settings", shown) if one or shown else None,
        folded("Timeouts", listed("Timeouts", timeouts)) if timeouts else None,
    )


def _agreement(caption: str, common: Document) -> Markup:
    columns = [(caption, None), ("Most have", "n"), ("Hosts", "n"), ("Others", "n")]
    rows = [
        (
            _name(name),
            _value(name, setting["value"]),
            quantity(whole(setting["hosts"])),
            quantity(whole(setting["others"])),
        )
        for name, setting in common.items()
    ]
    return table(f"{caption} that most hosts have", columns, rows, "plain unnamed")


def peculiar(figures: Document, common: Document) -> Markup | None:
    """The settings of a host that differ from those of most hosts."""
    found = {
        name: value
        for name, value in flat(figures["settings"]).items()
        if name in common and value != common[name]["value"]
    }
    if not found:
        return None
    return joined(element("h4", "Set up otherwise than most"), _setup(found.items()))


def _setup(found: Iterable[tuple[str, int]]) -> Markup:
    return definitions(((_name(name), _value(name, value)) for name, value in found), "setup")


def _name(name: str) -> Markup:
    return element("code", name[len(_TIMEOUT) :] if name.startswith(_TIMEOUT) else name)


def _value(name: str, value: int) -> Content:
    if name.startswith(_TIMEOUT):
        return quantity(seconds(value))
    if name in SWITCHES and value in (0, 1):
        return "yes" if value else "no"
    if name == "events" and value in (0, 1, 2):
        return ("no", "yes", "on demand")[value]
    return quantity(whole(value))
