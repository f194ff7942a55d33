# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the facts of a host as metrics for Prometheus.

The samples are the same in both formats. In the text format of Prometheus, the metadata of a counter has the name of
its samples, with `_total`. In OpenMetrics, it has the name without this suffix. The textfile collector of node_exporter
and `promtool check metrics` read only the first: they would lose the types of counters in OpenMetrics.

Sources: https://prometheus.io/docs/instrumenting/exposition_formats/ and
https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from ..module_utils.client.errors import quoted
from ._report.sanitize import LARGEST, mapping, rows, text

PREFIX = "conntrack_"
FORMATS = ("prometheus", "openmetrics")
#: Suffixes that are units, for OpenMetrics.
UNITS = ("seconds", "bytes")
COUNTER, GAUGE = "counter", "gauge"

#: Maximum number of samples that one list or map of the facts becomes, and of characters of a label.
ROWS, LABEL = 4096, 128

Labels = tuple[tuple[str, str], ...]

#: The counters of the kernel, for each CPU, as in conntrack(8).
STATISTICS = {
    "found": "Lookups that found an entry.",
    "invalid": "Packets that belong to no connection.",
    "insert": "Entries that were inserted without a packet.",
    "insert_failed": "Entries that could not be inserted, for example because NAT found no free port.",
    "drop": "Packets that were dropped because no entry could be created or inserted.",
    "early_drop": "Entries that were removed to make room in a full table.",
    "error": "ICMP packets with an error.",
    "search_restart": "Lookups that were restarted because the hash table was resized.",
    "clash_resolve": "Races between packets of one connection that were resolved.",
    "chain_toolong": "Entries that were refused because their hash chain was too long.",
}
EXPECTATION_STATISTICS = {
    "create": ("created", "Expectations that were created."),
    "new": ("fulfilled", "Connections that fulfilled an expectation."),
    "delete": ("deleted", "Expectations that ended."),
}
#: Settings that are on or off.
SWITCHES = {
    "accounting": "Whether entries have counters.",
    "timestamps": "Whether entries have timestamps.",
    "checksum": "Whether packets with a wrong checksum are invalid.",
    "tcp_loose": "Whether the kernel tracks TCP connections from the middle.",
    "tcp_be_liberal": "Whether TCP packets out of the window are valid.",
}
#: The measures of a group, and their descriptions.
MEASURES = {"flows": ("entries", "entries"), "bytes": ("bytes", "bytes"), "packets": ("packets", "packets")}
#: The keys that identify a row of the SNAT ports.
SNAT = ("address", "destination", "destination_port", "protocol", "zone")

#: The metrics in the order in which they are written: name without prefix, type, description.
METRICS: dict[str, tuple[str, str]] = {
    "gathered_timestamp_seconds": (GAUGE, "Time at which the facts were gathered."),
    "entries": (GAUGE, "Entries in the table."),
    "entries_limit": (GAUGE, "Maximum number of entries in the table."),
    "matched_entries": (GAUGE, "Entries that match the options match and except."),
    "family_entries": (GAUGE, "Matching entries by address family."),
    "protocol_entries": (GAUGE, "Matching entries by protocol."),
    "state_entries": (GAUGE, "Matching entries by protocol and state."),
    "zone_entries": (GAUGE, "Matching entries by zone."),
    "mark_entries": (GAUGE, "Matching entries by mark."),
    "nat_entries": (GAUGE, "Matching entries with source NAT, with destination NAT, and without NAT."),
    "status_entries": (GAUGE, "Matching entries by status bit."),
    **{f"{name}_total": (COUNTER, about) for name, about in STATISTICS.items()},
    **{f"expectations_{name}_total": (COUNTER, about) for name, about in EXPECTATION_STATISTICS.values()},
    "hash_buckets": (GAUGE, "Size of the hash table."),
    **{f"{name}_enabled": (GAUGE, about) for name, about in SWITCHES.items()},
    "timeout_seconds": (GAUGE, "Timeouts of entries by protocol and state."),
    "expectations": (GAUGE, "Expectations."),
    "expectations_limit": (GAUGE, "Maximum number of expectations."),
    "helper_expectations": (GAUGE, "Expectations by helper."),
    "verdict_entries": (GAUGE, "Matching entries by their verdict under the current rules."),
    "snat_ports": (GAUGE, "Ports that source NAT uses, by translated address and destination."),
    "snat_ports_limit": (GAUGE, "Ports that source NAT can use, by translated address and destination."),
    "snat_source_ports": (GAUGE, "Ports that source NAT uses, by client."),
    **{f"group_{unit}": (GAUGE, f"Number of {what} by group.") for unit, what in MEASURES.values()},
    **{f"group_other_{unit}": (GAUGE, f"Number of {what} of all other groups.") for unit, what in MEASURES.values()},
    **{
        f"group_uncertainty_{unit}": (GAUGE, f"Maximum by which the number of {what} of a group is too low.")
        for unit, what in MEASURES.values()
    },
}
#: The labels of the metrics, besides the keys of groups.
LABELS = (
    *("cpu", "family", "protocol", "state", "zone", "mark", "nat", "status", "timeout", "helper", "verdict"),
    *("address", "destination", "destination_port", "source", "by"),
)
#: The keys of facts that become metrics.
FACTS = ("count", "matched", "statistics", "settings", "expectations", "stale", "snat_ports", "groups")

