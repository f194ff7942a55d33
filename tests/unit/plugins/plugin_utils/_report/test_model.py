# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A report lists the hosts that require attention with the reason, sums over all hosts, and exceeded thresholds."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.reevaluate import judgement
from ansible_collections.netops.conntrack.plugins.plugin_utils._report import metrics, thresholds
from ansible_collections.netops.conntrack.plugins.plugin_utils._report.model import report
from ansible_collections.netops.conntrack.tests.unit.support import fleets

Document = dict[str, Any]


def gathered(**changes: Any) -> Document:
    """Return the result of a healthy host, with other facts if given."""
    facts = {**fleets.facts(random.Random(1), usage=20), **changes}
    return {"ansible_facts": {"conntrack": facts}, "changed": False}


def reasons(result: Any, **limits: float) -> list[tuple[str, str]]:
    host = report({"gw": result}, thresholds.parse(limits))["hosts"][0]
    return [(reason["level"], reason["text"].replace("\u202f", " ")) for reason in host["reasons"]]


def statistics(**counters: int) -> Document:
    return {"total": {**dict.fromkeys(("drop", "early_drop", "insert_failed", "chain_toolong"), 0), **counters}}


HEALTHY = gathered(statistics=statistics())


def test_healthy_host_has_no_reasons() -> None:
    assert reasons(HEALTHY) == []
    assert report({"gw": HEALTHY}, {})["hosts"][0]["level"] == "quiet"


@pytest.mark.parametrize(
    ("count", "level", "room"),
    [(74, None, None), (75, "warning", 25), (89, "warning", 11), (90, "critical", 10), (103, "critical", 0)],
)
def test_nearly_full_table_is_reported(count: int, level: str | None, room: int) -> None:
    found = reasons(gathered(count=count, max=100, matched=0, statistics=statistics()))
    assert found == ([(level, f"The table is {count}.0 % full, with room for {room} more.")] if level else [])


@pytest.mark.parametrize(
    ("counter", "count", "level", "expected_text"),
    [
        ("drop", 1, "warning", "1 packet dropped"),
        ("early_drop", 1200, "warning", "1,200 entries removed early"),
        ("chain_toolong", 2, "warning", "2 entries refused"),
        ("insert_failed", 3, "notice", "3 entries not inserted"),
    ],
)
def test_losses_of_the_kernel_are_reported(counter: str, count: int, level: str, expected_text: str) -> None:
    ((found, sentence),) = reasons(gathered(statistics=statistics(**{counter: count})))
    assert found == level
    assert sentence.startswith(expected_text)


def test_few_answers_and_many_expectations_are_reported() -> None:
    silent = gathered(statistics=statistics(), matched=1000, status={"seen_reply": 400, "confirmed": 1000})
    assert reasons(silent) == [("notice", "60.0 % of the entries never got an answer.")]
    few = gathered(statistics=statistics(), matched=999, status={"confirmed": 999})
    assert reasons(few) == []
    expecting = gathered(statistics=statistics(), expectations={"count": 95, "max": 100})
    assert reasons(expecting) == [("warning", "The table of expectations is 95.0 % full.")]


@pytest.mark.parametrize(
    ("result", "expected_text"),
    [
        ({"unreachable": True, "msg": "no route\nto host"}, "It could not be reached: no route to host"),
        ({"unreachable": True}, "It could not be reached."),
        ({"failed": True, "msg": "This needs CAP_NET_ADMIN"}, "No facts were gathered: This needs CAP_NET_ADMIN"),
        ({"skipped": True}, "No facts were gathered: Its result contains no facts of connection tracking."),
        ({"ansible_facts": {"conntrack": {"count": "many"}}}, "No facts were gathered: Its result contains no facts"),
        (None, "No facts were gathered: Its result contains no facts"),
    ],
)
def test_host_without_facts_is_reported_with_the_reason(result: Any, expected_text: str) -> None:
    ((level, sentence),) = reasons(result)
    assert level == "critical"
    assert sentence.startswith(expected_text)


