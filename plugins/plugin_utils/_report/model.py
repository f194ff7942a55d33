# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as a document, which the page shows and which is written as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import metrics, severity
from .sanitize import mapping, text
from .thresholds import WITHOUT_FACTS, exceeded_by, need_judged_flows

Document = dict[str, Any]

#: Maximum number of characters of a title, of the name of a host, and of the reason for missing facts.
TITLE, NAME, REASON = 120, 120, 400


def report(
    results: Mapping[Any, Any],
    thresholds: Mapping[str, float],
    title: str = "Connection tracking",
    gathered: str | None = None,
    origin: str | None = None,
) -> Document:
    """The report on hosts. `results` maps their names to the results of conntrack_facts.

    Hosts are sorted by level, the most urgent first, then by usage, then by name.
    """
    hosts = [_host(text(name, NAME) or "?", result, thresholds) for name, result in results.items()]
    hosts.sort(key=_order)
    known = [(host["name"], host["figures"]) for host in hosts if host["figures"] is not None]
    exceeded = [{"host": host["name"], **one} for host in hosts for one in host["exceeded"]]
    missing = len(hosts) - len(known)
    allowed = thresholds.get(WITHOUT_FACTS)
    if allowed is not None and missing > allowed:
        exceeded.append({"host": None, "threshold": WITHOUT_FACTS, "limit": allowed, "value": missing})
    return {
        "title": text(title, TITLE),
        "gathered": gathered,
        "origin": text(origin, TITLE) or None,
        "fail_when": dict(thresholds),
        "exceeded": exceeded,
        "fleet": {
            "hosts": len(hosts),
            "with_facts": len(known),
            "without_facts": missing,
            "by_level": {level: sum(host["level"] == level for host in hosts) for level in severity.LEVELS},
            **metrics.of_fleet(known),
        },
        "hosts": hosts,
    }


def _host(name: str, result: Any, thresholds: Mapping[str, float]) -> Document:
    found, missing = _figures(mapping(result), thresholds)
    if found is None:
        reasons, exceeded = severity.of_missing(*missing), []
    else:
        exceeded = exceeded_by(found, thresholds)
        reasons = severity.reasons(found, exceeded)
    return {"name": name, "level": severity.level(reasons), "reasons": reasons, "exceeded": exceeded, "figures": found}


def _figures(result: Mapping[Any, Any], thresholds: Mapping[str, float]) -> tuple[Document | None, tuple[str, str]]:
    """The figures of a host. If they are None, the second value is the reason: its kind, and a text."""
    for why in ("unreachable", "failed"):
        if result.get(why):
            return None, (why, text(result.get("msg"), REASON))
    found = metrics.of_host(mapping(result, "ansible_facts", "conntrack"))
    if found is None:
        return None, ("failed", "Its result contains no facts of connection tracking.")
    if found["stale"] is None and need_judged_flows(thresholds):
        return None, ("failed", "Its flows were not judged; gather the subset stale.")
    return found, ("", "")


def _order(host: Document) -> tuple[Any, ...]:
    usage = (host["figures"] or {}).get("usage_percent")
    return severity.LEVELS.index(host["level"]), host["figures"] is None, -(usage or 0), host["name"]
