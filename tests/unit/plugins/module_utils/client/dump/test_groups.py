# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that groups have the numbers of the entries that a result would show, and that their memory is limited."""

from __future__ import annotations

import ipaddress
import struct
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.codec import ENTRIES
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.layout import LayoutCache
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump import groups as groups_module
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.group_keys import parse_group_by
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.groups import Groups
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.scan import DumpDecoder
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.support import strategies, wire

#: The value of each key in the document of an entry.
IN_DOCUMENTS: dict[str, Any] = {
    "family": lambda document: document["family"],
    "protocol": lambda document: document.get("protocol"),
    "source": lambda document: document.get("original", {}).get("source"),
    "source/24": lambda document: network(document.get("original", {}).get("source"), 24, 64),
    "destination/9/20": lambda document: network(document.get("original", {}).get("destination"), 9, 20),
    "reply_destination": lambda document: document.get("reply", {}).get("destination"),
    "reply_source/33": lambda document: network(document.get("reply", {}).get("source"), 32, 33),
    "destination_port": lambda document: document.get("original", {}).get("destination_port"),
    "reply_destination_port": lambda document: document.get("reply", {}).get("destination_port"),
    "icmp_type": lambda document: document.get("original", {}).get("icmp_type"),
    "state": lambda document: next(
        (document[name]["state"] for name in ("tcp", "sctp", "dccp") if "state" in document.get(name, {})), None
    ),
    "mark": lambda document: document.get("mark", 0),
    "mark/0xf0": lambda document: document.get("mark", 0) & 0xF0,
    "zone": lambda document: next(
        filter(
            None,
            (document.get("zone"), *(document.get(end, {}).get("zone") for end in ("original", "reply"))),
        ),
        0,
    ),
    "status": lambda document: document.get("status", []),
    "expected": lambda document: "expected" in document.get("status", []),
    "helper": lambda document: document.get("helper"),
    "labels": lambda document: document.get("labels", []),
    "nat": lambda document: {
        (False, False): "none",
        (True, False): "source",
        (False, True): "destination",
        (True, True): "both",
    }[tuple(bit in document.get("status", []) for bit in ("src_nat", "dst_nat"))],
}
MEASURES = ("flows", "bytes", "packets")


def network(address: Any, ipv4: int, ipv6: int) -> Any:
    if address is None:
        return None
    length = ipv6 if ":" in address else ipv4
    return str(ipaddress.ip_network(f"{address}/{length}", strict=False))


def scanned(entries: list[Any], *keys: str, most_layouts: int = 512) -> Groups:
    groups = Groups(parse_group_by(list(keys), "group_by"))
    layouts = LayoutCache(ENTRIES)
    layouts.most = most_layouts
    messages = [
        wire.framed(0x0100, 2, 1, struct.pack(">BBH", entry["family"], 0, 0) + ENTRIES.encode(entry))
        for entry in entries
    ]
    DumpDecoder(groups, layouts=layouts).feed(b"".join(messages))
    return groups


def flow(source: int = 1, port: int = 443, **keys: Any) -> Any:
    return {
        "family": 2,
        "original.source": bytes([10, 0, source >> 8, source & 255]),
        "original.destination": bytes([192, 0, 2, 80]),
        "original.protocol": 6,
        "original.source_port": 40000,
        "original.destination_port": port,
        **keys,
    }


def counted(moved: int, packets: int = 1) -> dict[str, int]:
    counters = {"bytes": moved, "packets": packets}
    return {f"counters.{end}.{what}": number for end in ("original", "reply") for what, number in counters.items()}


def numbers(documents: list[Any]) -> list[Any]:
    return sorted(([repr(item) for item in sorted(document.items())] for document in documents), key=repr)


@examples(60)
@given(
    st.lists(strategies.live_entries(), max_size=8),
    st.lists(st.sampled_from(sorted(IN_DOCUMENTS)), min_size=1, max_size=3, unique_by=lambda key: key.split("/")[0]),
    st.sampled_from([0, 1, 512]),
)
def test_groups_have_the_totals_of_the_shown_entries(entries: list[Any], keys: list[str], most: int) -> None:
    expected: dict[str, Any] = {}
    sums: dict[str, Counter[str]] = {}
    decoded = [
        LayoutCache(ENTRIES).decode(
            wire.framed(0x0100, 2, 1, struct.pack(">BBH", entry["family"], 0, 0) + ENTRIES.encode(entry))
        )
        for entry in entries
    ]
    accounted = False
    for document in map(to_document, decoded):
        group = {key.split("/")[0]: IN_DOCUMENTS[key](document) for key in keys}
        expected[repr(group)] = group
        sums.setdefault(repr(group), Counter())["flows"] += 1
        ends = [document.get("counters", {}).get(end, {}) for end in ("original", "reply")]
        for what in ("bytes", "packets"):
            if what in ends[0]:
                accounted = True
                sums[repr(group)][what] += sum(end.get(what, 0) for end in ends)
    found = scanned(entries, *keys, most_layouts=most).as_document(100)
    measured = MEASURES if accounted else MEASURES[:1]
    assert numbers(found.pop("groups")) == numbers(
        [{**group, **{what: sums[name][what] for what in measured}} for name, group in expected.items()]
    )
    assert found == {}