def test_hosts_are_sorted_by_urgency_and_usage() -> None:
    document = report(
        {
            "well": HEALTHY,
            "gone": {"unreachable": True},
            "fuller": gathered(count=95, max=100, statistics=statistics()),
            "full": gathered(count=91, max=100, statistics=statistics()),
            "filling": gathered(count=80, max=100, statistics=statistics()),
            "busy": gathered(count=30, max=100, statistics=statistics()),
        },
        {},
    )
    assert [host["name"] for host in document["hosts"]] == ["fuller", "full", "gone", "filling", "busy", "well"]
    assert document["fleet"]["by_level"] == {"critical": 3, "warning": 1, "notice": 0, "quiet": 2}
    assert (document["fleet"]["hosts"], document["fleet"]["without_facts"]) == (6, 1)


def test_sums_include_all_hosts() -> None:
    few = gathered(count=10, max=100, by_protocol={"tcp": 8, "udp": 2}, statistics=statistics(drop=3))
    many = gathered(count=30, max=100, by_protocol={"tcp": 29, "gre": 1}, statistics=statistics(drop=4))
    older = gathered(count=20, max=0, by_protocol={}, statistics={})
    del older["ansible_facts"]["conntrack"]["usage_percent"]
    fleet = report({"a": few, "b": many, "c": older}, {})["fleet"]
    assert fleet["count"] == 60
    assert fleet["by_protocol"] == {"tcp": 37, "udp": 2, "gre": 1}
    assert fleet["statistics"]["drop"] == {
        "total": 7,
        "known": 2,
        "nonzero": 2,
        "highest": {"host": "b", "value": 4},
    }
    assert fleet["usage_percent"] == {
        "known": 2,
        "median": 20.0,
        "highest": {"host": "b", "value": 30.0},
        "hosts_by_tenth": [0, 1, 0, 1, 0, 0, 0, 0, 0, 0],
    }


@pytest.mark.parametrize(
    ("count", "most", "percent"),
    [
        (0, 2_200_000, 0),
        (7, 2_200_000, 100 * 7 / 2_200_000),
        (300, 2_200_000, 0.01),
        (262_143, 262_144, 100 * 262_143 / 262_144),
        (262_144, 262_144, 100),
        (262_150, 262_144, 100 * 262_150 / 262_144),
    ],
)
def test_a_share_is_not_rounded_to_0_or_100_percent(count: int, most: int, percent: float) -> None:
    used = [
        {"address": "a", "destination": "b", "destination_port": 1, "protocol": "tcp", "used": count, "limit": most}
    ]
    document = report({"gw": gathered(count=count, max=most, snat_ports=used)}, {})
    assert document["fleet"]["usage_percent"]["highest"] == {"host": "gw", "value": percent}
    assert document["fleet"]["usage_percent"]["median"] == percent
    assert document["hosts"][0]["figures"]["snat_ports_percent"] == percent


def test_rankings_of_hosts_are_merged() -> None:
    def having(*rows: tuple[str, int, int | None]) -> Document:
        listed = [
            {"address": address, "flows": flows, **({} if moved is None else {"bytes": moved})}
            for address, flows, moved in rows
        ]
        return gathered(top={"sources": {"by_flows": listed, "by_bytes": listed}})

    fleet = report({"a": having(("10.0.0.1", 5, 1), ("10.0.0.2", 4, 90)), "b": having(("10.0.0.2", 3, None))}, {})[
        "fleet"
    ]
    assert fleet["top"]["sources"] == {
        "by_flows": [
            {"address": "10.0.0.2", "flows": 7, "hosts": 2, "bytes": 90},
            {"address": "10.0.0.1", "flows": 5, "hosts": 1, "bytes": 1},
        ],
        "by_bytes": [
            {"address": "10.0.0.2", "flows": 7, "hosts": 2, "bytes": 90},
            {"address": "10.0.0.1", "flows": 5, "hosts": 1, "bytes": 1},
        ],
    }