_LABEL_NAME = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
#: A label has no line break, see `_label`.
_ESCAPES = {"\\": r"\\", '"': r"\""}


class BadInput(Exception):
    """The arguments of the filter have an error."""


def render(facts: Any, labels: Any = None, gathered: Any = None, form: Any = "prometheus") -> str:
    """The metrics of the facts of one host, as text. Raises `BadInput`.

    :param labels: Labels for all metrics.
    :param gathered: The time at which the facts were gathered, in ISO 8601.
    """
    if form not in FORMATS:
        raise BadInput(f"form: {quoted(form)} is not a format; write one of {', '.join(FORMATS)}")
    if not isinstance(facts, Mapping) or not any(key in facts for key in FACTS):
        raise BadInput("the input is not facts of connection tracking; pass ansible_facts.conntrack of one host")
    metrics = _Metrics(_common_labels(labels, facts))
    if gathered is not None:
        metrics.add("gathered_timestamp_seconds", _timestamp(gathered))
    _table(metrics, facts)
    _statistics(metrics, mapping(facts, "statistics"))
    _settings(metrics, mapping(facts, "settings"))
    _expectations(metrics, mapping(facts, "expectations"))
    metrics.add_map("verdict_entries", "verdict", mapping(facts, "stale", "verdicts"))
    _snat_ports(metrics, facts.get("snat_ports"))
    _groups(metrics, facts.get("groups"))
    return "".join(metrics.lines(form == "openmetrics"))


