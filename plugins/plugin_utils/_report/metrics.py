# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of each host and of all hosts together, under the names of the facts.

A figure that is missing or invalid in the facts of a host is None or empty. The kernel may not have the counter, the
namespace may not have the setting, or the subset was not gathered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from statistics import median
from typing import Any

from ...module_utils.client.host.sysctl import flat
from .display_names import COUNTERS_MEAN, VERDICT_NAMES
from .sanitize import by_value, counts, mapping, number, percentage, rows, text

Figures = dict[str, Any]

COUNTERS = tuple(COUNTERS_MEAN)
SETTINGS = (
    *("max", "buckets", "expect_max", "accounting", "timestamps", "events", "checksum", "log_invalid"),
    *("tcp_loose", "tcp_be_liberal", "tcp_max_retrans", "tcp_ignore_invalid_rst"),
)
#: Maps that count each entry under exactly one key.
PARTITIONS = ("by_family", "by_protocol", "by_zone", "by_mark")
#: Maps that count an entry under several keys or none.
TRAITS = ("nat", "status")
#: Rankings, with the keys that identify a row.
RANKINGS: dict[str, tuple[str, ...]] = {
    "sources": ("address",),
    "destinations": ("address",),
    "services": ("protocol", "port"),
    "pairs": ("source", "destination"),
}
VERDICTS = tuple(VERDICT_NAMES)
#: The verdicts of flows that a rule would affect, or may affect, and those of stale flows.
AFFECTED = tuple(verdict for verdict in VERDICTS if verdict != "unchanged")
STALE = tuple(verdict for verdict in AFFECTED if verdict != "uncertain")
#: The keys that identify flows which share SNAT ports. The zone is one of them, but most hosts have none.
PORT_USE = ("address", "destination", "destination_port", "protocol")
#: The keys of a rule, besides its handle.
RULE = ("family", "table", "chain", "comment")
#: Maximum number of characters of the comment of a rule, and of a reason.
COMMENT = 128
#: Maximum number of names in a map, of timeouts, of protocols with states, of rows in a ranking, and of sources.
NAMES, TIMEOUTS, STATEFUL, ROWS, SOURCES = 16, 64, 4, 25, 3


def of_host(facts: Any) -> Figures | None:
    """The figures in the facts of a host. None if the value is not facts of this collection."""
    facts = mapping(facts)
    count, most = number(facts.get("count")), number(facts.get("max"))
    stale = _stale(mapping(facts, "stale"))
    known = (count, number(facts.get("matched")), stale)
    if known == (None, None, None) and not mapping(facts, "statistics", "total"):
        return None
    return {
        "count": count,
        "max": most,
        "usage_percent": _usage(count, most, facts.get("usage_percent")),
        "matched": number(facts.get("matched")),
        **{name: counts(facts.get(name), NAMES) for name in (*PARTITIONS, *TRAITS)},
        "by_state": _states(facts.get("by_state")),
        "top": {name: _ranking(name, mapping(facts, "top", name)) for name in RANKINGS},
        "statistics": _known(mapping(facts, "statistics", "total"), COUNTERS),
        "expectations": _known(mapping(facts, "expectations"), ("count", "max")),
        "settings": {
            **_known(mapping(facts, "settings"), SETTINGS),
            "timeouts": dict(sorted(counts(mapping(facts, "settings", "timeouts"), TIMEOUTS).items())),
        },
        "stale": stale,
        **_snat_ports(facts.get("snat_ports")),
    }


def of_fleet(hosts: Sequence[tuple[str, Figures]]) -> Figures:
    """The figures of several hosts together. `hosts` are pairs of a name and figures."""
    every = [one for _name, one in hosts]
    fill = [(name, one["usage_percent"]) for name, one in hosts if one["usage_percent"] is not None]
    percentages = [percent for _name, percent in fill]
    return {
        "count": sum(one["count"] or 0 for one in every),
        "usage_percent": {
            "known": len(fill),
            "median": rounded(median(percentages)) if fill else None,
            "highest": _most(fill),
            "hosts_by_tenth": _by_tenth(percentages),
        },
        "matched": _total([one["matched"] for one in every]),
        **{name: _sum([one[name] for one in every]) for name in (*PARTITIONS, *TRAITS)},
        "by_state": {
            protocol: _sum([one["by_state"].get(protocol, {}) for one in every])
            for protocol in sorted({protocol for one in every for protocol in one["by_state"]})[:STATEFUL]
        },
        "top": {name: _common_ranking(name, [one["top"][name] for one in every]) for name in RANKINGS},
        "statistics": {name: counter for name in COUNTERS if (counter := _counter(name, hosts)) is not None},
        "settings": _common_settings([flat(one["settings"]) for one in every]),
        "stale": _common_stale([one["stale"] for one in every if one["stale"] is not None]),
        "snat_ports": _common_snat_ports(hosts),
    }


def _common_settings(every: Sequence[Mapping[str, int]]) -> dict[str, Any]:
    """The most frequent value of each setting, and the numbers of hosts with this value and with others."""
    names = dict.fromkeys(name for one in every for name in one)
    return {name: _common_setting([one[name] for one in every if name in one]) for name in islice(names, TIMEOUTS)}