def test_rows_with_equal_numbers_are_sorted_by_address_and_port() -> None:
    addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.10", "203.0.113.1", "2001:db8::2", "2001:db8::10"]
    ports = ["22", "80", "443", "8080"]
    pairs = [("192.0.2.2", "203.0.113.10"), ("192.0.2.10", "203.0.113.2"), ("192.0.2.10", "203.0.113.10")]

    def ranked(*rows: Document) -> Document:
        return {"by_flows": [{**row, "flows": 5} for row in reversed(rows)]}

    top = {
        "sources": ranked(*({"address": address} for address in addresses)),
        "services": ranked(*({"protocol": "tcp", "port": port} for port in ports)),
        "pairs": ranked(*({"source": source, "destination": destination} for source, destination in pairs)),
    }
    zones = {"10": 5, "9": 5, "8": 6}
    used = [row for address in reversed(addresses) for row in used_ports(5, destination=address)]
    document = report({"gw": gathered(top=top, by_zone=zones, snat_ports=used)}, {})
    rankings = {name: found.get("by_flows", []) for name, found in document["fleet"]["top"].items()}
    assert [row["address"] for row in rankings["sources"]] == addresses
    assert [row["port"] for row in rankings["services"]] == ports
    assert [(row["source"], row["destination"]) for row in rankings["pairs"]] == pairs
    assert list(document["fleet"]["by_zone"]) == ["8", "9", "10"]
    assert [row["destination"] for row in document["fleet"]["snat_ports"]] == addresses


def test_most_frequent_settings_and_number_of_other_hosts() -> None:
    hosts = {
        name: gathered(settings={"accounting": on, "timeouts": {"udp": 30}})
        for name, on in zip("abc", (1, 0, 1), strict=True)
    }
    assert report(hosts, {})["fleet"]["settings"] == {
        "accounting": {"value": 1, "hosts": 2, "others": 1},
        "timeouts.udp": {"value": 30, "hosts": 3, "others": 0},
    }


# thresholds


def exceeded(results: Document, **limits: float) -> list[tuple[Any, ...]]:
    found = report(results, thresholds.parse(limits))["exceeded"]
    return [(one["host"], one["threshold"], one["limit"], one["value"]) for one in found]


def test_threshold_is_exceeded_only_above_it() -> None:
    host = {"gw": gathered(count=80, max=100, statistics=statistics(drop=5))}
    assert exceeded(host, usage_percent_above=80, drop_above=5, count_above=80) == []
    assert exceeded(host, usage_percent_above=79.9, drop_above=4, insert_failed_above=0) == [
        ("gw", "usage_percent_above", 79.9, 80.0),
        ("gw", "drop_above", 4, 5),
    ]


def test_threshold_makes_a_host_critical_in_one_sentence() -> None:
    host = gathered(count=80, max=100, statistics=statistics(), matched=0)
    assert reasons(host, usage_percent_above=70) == [
        ("critical", "The table is 80.0 % full, with room for 20 more. The threshold is 70.0 %.")
    ]
    assert reasons(host, count_above=7) == [
        ("critical", "count is 80. The threshold is 7."),
        ("warning", "The table is 80.0 % full, with room for 20 more."),
    ]


def test_hosts_without_facts_exceed_a_threshold() -> None:
    hosts = {"gone": {"unreachable": True}, "broken": {"failed": True}, "well": HEALTHY}
    assert exceeded(hosts) == []
    assert exceeded(hosts, usage_percent_above=99) == [(None, "hosts_without_facts_above", 0, 2)]
    assert exceeded(hosts, usage_percent_above=99, hosts_without_facts_above=2) == []
    assert exceeded(hosts, hosts_without_facts_above=1) == [(None, "hosts_without_facts_above", 1, 2)]


def test_missing_counter_does_not_exceed_a_threshold() -> None:
    assert exceeded({"old": gathered(statistics={"total": {"drop": 0}})}, chain_toolong_above=0) == []


@pytest.mark.parametrize("limit", [float("nan"), float("inf"), -1.0])
def test_invalid_threshold_is_refused(limit: float) -> None:
    with pytest.raises(thresholds.BadThreshold, match=r"fail_when\.drop_above: .* is not a threshold; write 0"):
        thresholds.parse({"drop_above": limit})


# SNAT ports


