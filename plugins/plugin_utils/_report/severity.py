# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The levels of hosts, with reasons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .display_names import VERDICT_NAMES
from .formatting import percent, plural, whole
from .metrics import STALE, Figures, share
from .thresholds import OF_HOSTS, compared

#: The most urgent first.
LEVELS = ("critical", "warning", "notice", "quiet")
#: Usage in percent from which a table is filling up, and nearly full.
FILLING, NEARLY_FULL = 75, 90
#: Minimum number of entries to report that most of them had no reply.
MANY = 1000
#: Shares of stale flows in percent for a warning and for the level critical, and the minimum number for the latter.
STALE_SHARE, MOSTLY_STALE, MANY_STALE = 1, 50, 100

Reason = dict[str, str]


def reasons(figures: Figures, exceeded: Sequence[dict[str, Any]]) -> list[Reason]:
    """The reasons for the level of a host, the most urgent first."""
    found = [
        *_of_fill(figures),
        *_of_statistics(figures["statistics"]),
        *_of_snat_ports(figures["snat_ports"]),
        *_of_expectations(figures["expectations"]),
        *_of_answers(figures),
        *_of_judged(figures["stale"]),
    ]
    for one in exceeded:
        _put_above(one, found)
    return sorted(found, key=lambda reason: LEVELS.index(reason["level"]))


def of_missing(why: str, said: str) -> list[Reason]:
    """The reason for a host without facts."""
    sentence = {"unreachable": "It could not be reached", "failed": "No facts were gathered"}[why]
    return [_reason("critical", why, f"{sentence}: {said}" if said else f"{sentence}.")]


def level(found: Sequence[Reason]) -> str:
    return found[0]["level"] if found else "quiet"


def _reason(urgency: str, about: str, sentence: str) -> Reason:
    return {"level": urgency, "about": about, "text": sentence}


def _put_above(exceeded: dict[str, Any], found: list[Reason]) -> None:
    """Add an exceeded threshold to the reason about the same figure, or as a new reason."""
    name = exceeded["threshold"]
    about, (value, limit) = OF_HOSTS[name], compared(name, exceeded["value"], exceeded["limit"])
    comparison = f"{about} is {value}. The threshold is {limit}."
    for place, reason in enumerate(found):
        if reason["about"] == about:
            added = f"The threshold is {limit}." if value in reason["text"] else comparison
            found[place] = _reason("critical", about, f"{reason['text']} {added}")
            return
    found.append(_reason("critical", about, comparison))


def _of_fill(figures: Figures) -> list[Reason]:
    usage = figures["usage_percent"]
    if usage is None or usage < FILLING:
        return []
    room = ""
    if figures["count"] is not None and figures["max"]:
        room = f", with room for {whole(max(figures['max'] - figures['count'], 0))} more"
    urgency = "critical" if usage >= NEARLY_FULL else "warning"
    return [_reason(urgency, "usage_percent", f"The table is {percent(usage)} full{room}.")]


def _of_statistics(statistics: dict[str, int]) -> list[Reason]:
    problems = (
        ("drop", "warning", ("packet",), "dropped for want of an entry"),
        ("early_drop", "warning", ("entry", "entries"), "removed early to make room: the table was full"),
        ("chain_toolong", "warning", ("entry", "entries"), "refused because their hash chain was too long"),
        ("insert_failed", "notice", ("entry", "entries"), "not inserted"),
    )
    return [
        _reason(urgency, name, f"{plural(statistics[name], *nouns)} {what}.")
        for name, urgency, nouns, what in problems
        if statistics.get(name)
    ]


def _of_snat_ports(used: Sequence[Figures] | None) -> list[Reason]:
    """The reason for the highest use of SNAT ports, if it is high. New flows fail before the last port is used."""
    if not used or used[0]["usage_percent"] < FILLING:
        return []
    most, urgency = used[0], "critical" if used[0]["usage_percent"] >= NEARLY_FULL else "warning"
    to = f"{most['protocol']} to {most['destination']} port {most['destination_port']}"
    said = f"{most['address']} uses {percent(most['usage_percent'])} of its {whole(most['limit'])} ports for {to}."
    return [_reason(urgency, "snat_ports_percent", said)]


def _of_expectations(expectations: dict[str, int]) -> list[Reason]:
    fill = share(expectations.get("count"), expectations.get("max"))
    if fill is None or fill < NEARLY_FULL:
        return []
    return [_reason("warning", "expectations", f"The table of expectations is {percent(fill)} full.")]


def _of_answers(figures: Figures) -> list[Reason]:
    matched = figures["matched"] or 0
    unanswered = matched - figures["status"].get("seen_reply", 0)
    if matched < MANY or not figures["status"] or 2 * unanswered < matched:
        return []
    return [
        _reason("notice", "seen_reply", f"{percent(share(unanswered, matched))} of the entries never got an answer.")
    ]


def _of_judged(judged: Figures | None) -> list[Reason]:
    if judged is None:
        return []
    if not judged["judged"]:
        return [_reason("notice", "judged", "No flow was judged, because none matches.")]
    found = []
    of, verdicts = f"of {plural(judged['judged'], 'flow')}", judged["verdicts"]
    if judged["stale"]:
        kinds = ", ".join(f"{whole(verdicts[kind])} {VERDICT_NAMES[kind]}" for kind in STALE if verdicts[kind])
        stale = judged["stale_percent"]
        urgency = "notice" if stale < STALE_SHARE else "warning"
        if stale >= MOSTLY_STALE and judged["stale"] >= MANY_STALE:
            urgency = "critical"
        said = f"{whole(judged['stale'])} {of} would be treated differently ({percent(stale)}): {kinds}."
        found.append(_reason(urgency, "stale_percent", said))
    if verdicts["uncertain"]:
        said = f"{whole(verdicts['uncertain'])} {of} {'is' if verdicts['uncertain'] == 1 else 'are'} uncertain."
        found.append(_reason("notice", "uncertain_percent", said))
    return found