def test_largest_groups_come_first_and_the_others_are_summed() -> None:
    entries = [flow(1, **counted(5)), flow(2, **counted(400)), flow(2, **counted(1)), flow(3, **counted(100, 9))]
    groups = scanned(entries, "source")
    assert groups.as_document(2) == {
        "groups": [
            {"source": "10.0.0.2", "flows": 2, "bytes": 802, "packets": 4},
            {"source": "10.0.0.1", "flows": 1, "bytes": 10, "packets": 2},
        ],
        "other": {"flows": 1, "bytes": 200, "packets": 18},
    }
    assert [row["source"] for row in groups.as_document(9, "bytes")["groups"]] == ["10.0.0.2", "10.0.0.3", "10.0.0.1"]
    assert groups.as_document(1, "packets")["groups"][0]["source"] == "10.0.0.3"
    assert groups.as_document(0)["other"] == {"flows": 4, "bytes": 1012, "packets": 24}


def test_groups_without_counters_come_last() -> None:
    """Accounting was turned on after they began."""
    mixed = scanned([flow(1), flow(2, **counted(5)), flow(3)], "source")
    for order in ("bytes", "packets"):
        rows = mixed.as_document(9, order)["groups"]
        assert [row["source"] for row in rows] == ["10.0.0.2", "10.0.0.1", "10.0.0.3"]
    without = scanned([flow(1), flow(2)], "source").as_document(9, "bytes")
    assert without == {"groups": [{"source": "10.0.0.1", "flows": 1}, {"source": "10.0.0.2", "flows": 1}]}


def test_groups_of_different_types_have_a_fixed_order() -> None:
    ipv6 = {"original.source": bytes(15) + b"\1", "original.destination": bytes(15) + b"\2", "family": 10}
    entries = [flow(**ipv6), flow(2), flow(1), flow(1, **{"original.protocol": 1, "original.icmp_type": 8})]
    for entry in entries:
        if entry["original.protocol"] == 1:
            del entry["original.source_port"], entry["original.destination_port"]
    assert [tuple(row.values()) for row in scanned(entries, "source", "icmp_type").as_document(9)["groups"]] == [
        ("10.0.0.1", None, 1),
        ("10.0.0.1", 8, 1),
        ("10.0.0.2", None, 1),
        ("::1", None, 1),
    ]


def test_result_reports_the_uncertainty_if_groups_are_dropped(monkeypatch: Any) -> None:
    monkeypatch.setattr(groups_module, "CAPACITY", 50)
    monkeypatch.setattr(groups_module, "_PENDING", 20)
    entries = [flow(port=1 + number, **counted(10)) for number in range(300)] + [flow(port=7, **counted(10))] * 100
    document = scanned(entries, "source", "destination_port").as_document(1000)
    first, missed = document["groups"][0], document["uncertainty"]
    assert len(document["groups"]) <= 50
    assert first["destination_port"] == 7
    assert 101 - missed["flows"] <= first["flows"] <= 101
    assert 2020 - missed["bytes"] <= first["bytes"] <= 2020
    for what, total in (("flows", 400), ("bytes", 8000), ("packets", 800)):
        assert sum(row[what] for row in document["groups"]) + document["other"][what] == total


@pytest.mark.parametrize(
    ("key", "ipv4", "ipv6"),
    [
        ("source/24", "10.0.0.0/24", "2001:db8:1:2::/64"),
        ("source/8/48", "10.0.0.0/8", "2001:db8:1::/48"),
        ("source/56", "10.0.0.9/32", "2001:db8:1::/56"),
        ("source/0/0", "0.0.0.0/0", "::/0"),
    ],
)
def test_networks_of_both_families(key: str, ipv4: str, ipv6: str) -> None:
    address = ipaddress.ip_address("2001:db8:1:2::9").packed
    of_ipv6 = {"family": 10, "original.source": address, "original.destination": address}
    found = scanned([flow(9), flow(**of_ipv6)], key).as_document(9)["groups"]
    assert [row["source"] for row in found] == [ipv4, ipv6]


def test_labels_are_shown_by_name() -> None:
    names = LabelMap({"voice": 1})
    groups = Groups(parse_group_by(["labels"], "group_by", names))
    groups.add(flow(labels=0b110))
    assert groups.as_document(1)["groups"] == [{"labels": ["voice", 2], "flows": 1}]


@pytest.mark.parametrize(
    ("raw", "key", "advice"),
    [
        (None, "group_by", r"write for example \[source, state\]"),
        ([], "group_by", r"write for example \[source, state\]"),
        ("source", "group_by", r"write for example \[source, state\]"),
        (["source", "sauce"], "group_by[1]", "write one of family, protocol, source"),
        ([["source"]], "group_by[0]", "write one of family, protocol, source"),
        (["source", "source/24"], "group_by[1]", "write it once"),
        (["source/33/64"], "group_by[0]", "write source/24, or source/24/64 with IPv6"),
        (["source/129"], "group_by[0]", "write source/24, or source/24/64 with IPv6"),
        (["source/"], "group_by[0]", "write source/24, or source/24/64 with IPv6"),
        (["reply_source/8/8/8"], "group_by[0]", "write reply_source/24"),
        (["state/24"], "group_by[0]", "write state without the slash"),
        (["mark/0"], "group_by[0]", "an integer from 1 to"),
    ],
)
def test_invalid_group_keys_are_refused(raw: Any, key: str, advice: str) -> None:
    with pytest.raises(InvalidValue, match=advice) as caught:
        parse_group_by(raw, "group_by")
    assert caught.value.key == key