def _common_setting(values: Sequence[int]) -> dict[str, int]:
    value, hosts = min(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    return {"value": value, "hosts": hosts, "others": len(values) - hosts}


def _usage(count: int | None, most: int | None, reported: Any) -> float | None:
    if count is not None and most:
        return rounded(100 * count / most)
    return percentage(reported)


def _known(found: Mapping[Any, Any], names: Iterable[str]) -> dict[str, int]:
    return {name: value for name in names if (value := number(found.get(name))) is not None}


def _states(found: Any) -> dict[str, dict[str, int]]:
    states = {text(protocol): counts(of, NAMES) for protocol, of in list(mapping(found).items())[:STATEFUL]}
    return {protocol: of for protocol, of in sorted(states.items()) if protocol and of}


def _total(values: Sequence[int | None]) -> int | None:
    """The sum of the known values. None if all are unknown."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _sum(maps: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in maps:
        total.update(one)
    return counts(total, NAMES)


def _most(values: Sequence[tuple[str, Any]]) -> dict[str, Any] | None:
    """The host with the highest value. Of several, the first by name."""
    if not values:
        return None
    host, value = min(values, key=lambda one: (-one[1], one[0]))
    return {"host": host, "value": value}


def _by_tenth(percentages: Iterable[float]) -> list[int]:
    """The numbers of tables with a usage of 0 to 10 %, 10 to 20 %, and so on. The last includes more than 100 %."""
    tenths = [0] * 10
    for percent in percentages:
        tenths[min(int(percent // 10), 9)] += 1
    return tenths


def _counter(name: str, hosts: Sequence[tuple[str, Figures]]) -> dict[str, Any] | None:
    """A counter of the kernel on all hosts that have it."""
    values = [(host, one["statistics"][name]) for host, one in hosts if name in one["statistics"]]
    if not values:
        return None
    nonzero = [(host, value) for host, value in values if value]
    total = sum(value for _host, value in values)
    return {"total": total, "known": len(values), "nonzero": len(nonzero), "highest": _most(nonzero)}


# Rankings


def _ranking(name: str, found: Mapping[Any, Any]) -> dict[str, list[Figures]]:
    ranking = {}
    for order in ("by_flows", "by_bytes"):
        ranked = [row for raw in rows(found.get(order), ROWS) if (row := _row(name, raw)) is not None]
        if ranked:
            ranking[order] = ranked
    return ranking


def _row(name: str, raw: Mapping[Any, Any]) -> Figures | None:
    """A row of a ranking. None if a key that identifies it is missing."""
    known = {key: text(raw.get(key)) for key in RANKINGS[name]}
    if not all(known.values()):
        return None
    return {**known, **_known(raw, ("flows", "bytes"))}


def _common_ranking(name: str, rankings: Sequence[Mapping[str, list[Figures]]]) -> dict[str, list[Figures]]:
    """A common ranking from those of the hosts. Each row has the number of hosts that rank it."""
    common: dict[tuple[str, ...], Figures] = {}
    for ranking in rankings:
        of_host = {
            tuple(row[key] for key in RANKINGS[name]): row for order in sorted(ranking) for row in ranking[order]
        }
        for key, row in of_host.items():
            total = common.setdefault(key, {**dict(zip(RANKINGS[name], key, strict=True)), "flows": 0, "hosts": 0})
            total["hosts"] += 1
            total["flows"] += row.get("flows", 0)
            if "bytes" in row:
                total["bytes"] = total.get("bytes", 0) + row["bytes"]
    return {
        order: ordered
        for order, unit in (("by_flows", "flows"), ("by_bytes", "bytes"))
        if (ordered := sorted((row for row in common.values() if row.get(unit)), key=_ranked(name, unit))[:ROWS])
    }


def _ranked(name: str, unit: str) -> Any:
    return lambda row: (-row[unit], *(by_value(row[key]) for key in RANKINGS[name]))


# SNAT ports


def _snat_ports(found: Any) -> Figures:
    """The use of SNAT ports, the highest first, and the highest percentage. None if it was not gathered."""
    if not isinstance(found, Sequence) or isinstance(found, (str, bytes)):
        return {"snat_ports": None, "snat_ports_percent": None}
    used = [row for raw in rows(found, ROWS) if (row := _used_ports(raw)) is not None]
    used.sort(key=lambda row: (-row["usage_percent"], *(by_value(row[key]) for key in PORT_USE)))
    return {"snat_ports": used, "snat_ports_percent": max((row["usage_percent"] for row in used), default=0.0)}


def _used_ports(raw: Mapping[Any, Any]) -> Figures | None:
    """The used ports of an address for one destination. None if a key that identifies it is missing."""
    known = {key: text(raw.get(key)) for key in PORT_USE}
    used, limit = number(raw.get("used")), number(raw.get("limit"))
    if not all(known.values()) or used is None or not limit:
        return None
    sources = [
        {"address": address, "ports": ports}
        for source in rows(raw.get("sources"), SOURCES)
        if (address := text(source.get("address"))) and (ports := number(source.get("ports"))) is not None
    ]
    return {**known, "used": used, "limit": limit, "usage_percent": rounded(100 * used / limit), "sources": sources}


def _common_snat_ports(hosts: Sequence[tuple[str, Figures]]) -> list[Figures] | None:
    """The highest uses of SNAT ports of all hosts. None if no host has gathered them."""
    every = [(name, one["snat_ports"]) for name, one in hosts if one["snat_ports"] is not None]
    if not every:
        return None
    used = [{**row, "host": name} for name, of_host in every for row in of_host]
    return sorted(used, key=lambda row: (-row["usage_percent"], row["host"]))[:ROWS]


# Stale flows


def _stale(found: Mapping[Any, Any]) -> Figures | None:
    """The judged flows of a host by verdict, and the rules that decide. None if the host did not judge its flows."""
    verdicts = _known(mapping(found, "verdicts"), VERDICTS)
    if len(verdicts) < len(VERDICTS):
        return None
    ruled = (_rule(raw) for raw in rows(found.get("rules"), ROWS))
    return _judged(verdicts, [row for row in ruled if row is not None])


def _common_stale(every: Sequence[Figures]) -> Figures | None:
    """The judged flows of all hosts. A rule with a comment is the same on hosts where its handle differs."""
    if not every:
        return None
    ambiguous = {comment for one in every for comment in _repeated_comments(one["rules"])}
    common: dict[tuple[Any, ...], Figures] = {}
    for place, one in enumerate(every):
        for row in one["rules"]:
            total = common.setdefault(_same(row, ambiguous), {**row, "entries": 0, "hosts": set(), "handles": set()})
            total["entries"] += row["entries"]
            total["hosts"].add(place)
            total["handles"].add((row["rule"] or {}).get("handle"))
    ranked = sorted(common.items(), key=lambda item: (-item[1]["entries"], repr(item[0])))
    verdicts = {verdict: sum(one["verdicts"][verdict] for one in every) for verdict in VERDICTS}
    return {"hosts": len(every), **_judged(verdicts, [_common_rule(**row) for _key, row in ranked[:ROWS]])}


def _repeated_comments(rows: Sequence[Figures]) -> set[tuple[Any, ...]]:
    """The comments, each with its chain, that several rules of one host have."""
    rules = [row["rule"] for row in rows if row["rule"] is not None]
    distinct = {(*(rule[key] for key in RULE), rule["handle"]) for rule in rules}
    return {comment for comment, times in Counter(named[:-1] for named in distinct).items() if times > 1}


def _same(row: Figures, ambiguous: Collection[tuple[Any, ...]]) -> tuple[Any, ...]:
    """A key that is equal for rows of several hosts about the same rule.

    The comment identifies a rule. Without a comment, and if several rules of one host have it, so does the handle.
    """
    rule = row["rule"]
    if rule is None:
        return row["verdict"], row["reason"]
    named = tuple(rule[key] for key in RULE)
    identified = rule["comment"] and named not in ambiguous
    return row["verdict"], row["reason"], *named, None if identified else rule["handle"]


def _common_rule(rule: Figures | None, hosts: set[int], handles: set[int | None], **row: Any) -> Figures:
    """A row of several hosts. The handle is None if it differs."""
    if rule is not None and len(handles) > 1:
        rule = {**rule, "handle": None}
    return {**row, "rule": rule, "hosts": len(hosts)}


def _judged(verdicts: Mapping[str, int], ruled: list[Figures]) -> Figures:
    """The numbers of flows and their shares. The shares are None if no flow was judged."""
    judged, stale = sum(verdicts.values()), sum(verdicts[verdict] for verdict in STALE)
    return {
        "judged": judged,
        "verdicts": dict(verdicts),
        "stale": stale,
        "stale_percent": share(stale, judged),
        **{f"{verdict}_percent": share(verdicts[verdict], judged) for verdict in AFFECTED},
        "rules": ruled,
    }


def _rule(raw: Mapping[Any, Any]) -> Figures | None:
    """A rule that decides, with a verdict and the number of entries. None if it is invalid."""
    verdict, entries = raw.get("verdict"), number(raw.get("entries"))
    if verdict not in AFFECTED or entries is None:
        return None
    found = mapping(raw, "rule")
    rule = {**{key: text(found.get(key), COMMENT) or None for key in RULE}, "handle": number(found.get("handle"))}
    return {
        "verdict": verdict,
        "rule": rule if rule["chain"] else None,
        "reason": text(raw.get("reason"), COMMENT) or None,
        "entries": entries,
    }


def share(part: int | None, whole: int | None) -> float | None:
    """A part of a total in percent. None if the total is 0 or unknown."""
    return 100 * (part or 0) / whole if whole else None


def rounded(percent: float) -> float:
    """A percentage with two decimals. It is not rounded if the result would be 0 or 100."""
    result = round(percent, 2)
    return percent if result in (0, 100) else result
