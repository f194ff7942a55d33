# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics are valid for the parsers of prometheus_client in both formats, whatever a host sent."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import parser as prometheus
from prometheus_client.openmetrics import parser as openmetrics

from ansible_collections.netops.conntrack.plugins.module_utils.client import statistics
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump import group_keys
from ansible_collections.netops.conntrack.plugins.plugin_utils import _openmetrics
from ansible_collections.netops.conntrack.plugins.plugin_utils._openmetrics import BadInput, render
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.support import fleets

PARSERS = {
    "prometheus": prometheus.text_string_to_metric_families,
    "openmetrics": openmetrics.text_string_to_metric_families,
}
SNAT = {"address": "198.51.100.1", "destination": "203.0.113.9", "destination_port": 443, "protocol": "tcp", "zone": 0}
FACTS: dict[str, Any] = {
    **fleets.facts(random.Random(7)),
    "statistics": {
        "total": {"drop": 3, "invalid": 9},
        "per_cpu": {"0": {"drop": 1, "invalid": 4}, "1": {"drop": 2, "invalid": 5}},
        "expectations": {"total": {"new": 4}, "per_cpu": {"0": {"new": 4, "create": 5, "delete": 5}}},
    },
    "expectations": {"count": 1, "max": 4096, "by_helper": {"ftp": 1}},
    "stale": fleets.stale(random.Random(7), 100),
    "snat_ports": [
        {
            **SNAT,
            "used": 60100,
            "limit": 64512,
            "usage_percent": 93.16,
            "sources": [{"address": "10.0.0.5", "ports": 41000}],
        }
    ],
    "groups": [
        {
            "by": ["source/24", "state"],
            "groups": [
                {"source": "10.1.0.0/24", "state": "established", "flows": 12, "bytes": 3, "packets": 1},
                {"source": "10.2.0.0/24", "state": None, "flows": 2, "bytes": 0, "packets": 0},
            ],
            "other": {"flows": 3, "bytes": 40, "packets": 2},
            "uncertainty": {"flows": 1.5},
        },
        {"by": ["labels", "expected"], "groups": [{"labels": ["voice", 5], "expected": False, "flows": 4}]},
    ],
}
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(written: str, form: str = "prometheus") -> Samples:
    """Return the samples by name and labels, as the parser of the format reads them."""
    found = [sample for family in PARSERS[form](written) for sample in family.samples]
    by_labels = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in found}
    assert len(by_labels) == len(found)
    return by_labels


def sample(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"conntrack_{name}", frozenset(labels.items())


@pytest.mark.parametrize("form", PARSERS)
def test_all_facts_are_written(form: str) -> None:
    written = render(FACTS, gathered="2026-03-14T09:26:53Z", form=form)
    found = samples(written, form)
    snat = {key: str(value) for key, value in SNAT.items()}
    for key, value in {
        sample("gathered_timestamp_seconds"): 1773480413,
        sample("entries"): FACTS["count"],
        sample("entries_limit"): FACTS["max"],
        sample("matched_entries"): FACTS["matched"],
        sample("family_entries", family="ipv6"): FACTS["by_family"]["ipv6"],
        sample("protocol_entries", protocol="udp"): FACTS["by_protocol"]["udp"],
        sample("state_entries", protocol="tcp", state="time_wait"): FACTS["by_state"]["tcp"]["time_wait"],
        sample("zone_entries", zone="0"): FACTS["by_zone"]["0"],
        sample("mark_entries", mark="0"): FACTS["by_mark"]["0"],
        sample("nat_entries", nat="source"): FACTS["nat"]["source"],
        sample("status_entries", status="assured"): FACTS["status"]["assured"],
        sample("drop_total", cpu="1"): 2,
        sample("expectations_created_total", cpu="0"): 5,
        sample("expectations_fulfilled_total", cpu="0"): 4,
        sample("hash_buckets"): FACTS["settings"]["buckets"],
        sample("tcp_loose_enabled"): 1,
        sample("timeout_seconds", timeout="tcp_established"): 432000,
        sample("expectations"): 1,
        sample("expectations_limit"): 4096,
        sample("helper_expectations", helper="ftp"): 1,
        sample("verdict_entries", verdict="refused"): FACTS["stale"]["verdicts"]["refused"],
        sample("snat_ports", **snat): 60100,
        sample("snat_ports_limit", **snat): 64512,
        sample("snat_source_ports", **snat, source="10.0.0.5"): 41000,
        sample("group_entries", by="source/24,state", source="10.1.0.0/24", state="established"): 12,
        sample("group_bytes", by="source/24,state", source="10.2.0.0/24"): 0,
        sample("group_other_packets", by="source/24,state"): 2,
        sample("group_uncertainty_entries", by="source/24,state"): 1.5,
        sample("group_entries", by="labels,expected", labels="voice,5", expected="false"): 4,
    }.items():
        assert found[key] == value, key
    types = {family.name: family.type for family in PARSERS[form](written)}
    assert types["conntrack_drop"] == "counter"
    assert types["conntrack_snat_ports"] == "gauge"
    assert "unknown" not in types.values()


def test_both_formats_have_the_same_samples() -> None:
    texts = [render(FACTS, {"site": "fra"}, "2026-03-14T09:26:53Z", form) for form in PARSERS]
    assert samples(texts[0], "prometheus") == samples(texts[1], "openmetrics")
    assert texts[1].endswith("\n# EOF\n")
    assert "# UNIT conntrack_timeout_seconds seconds\n" in texts[1]
    assert re.findall(r"# UNIT|# EOF", texts[0]) == []


def test_only_gathered_facts_are_written() -> None:
    assert render({"count": 5, "max": 10, "usage_percent": 50.0}) == (
        "# HELP conntrack_entries Entries in the table.\n"
        "# TYPE conntrack_entries gauge\n"
        "conntrack_entries 5\n"
        "# HELP conntrack_entries_limit Maximum number of entries in the table.\n"
        "# TYPE conntrack_entries_limit gauge\n"
        "conntrack_entries_limit 10\n"
    )


def test_names_do_not_conflict_with_node_exporter() -> None:
    names = re.findall(r"^# TYPE (\S+)", render(FACTS), re.MULTILINE)
    assert len(names) > 30
    assert [name for name in names if not re.fullmatch(r"conntrack_[a-z0-9_]+", name)] == []


def test_each_counter_of_the_kernel_is_a_metric() -> None:
    assert {row.key for row in statistics.PER_CPU} == set(_openmetrics.STATISTICS)
    assert {row.key for row in statistics.EXPECTATIONS_PER_CPU} == set(_openmetrics.EXPECTATION_STATISTICS)


def test_labels_are_on_every_sample_and_are_escaped() -> None:
    odd = 'a "b"\\n\\\\ {c="d"} é'
    facts = {**FACTS, "expectations": {"count": 1, "by_helper": {odd: 2, "a\nb": 3}}}
    for form in PARSERS:
        found = samples(render(facts, {"site": odd, "rack": 7}, form=form), form)
        assert {dict(labels)["site"] for _name, labels in found} == {odd}
        assert found[sample("helper_expectations", helper=odd, site=odd, rack="7")] == 2
        assert found[sample("helper_expectations", helper="a b", site=odd, rack="7")] == 3


# Values of another type are left out, as the report does
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=12,
)