def used_ports(*used: Any, **changes: Any) -> list[Document]:
    """Return the fact `snat_ports` with these numbers of used ports of 1,000 each."""
    row = {"address": "198.51.100.1", "destination": "203.0.113.9", "destination_port": 443, "protocol": "tcp"}
    return [{**row, "used": number, "limit": 1000, "sources": [], **changes} for number in used]


@pytest.mark.parametrize(
    ("used", "level", "percent"),
    [(749, None, ""), (750, "warning", "75.0 %"), (899, "warning", "89.9 %"), (900, "critical", "90.0 %")],
)
def test_urgency_of_the_use_of_snat_ports(used: int, level: str | None, percent: str) -> None:
    found = reasons(gathered(statistics=statistics(), snat_ports=used_ports(10, used)))
    expected_text_of_use = f"198.51.100.1 uses {percent} of its 1,000 ports for tcp to 203.0.113.9 port 443."
    assert found == ([(level, expected_text_of_use)] if level else [])


def test_a_threshold_of_snat_ports() -> None:
    result = gathered(statistics=statistics(), snat_ports=used_ports(800))
    ((level, sentence),) = reasons(result, snat_ports_percent_above=79.5)
    assert level == "critical"
    assert sentence.endswith("for tcp to 203.0.113.9 port 443. The threshold is 79.5 %.")
    assert exceeded({"gw": result}, snat_ports_percent_above=80) == []
    assert exceeded({"gw": gathered(snat_ports=[])}, snat_ports_percent_above=0) == []
    assert exceeded({"gw": HEALTHY}, snat_ports_percent_above=0) == []


def test_snat_ports_from_a_host_are_checked() -> None:
    rows = [*used_ports(5), *used_ports(5, limit=0), *used_ports(5, address=None), *used_ports("5"), "?"]
    document = report({"a": gathered(snat_ports=rows), "b": gathered(snat_ports="full"), "c": HEALTHY}, {})
    figures = {host["name"]: host["figures"]["snat_ports"] for host in document["hosts"]}
    assert [row["used"] for row in figures["a"]] == [5]
    assert (figures["b"], figures["c"]) == (None, None)
    assert [(row["host"], row["used"]) for row in document["fleet"]["snat_ports"]] == [("a", 5)]


# stale flows

VERDICTS = dict.fromkeys(("unchanged", "nat_changed", "refused", "untracked", "uncertain"), 0)


def judged(*rules: Document, **verdicts: int) -> Document:
    """Return the result of a host that has judged its flows, and has gathered only `min` besides."""
    facts = {"count": 20, "max": 100, "stale": {"verdicts": {**VERDICTS, **verdicts}, "rules": list(rules)}}
    return {"ansible_facts": {"conntrack": facts}}


def decided(entries: int, handle: int = 3, comment: str | None = None, **more: Any) -> Document:
    rule = {"family": "inet", "table": "filter", "chain": "forward", "handle": handle, "comment": comment}
    return {"verdict": "refused", "rule": rule, "reason": None, "entries": entries, **more}


def test_verdicts_are_those_of_the_module() -> None:
    assert sorted(metrics.VERDICTS) == sorted(judgement.VERDICTS)
    assert sorted(metrics.STALE) == sorted(judgement.STALE)


@pytest.mark.parametrize(
    ("verdicts", "found"),
    [
        ({"unchanged": 9}, []),
        ({}, [("notice", "No flow was judged, because none matches.")]),
        (
            {"unchanged": 999, "refused": 1},
            [("notice", "1 of 1,000 flows would be treated differently (0.1 %): 1 refused.")],
        ),
        (
            {"unchanged": 97, "refused": 1, "nat_changed": 2},
            [("warning", "3 of 100 flows would be treated differently (3.0 %): 1 refused, 2 NAT changed.")],
        ),
        (
            {"unchanged": 1, "untracked": 99},
            [("warning", "99 of 100 flows would be treated differently (99.0 %): 99 untracked.")],
        ),
        (
            {"unchanged": 100, "refused": 100},
            [("critical", "100 of 200 flows would be treated differently (50.0 %): 100 refused.")],
        ),
        ({"unchanged": 1, "uncertain": 1}, [("notice", "1 of 2 flows is uncertain.")]),
    ],
)
def test_urgency_of_stale_flows(verdicts: dict[str, int], found: list[tuple[str, str]]) -> None:
    assert reasons(judged(**verdicts)) == found