class _Metrics:
    """Samples by metric."""

    def __init__(self, common: dict[str, str]) -> None:
        self._common = common
        self._samples: dict[str, dict[Labels, int | float]] = {}

    def add(self, name: str, value: Any, **labels: Any) -> None:
        """Add a sample if the value is a number. Values with the same labels are added up."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= LARGEST:
            return
        own = {key: _label(label) for key, label in labels.items() if label is not None}
        key = tuple(sorted({**self._common, **own}.items()))
        samples = self._samples.setdefault(name, {})
        samples[key] = samples.get(key, 0) + value

    def add_map(self, name: str, label: str, values: Mapping[Any, Any], **labels: Any) -> None:
        """Add a sample for each item of a map."""
        for key, value in values.items():
            self.add(name, value, **labels, **{label: key})

    def lines(self, openmetrics: bool) -> Iterator[str]:
        """The lines of all metrics that have samples."""
        for name, (kind, about) in METRICS.items():
            if name not in self._samples:
                continue
            full = PREFIX + name
            described = full.removesuffix("_total") if openmetrics else full
            yield f"# HELP {described} {about}\n"
            yield f"# TYPE {described} {kind}\n"
            if openmetrics and name.endswith(UNITS):
                yield f"# UNIT {described} {name.rpartition('_')[2]}\n"
            for labels, value in self._samples[name].items():
                shown = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels)
                yield f"{full}{{{shown}}} {value}\n" if shown else f"{full} {value}\n"
        if openmetrics:
            yield "# EOF\n"


def _table(metrics: _Metrics, facts: Mapping[Any, Any]) -> None:
    metrics.add("entries", facts.get("count"))
    metrics.add("entries_limit", facts.get("max"))
    metrics.add("matched_entries", facts.get("matched"))
    for label in ("family", "protocol", "zone", "mark"):
        metrics.add_map(f"{label}_entries", label, mapping(facts, f"by_{label}"))
    for protocol, states in mapping(facts, "by_state").items():
        metrics.add_map("state_entries", "state", mapping(states), protocol=protocol)
    for label in ("nat", "status"):
        metrics.add_map(f"{label}_entries", label, mapping(facts, label))


def _statistics(metrics: _Metrics, facts: Mapping[Any, Any]) -> None:
    for cpu, counters in mapping(facts, "per_cpu").items():
        for name in STATISTICS:
            metrics.add(f"{name}_total", mapping(counters).get(name), cpu=cpu)
    for cpu, counters in mapping(facts, "expectations", "per_cpu").items():
        for key, (name, _about) in EXPECTATION_STATISTICS.items():
            metrics.add(f"expectations_{name}_total", mapping(counters).get(key), cpu=cpu)


def _settings(metrics: _Metrics, facts: Mapping[Any, Any]) -> None:
    metrics.add("hash_buckets", facts.get("buckets"))
    for name in SWITCHES:
        metrics.add(f"{name}_enabled", facts.get(name))
    metrics.add_map("timeout_seconds", "timeout", mapping(facts, "timeouts"))


def _expectations(metrics: _Metrics, facts: Mapping[Any, Any]) -> None:
    metrics.add("expectations", facts.get("count"))
    metrics.add("expectations_limit", facts.get("max"))
    metrics.add_map("helper_expectations", "helper", mapping(facts, "by_helper"))


def _snat_ports(metrics: _Metrics, facts: Any) -> None:
    for row in rows(facts, ROWS):
        named = {key: row.get(key) for key in SNAT}
        metrics.add("snat_ports", row.get("used"), **named)
        metrics.add("snat_ports_limit", row.get("limit"), **named)
        for source in rows(row.get("sources"), ROWS):
            metrics.add("snat_source_ports", source.get("ports"), source=source.get("address"), **named)


def _groups(metrics: _Metrics, facts: Any) -> None:
    seen: Counter[str] = Counter()
    for grouping in rows(facts, ROWS):
        keys = _keys(grouping)
        by = ",".join(keys)
        seen[by] += 1
        if seen[by] > 1:  # samples of two groupings must not have the same labels
            by = f"{by}#{seen[by]}"
        for measure, (unit, _what) in MEASURES.items():
            for group in rows(grouping.get("groups"), ROWS):
                metrics.add(
                    f"group_{unit}", group.get(measure), by=by, **{key: group.get(key) for key in keys.values()}
                )
            for place in ("other", "uncertainty"):
                metrics.add(f"group_{place}_{unit}", mapping(grouping, place).get(measure), by=by)


def _keys(grouping: Mapping[Any, Any]) -> dict[str, str]:
    """The keys of a grouping as they were written, such as `source/24`, with their names."""
    written = grouping.get("by")
    found = {key: key.partition("/")[0] for key in written if isinstance(key, str)} if isinstance(written, list) else {}
    return {key: name for key, name in found.items() if _LABEL_NAME.fullmatch(name) and name != "by"}


def _common_labels(labels: Any, facts: Mapping[Any, Any]) -> dict[str, str]:
    """The labels for all metrics, checked. Raises `BadInput`."""
    if labels is None:
        return {}
    if not isinstance(labels, Mapping):
        raise BadInput(f"labels: {quoted(labels)} is not a dictionary; write for example {{site: fra}}")
    taken = {*LABELS, *(name for grouping in rows(facts.get("groups"), ROWS) for name in _keys(grouping).values())}
    for name, value in labels.items():
        if not isinstance(name, str) or not _LABEL_NAME.fullmatch(name):
            raise BadInput(
                f"labels: {quoted(name)} is not the name of a label; use letters, digits and underscores, "
                "with a letter first"
            )
        if name in taken:
            raise BadInput(f"labels.{name}: the metrics have a label with this name; use another name")
        if not isinstance(value, (str, int, float)):
            raise BadInput(f"labels.{name}: {quoted(value)} is not text; write the value in quotes")
    return {name: _label(value) for name, value in labels.items()}


def _timestamp(gathered: Any) -> int | float:
    """Seconds since 1970. Raises `BadInput`."""
    try:
        moment = datetime.fromisoformat(gathered)
        if moment.tzinfo is None:
            raise ValueError
    except (TypeError, ValueError):
        raise BadInput(
            f"gathered: {quoted(gathered)} is not a time with its time zone; write for example 2026-03-14T09:26:53Z"
        ) from None
    seconds = moment.timestamp()
    return int(seconds) if seconds == int(seconds) else seconds


def _label(value: Any) -> str:
    """The value of a label: a single line of valid text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return text(",".join(map(_label, value)), LABEL)
    return text(str(value), LABEL)


def _escaped(label: str) -> str:
    return "".join(_ESCAPES.get(character, character) for character in label)
