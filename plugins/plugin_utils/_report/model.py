# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as a document, which the page shows and which is written as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import metrics, severity
from .sanitize import mapping, text
from .thresholds import WITHOUT_FACTS, exceeded_by, judge_flows

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
    result = mapping(result)
    missing = _why_missing(result)
    found = None if missing else metrics.of_host(mapping(result, "ansible_facts", "conntrack"))
    if found is None:
        why, said = missing or ("failed", "What it sent are no facts of connection tracking.")
        reasons = severity.of_missing(why, said)
        exceeded: list[Document] = []
    elif found["stale"] is None and judge_flows(thresholds):
        found = None
        reasons = severity.of_missing("failed", "Its flows were not judged; gather the subset stale.")
        exceeded = []
    else:
        exceeded = exceeded_by(found, thresholds)
        reasons = severity.reasons(found, exceeded)
    return {"name": name, "level": severity.level(reasons), "reasons": reasons, "exceeded": exceeded, "figures": found}


def _why_missing(result: Mapping[Any, Any]) -> tuple[str, str] | None:
    for why in ("unreachable", "failed"):
        if result.get(why):
            return why, text(result.get("msg"), REASON)
    return None


def _order(host: Document) -> tuple[Any, ...]:
    usage = (host["figures"] or {}).get("usage_percent")
    return severity.LEVELS.index(host["level"]), host["figures"] is None, -(usage or 0), host["name"]