@examples(100)
@given(st.data(), VALUES, st.text())
def test_metrics_are_valid_for_any_facts(data: st.DataObject, value: Any, name: str) -> None:
    """Any part of the facts is replaced by another value, or is a key with another name."""
    facts = json.loads(json.dumps(FACTS))
    place = facts
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], (dict, list)) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    if isinstance(place, dict) and place is not facts and data.draw(st.booleans()):
        place[name] = place.pop(key)
    else:
        place[key] = value
    for form in PARSERS:
        written = render(facts, {"site": "fra"}, form=form)
        assert samples(written, form)
        assert "\0" not in written
        written.encode()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None,), "the input is not facts of connection tracking; pass ansible_facts.conntrack of one host"),
        (({"conntrack": FACTS},), "the input is not facts of connection tracking"),
        ((FACTS, "fra"), "labels: 'fra' is not a dictionary; write for example {site: fra}"),
        ((FACTS, {"data-centre": "fra"}), "labels: 'data-centre' is not the name of a label; use letters, digits"),
        ((FACTS, {"__name__": "x"}), "labels: '__name__' is not the name of a label"),
        ((FACTS, {"cpu": "x"}), "labels.cpu: the metrics have a label with this name; use another name"),
        ((FACTS, {"labels": "x"}), "labels.labels: the metrics have a label with this name"),
        ((FACTS, {"site": None}), "labels.site: None is not text; write the value in quotes"),
        ((FACTS, None, "2026-03-14T09:26:53"), "gathered: '2026-03-14T09:26:53' is not a time with its time zone"),
        ((FACTS, None, 3), "gathered: 3 is not a time"),
        ((FACTS, None, None, "xml"), "form: 'xml' is not a format; write one of prometheus, openmetrics"),
    ],
)
def test_errors_name_the_argument(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        render(*arguments)


@pytest.mark.parametrize("value", [None, True, "5", [5], -1, 2**64, float("nan"), float("inf")])
def test_invalid_count_is_left_out(value: Any) -> None:
    assert "conntrack_entries" not in render({"count": value})


def test_values_with_equal_labels_are_added_up() -> None:
    """Prometheus refuses a file that has the same labels twice."""
    found = samples(render({"count": 9, "by_protocol": {"a\x01": 4, "a\x02": 5}}))
    assert found[sample("protocol_entries", protocol="a\ufffd")] == 9


def test_groupings_with_equal_keys_are_separate() -> None:
    groupings = [{"by": ["source"], "groups": [{"source": "10.0.0.0/8", "flows": flows}]} for flows in (4, 9)]
    found = samples(render({"count": 1, "groups": groupings}))
    assert found[sample("group_entries", by="source", source="10.0.0.0/8")] == 4
    assert found[sample("group_entries", by="source#2", source="10.0.0.0/8")] == 9


def test_every_label_of_the_metrics_is_reserved() -> None:
    """Otherwise, a label of the user could replace it."""
    written = samples(render({key: value for key, value in FACTS.items() if key != "groups"}))
    assert {name for _metric, labels in written for name, _value in labels} <= set(_openmetrics.LABELS)


def test_every_key_of_a_grouping_is_the_name_of_a_label() -> None:
    for key in group_keys._simple_keys(group_keys.NO_LABELS):
        (parsed,) = group_keys.parse_group_by([key], "keys")
        facts = {"count": 1, "groups": [{"by": [key], "groups": [{parsed.name: "x", "flows": 1}]}]}
        assert samples(render(facts))[sample("group_entries", by=key, **{key: "x"})] == 1