def test_stale_flows_of_all_hosts_are_added_up_by_rule() -> None:
    """A rule with a comment is one rule, even if its handle differs between hosts."""
    hosts = {
        "a": judged(decided(7, 3, "blocked"), decided(2, 5), unchanged=1, refused=9),
        "b": judged(decided(1, 4, "blocked"), decided(4, 6), decided(1, verdict="unchanged"), unchanged=5, refused=5),
        "c": judged(unchanged=0),
        "d": HEALTHY,
    }
    document = report(hosts, {})
    stale = document["fleet"]["stale"]
    assert (stale["hosts"], stale["judged"], stale["stale"], stale["refused_percent"]) == (3, 20, 14, 70)
    assert [
        (row["rule"]["comment"], row["rule"]["handle"], row["entries"], row["hosts"]) for row in stale["rules"]
    ] == [
        ("blocked", None, 8, 2),
        (None, 6, 4, 1),
        (None, 5, 2, 1),
    ]
    figures = {host["name"]: host["figures"]["stale"] for host in document["hosts"]}
    assert [row["rule"]["handle"] for row in figures["b"]["rules"]] == [4, 6]
    assert (figures["c"]["judged"], figures["c"]["stale_percent"], figures["d"]) == (0, None, None)
    assert report({"a": hosts["a"], "e": hosts["a"]}, {})["fleet"]["stale"]["rules"][0]["rule"]["handle"] == 3
    assert report({"d": HEALTHY}, {})["fleet"]["stale"] is None


def test_rules_of_one_host_with_the_same_comment_are_separate() -> None:
    """The comment does not show which rule of another host is the same. The handle then identifies a rule."""
    twice = judged(decided(7, 3, "blocked"), decided(2, 5, "blocked"), unchanged=1, refused=9)
    other = judged(decided(1, 4, "blocked"), refused=1)

    def rules(**hosts: Any) -> list[tuple[Any, ...]]:
        rows = report(hosts, {})["fleet"]["stale"]["rules"]
        return [(row["rule"]["handle"], row["entries"], row["hosts"]) for row in rows]

    assert rules(a=twice) == [(3, 7, 1), (5, 2, 1)]
    assert rules(a=twice, b=twice) == [(3, 14, 2), (5, 4, 2)]
    assert rules(a=twice, b=other) == [(3, 7, 1), (5, 2, 1), (4, 1, 1)]
    in_other_chain = decided(2, 5, "blocked")
    in_other_chain["rule"]["chain"] = "input"
    assert rules(a=judged(decided(7, 3, "blocked"), in_other_chain), b=other) == [(None, 8, 2), (5, 2, 1)]
    uncertain = decided(2, 3, "blocked", verdict="uncertain", reason="limit")
    assert rules(a=judged(decided(7, 3, "blocked"), uncertain), b=other) == [(None, 8, 2), (3, 2, 1)]


def test_shares_of_a_host_without_judged_flows_are_unknown() -> None:
    figures = report({"gw": judged()}, {})["hosts"][0]["figures"]
    assert thresholds.value_of("refused_percent_above", figures) is None
    assert thresholds.value_of("refused_above", figures) == 0
    assert exceeded({"gw": judged()}, refused_percent_above=0, refused_above=0) == []


def test_thresholds_for_shares_of_flows() -> None:
    hosts = {"at": judged(unchanged=99, refused=1), "above": judged(unchanged=98989, refused=1011)}
    assert exceeded(hosts, refused_percent_above=1) == [("above", "refused_percent_above", 1, 1.011)]
    assert exceeded(hosts, refused_percent_above=0, nat_changed_percent_above=0, uncertain_percent_above=0) == [
        ("above", "refused_percent_above", 0, 1.011),
        ("at", "refused_percent_above", 0, 1),
    ]
    kinds = {"gw": judged(unchanged=7, nat_changed=1, untracked=1, uncertain=1)}
    assert exceeded(kinds, stale_percent_above=19, stale_above=1, refused_above=0) == [
        ("gw", "stale_percent_above", 19, 20),
        ("gw", "stale_above", 1, 2),
    ]
    one_of_millions = {"gw": judged(unchanged=10**9, refused=1)}
    assert len(exceeded(one_of_millions, refused_percent_above=0)) == 1


