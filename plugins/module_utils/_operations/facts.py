# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts about the connection tracking of a host, by subsets, from at most one dump of the table.

Each subset imports its own modules, because the target compiles every import again in each task.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Callable, Sequence

from ..client.errors import InvalidValue, Unavailable, quoted
from ..client.match.match import EVERYTHING, Match
from ..client.table_reader import TableReader

if TYPE_CHECKING:
    from ..client.dump.group_keys import GroupKey
    from ..client.entry.nested import Document

SUBSETS = ("min", "summary", "top", "statistics", "settings", "expectations", "timeout_policies", "capabilities")
#: Subsets that only their own name selects.
ON_REQUEST = ("stale", "snat_ports")


def chosen(gather_subset: Sequence[str]) -> set[str]:
    """Return the subsets that a list of names and `!names` selects. `min` is included unless `!min` excludes it.

    As in Ansible's own facts, a named subset is included even with `!all`, in any order. Raises `InvalidValue` for an
    unknown name.
    """
    wanted: set[str] = set()
    named: set[str] = set()
    unwanted: set[str] = set()
    for name in gather_subset:
        bare = name[1:] if name.startswith("!") else name
        if bare not in ("all", *SUBSETS, *ON_REQUEST):
            known = ", ".join((*SUBSETS, *ON_REQUEST))
            raise InvalidValue(
                "gather_subset", f"{quoted(name)} is not a subset; write all, {known}, or one of them after !"
            )
        names = set(SUBSETS) if bare == "all" else {bare}
        if name.startswith("!"):
            unwanted |= names - {"min"} if bare == "all" else names
        else:
            wanted |= names
            named |= set() if bare == "all" else names
    return ((wanted or set(SUBSETS)) | {"min"}) - (unwanted - named)


def gather(
    table: TableReader,
    subsets: set[str],
    match: Match = EVERYTHING,
    most: int = 10,
    ruleset: str | None = None,
    groupings: Sequence[Sequence[GroupKey]] = (),
) -> Document:
    """Return the requested subsets in one document. `ruleset` is a file for `nft -f`, for the subset `stale`.

    `groupings` are the keys of each grouping in `groups`.
    """
    facts: Document = {}
    if "min" in subsets:
        facts.update(_fill(table))
    _count(table, subsets, match, most, groupings, facts)
    if "statistics" in subsets:
        facts["statistics"] = {
            **_summed(table.statistics_per_cpu()),
            "expectations": _summed(table.expectation_statistics_per_cpu()),
        }
    if "settings" in subsets:
        from ..client.host import sysctl

        facts["settings"] = sysctl.read_all()
    if "expectations" in subsets:
        facts["expectations"] = _expectations(table)
    if "timeout_policies" in subsets:
        facts["timeout_policies"] = _timeout_policies(table)
    if "capabilities" in subsets:
        from ..client.probe import probe

        facts["capabilities"] = _once(probe)
    if "snat_ports" in subsets:
        from .snat_ports import snat_ports

        facts["snat_ports"] = snat_ports(table, match, most)
    if "stale" in subsets:
        facts["stale"] = _stale(table, match, most, ruleset)
    return facts


@lru_cache(maxsize=None)
def _once(read: Callable[[], Document]) -> Document:
    """Return facts about the kernel, which are the same in every namespace."""
    return read()


def warnings_of(subsets: set[str]) -> list[str]:
    """Return a sentence if settings cannot be read."""
    from ..client.host import sysctl

    try:
        if "settings" in subsets:
            sysctl.check_mounted()
    except sysctl.CannotSet as error:
        return [f"settings are empty: {error}"]
    return []


def _fill(table: TableReader) -> Document:
    statistics = table.statistics()
    count = statistics["entries"]
    most = statistics.get("max_entries") or _setting("max")
    return {
        "count": count,
        "max": most,
        "usage_percent": round(100 * count / most, 2) if most else None,
    }


def _setting(name: str) -> Any:
    from ..client.host import sysctl

    return sysctl.read(name)


def _summed(per_cpu: dict[int, dict[str, int]]) -> Document:
    """Return the counters of each CPU and their sums."""
    total: Counter[str] = Counter()
    for counts in per_cpu.values():
        total.update(counts)
    return {
        "total": dict(total),
        "per_cpu": {str(cpu): counts for cpu, counts in sorted(per_cpu.items())},
    }


def _count(
    table: TableReader,
    subsets: set[str],
    match: Match,
    most: int,
    groupings: Sequence[Sequence[GroupKey]],
    facts: Document,
) -> None:
    """Add what one dump of the table shows."""
    counters: dict[str, Any] = {}
    if "summary" in subsets:
        from ..client.dump.summary import Summary

        counters["summary"] = Summary()
    if "top" in subsets:
        from ..client.dump.top import Top

        counters["top"] = Top()
    grouped: list[Any] = []
    if groupings:
        from ..client.dump.groups import Groups

        grouped = list(map(Groups, groupings))
    if not counters and not grouped:
        return
    from ..client.dump.scan import VisitorGroup

    table.scan(VisitorGroup([*counters.values(), *grouped]), match.where)
    if "summary" in counters:
        facts.update(counters["summary"].as_document(most))
    if "top" in counters:
        facts["top"] = counters["top"].as_document(most)
    if groupings:
        facts["groups"] = [
            {"by": [key.written for key in keys], **groups.as_document(most)}
            for keys, groups in zip(groupings, grouped)
        ]


def _expectations(table: TableReader) -> Document:
    from ..client.expectation import expectation

    helpers: Counter[str] = Counter(found.get("helper", "none") for found in expectation.read_all(table))
    return {
        "count": sum(helpers.values()),
        "max": _setting("expect_max"),
        "by_helper": dict(sorted(helpers.items())),
    }


def _stale(table: TableReader, match: Match, most: int, ruleset: str | None) -> Document:
    from .stale import StaleFilter

    with StaleFilter(table, (), ruleset) as judge:
        for _selected in judge.scan(match):
            pass
    return {"verdicts": judge.counts(), "rules": judge.counts_by_rule(most)}


def _timeout_policies(table: TableReader) -> list[Document] | None:
    """Return the timeout policies by name, None if the kernel does not support them."""
    from ..client import timeout_policy

    try:
        return sorted(timeout_policy.read_all(table), key=lambda policy: str(policy["name"]))
    except Unavailable:
        return None
