# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that the figures of a summary are consistent and labelled, and that its size does not grow with the table."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.codec import ENTRIES
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.layout import LayoutCache
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump import heavy_hitters
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.scan import DumpDecoder
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.summary import Summary
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.top import Top
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import to_document
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.support import strategies, wire

tables = st.lists(strategies.live_entries(), max_size=6)


def summed(entries: list[Any], most: int = 100) -> Any:
    summary, top = Summary(), Top()
    for entry in entries:
        summary.add(entry)
        top.add(entry)
    return {**summary.as_document(most), "top": top.as_document(most)}


def flow(source: int = 1, destination: int = 2, protocol: int = 6, **keys: Any) -> Any:
    return {
        "family": 2,
        "original.protocol": protocol,
        "original.source": bytes([10, 0, 0, source]),
        "original.destination": bytes([10, 0, 0, destination]),
        **keys,
    }


@examples(20)
@given(tables)
def test_figures_equal_those_of_the_shown_entries(entries: list[Any]) -> None:
    shown = [to_document(entry) for entry in entries]
    found = summed(entries)
    assert found["matched"] == len(entries)
    assert found["by_family"] == Counter(document["family"] for document in shown)
    assert found["by_protocol"] == Counter(str(document["protocol"]) for document in shown)
    assert found["by_mark"] == Counter(str(document.get("mark", 0)) for document in shown)
    assert sum(found["by_zone"].values()) == len(entries)
    assert found["status"] == {
        name: count
        for name, count in Counter(name for document in shown for name in document.get("status", [])).items()
        if isinstance(name, str)
    }
    for protocol in ("tcp", "sctp", "dccp"):
        states = Counter(str(d[protocol]["state"]) for d in shown if "state" in d.get(protocol, {}))
        assert found["by_state"].get(protocol, {}) == states
    ends = [set(document.get("nat", {})) for document in shown]
    assert found["nat"] == {
        "source": sum("source" in end for end in ends),
        "destination": sum("destination" in end for end in ends),
        "none": sum(not end for end in ends),
    }
    sources = Counter(document["original"]["source"] for document in shown)
    assert {row["address"]: row["flows"] for row in found["top"]["sources"]["by_flows"]} == sources


@examples(20)
@given(tables, st.integers(0, 3))
def test_long_lists_are_shortened_and_the_rest_is_counted_as_other(entries: list[Any], most: int) -> None:
    whole, cut = summed(entries), summed(entries, most)
    for key in ("by_zone", "by_mark"):
        assert sum(cut[key].values()) == len(entries)
        assert len(cut[key]) <= most + 1
        assert ("other" in cut[key]) == (len(whole[key]) > most)
    for name, rankings in cut["top"].items():
        for ranking, rows in rankings.items():
            assert rows == whole["top"][name][ranking][:most]


def test_the_most_frequent_come_first_and_ties_in_a_fixed_order() -> None:
    entries = [flow(3), flow(1), flow(2), flow(2)]
    rows = summed(entries)["top"]["sources"]["by_flows"]
    assert [row["address"] for row in rows] == ["10.0.0.2", "10.0.0.1", "10.0.0.3"]
    assert list(summed([flow(protocol=17), flow(), flow(), flow(protocol=1)])["by_protocol"]) == ["tcp", "icmp", "udp"]


def test_a_zone_of_one_direction_counts_as_a_zone() -> None:
    found = summed([flow(zone=5), flow(**{"original.zone": 5}), flow(**{"reply.zone": 6}), flow()])
    assert found["by_zone"] == {"5": 2, "0": 1, "6": 1}


def test_bytes_are_shown_only_with_accounting() -> None:
    assert "by_bytes" not in summed([flow()])["top"]["sources"]
    counted = {"counters.original.bytes": 10, "counters.reply.bytes": 5}
    rows = summed([flow(1, **counted), flow(2), flow(2)])["top"]["sources"]
    assert rows["by_flows"] == [
        {"address": "10.0.0.2", "flows": 2, "bytes": 0},
        {"address": "10.0.0.1", "flows": 1, "bytes": 15},
    ]
    assert rows["by_bytes"] == [{"address": "10.0.0.1", "flows": 1, "bytes": 15}]


def test_services_are_ports_of_a_protocol() -> None:
    https = {"original.destination_port": 443}
    found = summed([flow(**https), flow(**https), flow(protocol=17, **https), flow(protocol=50)])["top"]
    assert found["services"]["by_flows"] == [
        {"protocol": "tcp", "port": 443, "flows": 2},
        {"protocol": "udp", "port": 443, "flows": 1},
    ]
    assert found["pairs"]["by_flows"][0] == {"source": "10.0.0.1", "destination": "10.0.0.2", "flows": 4}


def test_entries_of_a_future_kernel_are_counted() -> None:
    found = summed([{"family": 99, "original.protocol": 250, "status": 1 << 20, "tcp.state": 77}, {}])
    assert found["matched"] == 2
    assert found["by_family"]["99"] == 1
    assert found["by_state"] == {"tcp": {"77": 1}}
    assert found["top"]["sources"]["by_flows"] == []


def test_empty_table_has_a_summary() -> None:
    found = summed([])
    assert (found["matched"], found["by_family"], found["by_zone"], found["status"]) == (0, {}, {}, {})
    assert found["nat"] == {"source": 0, "destination": 0, "none": 0}


def test_memory_use_of_a_port_scan_is_limited(monkeypatch: Any) -> None:
    """One pair of hosts has more services than the ranking can hold. The test uses layouts and the general decoder."""
    monkeypatch.setattr(heavy_hitters, "CAPACITY", 50)
    entries = [{**flow(), "original.source_port": 1, "original.destination_port": 1 + port} for port in range(200)]
    general, scanned = Top(), Top()
    for entry in entries:
        general.add(entry)
    messages = [wire.framed(0x0100, 2, 1, b"\2\0\0\0" + ENTRIES.encode(entry)) for entry in entries]
    DumpDecoder(scanned, layouts=LayoutCache(ENTRIES)).feed(b"".join(messages))
    for top in (general, scanned):
        document = top.as_document(1000)
        assert document["pairs"]["by_flows"][0]["flows"] == 200
        assert len(document["services"]["by_flows"]) <= 51
        assert document["services"]["uncertainty"]["flows"] >= 1