def test_host_without_judged_flows_has_no_facts_for_their_thresholds() -> None:
    hosts = {"well": HEALTHY, "judged": judged(unchanged=5)}
    assert exceeded(hosts, usage_percent_above=99) == []
    assert exceeded(hosts, refused_percent_above=1) == [(None, "hosts_without_facts_above", 0, 1)]
    ((level, sentence),) = reasons(HEALTHY, stale_above=5)
    assert (level, sentence) == (
        "critical",
        "No facts were gathered: Its flows were not judged; gather the subset stale.",
    )


def test_a_small_share_is_shown_with_two_digits() -> None:
    shown = [thresholds.shown("refused_percent_above", value) for value in (0, 0.012, 0.999, 1, 49.96)]
    assert [text.replace("\u202f", " ") for text in shown] == ["0 %", "0.012 %", "1.0 %", "1.0 %", "50.0 %"]


@pytest.mark.parametrize(
    ("name", "value", "limit", "texts"),
    [
        ("refused_percent_above", 1.03, 1, ("1.03 %", "1.00 %")),
        ("refused_percent_above", 1.0, 0.999, ("1.000 %", "0.999 %")),
        ("refused_percent_above", 0.0121, 0.012, ("0.0121 %", "0.0120 %")),
        ("refused_percent_above", 99.97, 99.96, ("99.97 %", "99.96 %")),
        ("refused_percent_above", 100 / 2**63, 100 / 2**64, ("1.1e-17 %", "5.4e-18 %")),
        ("usage_percent_above", 1000, 999.96, ("1,000.00 %", "999.96 %")),
        ("usage_percent_above", 1234.5, 1234.4, ("1,234.50 %", "1,234.40 %")),
        ("refused_percent_above", 1.2, 1, ("1.2 %", "1.0 %")),
        ("count_above", 3, 2.5, ("3", "2")),
        ("count_above", 5 * 10**9 + 1, 5 * 10**9 + 0.5, ("5,000,000,001", "5,000,000,000")),
    ],
)
def test_figure_above_its_threshold_is_shown_differently(
    name: str, value: float, limit: float, texts: tuple[str, str]
) -> None:
    value_text, limit_text = thresholds.compared(name, value, limit)
    assert (value_text.replace("\u202f", " "), limit_text.replace("\u202f", " ")) == texts


def test_reason_has_enough_digits_to_distinguish_the_threshold() -> None:
    few = judged(unchanged=9897, refused=103)
    ((_level, first), (_other, second)) = reasons(few, refused_percent_above=1)
    assert first == "refused_percent is 1.03 %. The threshold is 1.00 %."
    assert second.startswith("103 of 10,000 flows would be treated differently (1.0 %)")
    ((_level, sentence),) = reasons(few, stale_percent_above=1)
    assert sentence.endswith("(1.0 %): 103 refused. stale_percent is 1.03 %. The threshold is 1.00 %.")
    ((_level, sentence),) = reasons(judged(unchanged=7, uncertain=3), uncertain_percent_above=1)
    assert sentence == "3 of 10 flows are uncertain. uncertain_percent is 30.0 %. The threshold is 1.0 %."


def test_uncounted_entries_are_unknown() -> None:
    assert report({"a": judged(unchanged=1)}, {})["fleet"]["matched"] is None
    assert report({"a": judged(unchanged=1), "b": HEALTHY}, {})["fleet"]["matched"] > 0


# whole model


def test_the_same_facts_make_the_same_report() -> None:
    results = fleets.results(40, judged=True)
    backwards = dict(reversed(results.items()))
    assert json.dumps(report(results, {})) == json.dumps(report(backwards, {}))
    assert json.dumps(report(json.loads(json.dumps(results)), {})) == json.dumps(report(results, {}))
