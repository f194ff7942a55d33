# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The thresholds at which a report fails."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ...module_utils.client.errors import quoted
from .formatting import THIN, UNKNOWN, percent, whole

#: The figures that can have a threshold, by the subset of facts that contains them, in the order of the report.
_FIGURES = {
    "min": ("usage_percent", "count"),
    "statistics": ("drop", "early_drop", "chain_toolong", "insert_failed", "error", "invalid"),
    "stale": (
        *("stale_percent", "refused_percent", "nat_changed_percent", "untracked_percent", "uncertain_percent"),
        *("stale", "refused"),
    ),
    "snat_ports": ("snat_ports_percent",),
}
_OF_JUDGED = _FIGURES["stale"]
#: The figure that each threshold limits.
OF_HOSTS = {f"{figure}_above": figure for figures in _FIGURES.values() for figure in figures}
#: Maximum number of hosts without facts. It is not known whether these would exceed a threshold.
WITHOUT_FACTS = "hosts_without_facts_above"
NAMES = (*OF_HOSTS, WITHOUT_FACTS)
#: Maximum number of decimal digits to distinguish a figure from its threshold. The smallest share is 1 of 2**64 flows.
_DIGITS = 40


class BadThreshold(ValueError):
    """An invalid threshold. The message is a complete sentence without a full stop."""


def parse(given: Mapping[str, Any]) -> dict[str, float]:
    """The thresholds that are set, by name. Raises `BadThreshold`.

    With at least one threshold, every host must have facts, except for the number in `hosts_without_facts_above`.
    """
    found: dict[str, float] = {}
    for name in NAMES:
        value = given.get(name)
        if value is None:
            continue
        try:
            is_valid = math.isfinite(value) and value >= 0
        except OverflowError:  # an integer that is too large for a float
            is_valid = False
        if not is_valid:
            raise BadThreshold(f"fail_when.{name}: {quoted(value)} is not a threshold; write 0 or a number above")
        found[name] = int(value) if value == int(value) else float(value)
    if found:
        found.setdefault(WITHOUT_FACTS, 0)
    return found


def measurable(subsets: Collection[str]) -> list[str]:
    """The names of the thresholds whose figures are in these subsets of facts."""
    figures = {figure for subset in subsets for figure in _FIGURES.get(subset, ())}
    return [name for name in NAMES if name == WITHOUT_FACTS or OF_HOSTS[name] in figures]


def value_of(name: str, figures: Mapping[str, Any]) -> float | None:
    """The value of a host for a threshold. None if it is unknown."""
    key = OF_HOSTS[name]
    value: float | None
    if key in _OF_JUDGED:
        judged = figures["stale"] or {"verdicts": {}}
        value = judged.get(key, judged["verdicts"].get(key))
    else:
        value = figures[key] if key in figures else figures["statistics"].get(key)
    return value


def need_judged_flows(thresholds: Iterable[str]) -> bool:
    """Whether one of these thresholds needs flows that were judged."""
    return any(OF_HOSTS.get(name) in _OF_JUDGED for name in thresholds)


def exceeded_by(figures: Mapping[str, Any], thresholds: Mapping[str, float]) -> list[dict[str, Any]]:
    """The thresholds that a host exceeds."""
    found = []
    for name, most in thresholds.items():
        value = value_of(name, figures) if name in OF_HOSTS else None
        if value is not None and value > most:
            found.append({"threshold": name, "limit": most, "value": value})
    return found


def shown(name: str, value: float | None) -> str:
    """A figure or a threshold as text."""
    if value is None:
        return UNKNOWN
    if not OF_HOSTS.get(name, "").endswith("_percent"):
        return whole(math.floor(value))
    # From 0.995 on, two digits would be "1", which is "1.0" for 1
    return f"{value:.2g}{THIN}%" if 0 < value < 0.995 else percent(value)


def compared(name: str, value: float, limit: float) -> tuple[str, str]:
    """A figure and its threshold as texts, with as many digits as are needed for the texts to differ."""
    texts = shown(name, value), shown(name, limit)
    if value == limit or texts[0] != texts[1]:
        return texts
    if not OF_HOSTS.get(name, "").endswith("_percent"):
        return f"{math.floor(value):,}", f"{math.floor(limit):,}"
    for digits in range(2, _DIGITS + 1):
        texts = f"{value:,.{digits}f}{THIN}%", f"{limit:,.{digits}f}{THIN}%"
        if texts[0] != texts[1]:
            break
    return texts
