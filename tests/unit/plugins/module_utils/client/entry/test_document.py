# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a document converts to the declared entry, and that an invalid one is refused before any request."""

from __future__ import annotations

import contextlib
import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.codec import ENTRIES
from ansible_collections.netops.conntrack.plugins.module_utils.client.ctnetlink import requests
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.creation import creation
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import (
    _TOP,
    as_declaration,
    from_document,
    to_document,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import describe
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.support import corpus, wire
from ansible_collections.netops.conntrack.tests.unit.support.strategies import documents

V4 = {"source": "10.0.0.1", "destination": "192.0.2.1"}
V6 = {"source": "2001:db8::1", "destination": "2001:db8::2"}
PORTS = {"source_port": 4000, "destination_port": 443}
BACK = {"source": "192.0.2.1", "destination": "10.0.0.1", "source_port": 443, "destination_port": 4000}
ECHO = {**V4, "icmp_type": 8, "icmp_code": 0, "icmp_id": 1}
TCP = {"protocol": "tcp", "original": {**V4, **PORTS}}


def unset_as_absent(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry without zeros that are not shown because they mean the same as a missing value."""
    plain = {key: value for key, value in entry.items() if value or key not in ("zone", "labels")}
    if not any(plain.get(f"synproxy.{name}") for name in ("isn", "its", "tsoff")):
        plain = {key: value for key, value in plain.items() if not key.startswith("synproxy.")}
    return plain


@given(documents())
@examples(250)
def test_shown_document_can_be_declared_without_a_difference(document: Any) -> None:
    before = copy.deepcopy(document)
    entry = from_document(document)
    assert document == before, "a declaration is read, not changed"
    shown = to_document(entry)
    assert json.loads(json.dumps(shown)) == shown
    assert from_document(shown) == unset_as_absent(entry)
    assert to_document(from_document(shown)) == shown
    for key in ("protocol", "timeout", "original", "nat", "sctp", "counters", "extra", "id"):
        if document.get(key):
            assert shown[key] == document[key]


@given(documents(), st.data())
@examples(60)
def test_null_equals_an_absent_key(document: Any, draws: Any) -> None:
    with_nulls = {**dict.fromkeys(["reply", "nat", "mark", "tcp", "extra", "family", "zone", "labels"]), **document}
    with_nulls["original"] = {**dict.fromkeys(["source_key", "icmp_id", "zone"]), **document["original"]}
    assert from_document(with_nulls) == from_document(document)


@pytest.mark.parametrize("sample", corpus.ANSWERS, ids=lambda sample: sample.name)
def test_gathered_document_can_be_declared_unchanged(sample: corpus.Sample) -> None:
    entry = from_document(sample.document)
    assert {k: v for k, v in to_document(entry).items() if k != "nat"} == {
        k: v for k, v in sample.document.items() if k != "nat"
    }
    gathered = ENTRIES.decode(sample.data, 4)
    for key in gathered:
        if not key.startswith("synproxy."):
            assert entry[key] == gathered[key]
    request = creation(as_declaration({"family": sample.data[0], **gathered}))
    translated = "nat" in sample.document
    assert any(key.startswith("nat.") for key in request) == translated
    if translated:
        assert request["reply.source"] == request["original.destination"], (
            "the kernel derives the reply tuple from the NAT"
        )


@pytest.mark.parametrize("sample", corpus.REQUESTS, ids=lambda sample: sample.name)
def test_declaration_sends_the_same_attributes_as_conntrack(sample: corpus.Sample) -> None:
    """The comparison ignores attributes that only one of the two programs sends."""
    (theirs,) = wire.messages(sample.data)
    declared = from_document(sample.document)
    getting = " -G " in sample.name
    ours = requests.GET.message(declared) if getting else requests.CREATE.message(creation(declared))
    assert ours.type == theirs.type
    assert ours.payload[:1] == theirs.payload[:1]
    sent = wire.flat(wire.tree(ours.payload[4:]))
    expected = wire.flat(wire.tree(theirs.payload[4:]))
    for path in ((4, 1, 4), (4, 1, 5)):  # conntrack sends a mask of the flags that it sets
        if path in expected:
            expected[path] = expected[path][:1] + b"\xff"
    if getting:
        expected = {path: data for path, data in expected.items() if path[0] == 1}
    extra = {path: data for path, data in sent.items() if path not in expected}
    assert {path: sent.get(path) for path in expected} == expected
    assert set(extra) <= {(6, 2), (6, 5), (13, 2), (13, 5)}, "both ends of a range of one address"


def test_reply_tuple_alone_defines_the_original_tuple() -> None:
    entry = from_document({"protocol": "tcp", "reply": BACK})
    assert {k: v for k, v in entry.items() if k.startswith("original")} == {
        k: v for k, v in from_document(TCP).items() if k.startswith("original")
    }
    with pytest.raises(InvalidValue, match="^original: is missing.* write both"):
        from_document({"protocol": "tcp", "reply": BACK, "nat": {"source": {"address": "1.1.1.1"}}})


def test_absent_entry_can_be_identified_by_its_reply_tuple() -> None:
    for more in ({}, {"nat": {"source": {"address": "1.1.1.1"}}}, {"status": ["src_nat"]}):
        entry = from_document({"protocol": "tcp", "reply": BACK, "original": {"zone": 5}, **more}, absent=True)
        assert {key for key in entry if key.startswith("original.")} == {"original.zone"}
        assert entry["reply.protocol"] == 6
        assert describe(entry).startswith("tcp ")
        assert describe(entry).endswith("(reply, original zone 5)")
    assert from_document(TCP, absent=True) == from_document(TCP)
    for reply, key in (({}, "original"), ({"source": BACK["source"]}, "reply.destination")):
        with pytest.raises(InvalidValue, match=f"^{key}: is missing"):
            from_document({"protocol": "tcp", "reply": reply}, absent=True)


def test_protocols_that_newer_kernels_do_not_track_may_have_no_ports() -> None:
    for name in ("dccp", "udplite"):
        assert "original.source_port" not in from_document({"protocol": name, "original": V4})
        assert from_document({"protocol": name, "original": {**V4, **PORTS}})["original.source_port"] == 4000
        with pytest.raises(InvalidValue, match="^original.destination_port: is missing"):
            from_document({"protocol": name, "original": {**V4, "source_port": 1}})


def test_nat_status_with_a_reply_tuple_declares_nat() -> None:
    translated = {**BACK, "destination": "203.0.113.7", "destination_port": 6000}
    entry = from_document({**TCP, "reply": translated, "status": ["src_nat", "confirmed"]})
    assert to_document(entry)["nat"] == {"source": {"address": "203.0.113.7", "port": 6000}}
    assert creation(entry)["reply.destination_port"] == 4000


def test_reply_tuple_that_agrees_with_the_declared_nat_is_accepted() -> None:
    nat = {"source": {"address": "203.0.113.1-203.0.113.9"}}
    translated = {**BACK, "destination": "203.0.113.7", "destination_port": 6000}
    from_document({**TCP, "reply": translated, "nat": nat})
    from_document({**TCP, "reply": BACK, "nat": nat})
    from_document({**TCP, "reply": translated, "nat": {"source": {**nat["source"], "port": "5000-6000"}}})


def test_labels_by_name() -> None:
    labels = LabelMap({"voice": 3})
    entry = from_document({**TCP, "labels": ["voice", 5]}, labels)
    assert entry["labels"] == 1 << 3 | 1 << 5
    assert to_document(entry, labels)["labels"] == ["voice", 5]
    assert from_document({**TCP, "labels": []})["labels"] == 0, "an empty list is a declaration"


def test_a_mark_with_its_mask() -> None:
    entry = from_document({**TCP, "mark": "0x10/0xf0"})
    assert (entry["mark"], entry["mark_mask"]) == (0x10, 0xF0)
    assert to_document(entry)["mark"] == "0x10/0xf0"
    assert "mark_mask" not in from_document({**TCP, "mark": "0x10/0xffffffff"})


def tcp(**keys: Any) -> dict[str, Any]:
    return {**TCP, **keys}


def udp4(**keys: Any) -> dict[str, Any]:
    return {"protocol": "udp", "original": {**V4, **PORTS, **keys}}


MALFORMED: list[tuple[Any, str]] = [
    (None, ""),
    ([], ""),
    ("tcp", ""),
    ({}, "protocol"),
    ({"protocol": "tcp"}, "original"),
    ({"original": {**V4, **PORTS}}, "protocol"),
    ({"protocol": None, "original": {**V4, **PORTS}}, "protocol"),
    (tcp(protocol=256), "protocol"),
    (tcp(protocol=-1), "protocol"),
    (tcp(protocol="tpc"), "protocol"),
    (tcp(protocol=True), "protocol"),
    (tcp(protocol=["tcp"]), "protocol"),
    (tcp(protocol=6.0), "protocol"),
    (tcp(orignal=1), "orignal"),
    ({**TCP, 1: 2}, "1"),
    (tcp(original=None), "original"),
    (tcp(original=[]), "original"),
    (tcp(original="10.0.0.1"), "original"),
    (tcp(original={}), "original"),
    (tcp(original=V4), "original.source_port"),
    (tcp(original={**V4, "source_port": 1}), "original.destination_port"),
    (tcp(original={"source": "10.0.0.1", **PORTS}), "original.destination"),
    (tcp(original={"destination": "10.0.0.1", **PORTS}), "original.source"),
    (udp4(source="10.0.0.256"), "original.source"),
    (udp4(source="10.0.0.0/8"), "original.source"),
    (udp4(source=["10.0.0.1"]), "original.source"),
    (udp4(source=1), "original.source"),
    (udp4(source="fe80::1%eth0"), "original.source"),
    (udp4(source="2001:db8::1"), "original.destination"),
    (udp4(source_port=65536), "original.source_port"),
    (udp4(source_port=-1), "original.source_port"),
    (udp4(source_port="1-2"), "original.source_port"),
    (udp4(source_port="https"), "original.source_port"),
    (udp4(source_port=[1]), "original.source_port"),
    (udp4(source_key=1), "original.source_key"),
    (udp4(sport=1), "original.sport"),
    (udp4(zone=65536), "original.zone"),
    (udp4(icmp_type=8), "original.icmp_type"),
    ({"protocol": 50, "original": {**V4, **PORTS}}, "original.source_port"),
    ({"protocol": "icmp", "original": {**V4, **PORTS}}, "original.source_port"),
    ({"protocol": "icmp", "original": V4}, "original.icmp_type"),
    ({"protocol": "icmp", "original": {**ECHO, "icmp_type": 3}}, "original.icmp_type"),
    ({"protocol": "icmp", "original": {**ECHO, "icmp_code": 256}}, "original.icmp_code"),
    ({"protocol": "icmp", "original": {**ECHO, **V6}}, "protocol"),
    ({"protocol": "icmpv6", "original": {**ECHO, "icmp_type": 128}}, "protocol"),
    ({"protocol": "gre", "original": {**V4, "source_key": 1}}, "original.destination_key"),
    ({"protocol": "icmp", "reply": {**ECHO, "icmp_type": 3}}, "reply.icmp_type"),
    (tcp(family="ipv6"), "original.source"),
    (tcp(family="inet"), "family"),
    (tcp(family=7), "family"),
    (tcp(family=True), "family"),
    (tcp(reply={**BACK, "source": "2001:db8::1"}), "reply.source"),
    (tcp(reply={"source": "192.0.2.1"}), "reply.destination"),
    (tcp(reply={"destination_port": 1}), "reply.source"),
    (tcp(zone=65536), "zone"),
    (tcp(zone="blue"), "zone"),
    (tcp(zone=[1]), "zone"),
    (tcp(zone=True), "zone"),
    (tcp(zone=1, original={**V4, **PORTS, "zone": 2}), "original.zone"),
    (tcp(original={**V4, **PORTS, "zone": 2}, reply={**BACK, "zone": 2}), "reply.zone"),
    (tcp(timeout=-1), "timeout"),
    (tcp(timeout=1 << 32), "timeout"),
    (tcp(timeout="1h"), "timeout"),
    (tcp(timeout=1.5), "timeout"),
    (tcp(mark=1 << 32), "mark"),
    (tcp(mark="0x1ffffffff"), "mark"),
    (tcp(mark=-1), "mark"),
    (tcp(mark="0x10/0x0f"), "mark"),
    (tcp(mark="1/2/3"), "mark"),
    (tcp(mark=True), "mark"),
    (tcp(mark=[1]), "mark"),
    (tcp(mark={}), "mark"),
    (tcp(labels="voice"), "labels"),
    (tcp(labels=[128]), "labels"),
    (tcp(labels=[None]), "labels"),
    (tcp(labels={"voice": True}), "labels"),
    (tcp(status=["sured"]), "status"),
    (tcp(status=[32]), "status"),
    (tcp(status={}), "status"),
    (tcp(status=[["assured"]]), "status"),
    (tcp(tcp={"state": "open"}), "tcp.state"),
    (tcp(tcp={"state": 256}), "tcp.state"),
    (tcp(tcp={"state": ["established"]}), "tcp.state"),
    (tcp(tcp={"stat": "close"}), "tcp.stat"),
    (tcp(tcp="established"), "tcp"),
    (tcp(tcp={"original": {"window_scale": 15}}), "tcp.original.window_scale"),
    (tcp(tcp={"reply": {"flags": ["nagle"]}}), "tcp.reply.flags"),
    (tcp(tcp={"reply": 1}), "tcp.reply"),
    (tcp(sctp={"state": "established"}), "sctp"),
    ({**udp4(), "tcp": {"state": "established"}}, "tcp"),
    (tcp(helper="a-helper-of-some-length"), "helper"),
    (tcp(helper=21), "helper"),
    (tcp(helper="ftp\0"), "helper"),
    (tcp(master={}), "master.source"),
    (tcp(master=V4), "master.source_port"),
    (tcp(master={**V6, **PORTS}), "master.source"),
    (tcp(master={**V4, **PORTS, "zone": 1}), "master.zone"),
    (tcp(master={**V4, "protocol": 256}), "master.protocol"),
    (tcp(sequence_adjustment={"original": {"before": 1 << 31}}), "sequence_adjustment.original.before"),
    (tcp(sequence_adjustment={"original": {"position": -1}}), "sequence_adjustment.original.position"),
    (tcp(synproxy={"isn": "x"}), "synproxy.isn"),
    (tcp(counters={"original": {"packets": -1}}), "counters.original.packets"),
    (tcp(counters=5), "counters"),
    (tcp(timestamps={"start": "yesterday"}), "timestamps.start"),
    (tcp(id="x"), "id"),
    (tcp(extra={"99": "xyz"}), "extra.99"),
    (tcp(extra={"99": 5}), "extra.99"),
    (tcp(extra=["99"]), "extra"),
    (tcp(nat={"src": {}}), "nat.src"),
    (tcp(nat=["source"]), "nat"),
    (tcp(nat={"source": "203.0.113.7"}), "nat.source"),
    (tcp(nat={"source": {}}), "nat.source"),
    (tcp(nat={"source": {"address": None}}), "nat.source"),
    (tcp(nat={"source": {"ports": 1}}), "nat.source.ports"),
    (tcp(nat={"source": {"address": "2001:db8::1"}}), "nat.source.address"),
    (tcp(nat={"source": {"address": "203.0.113.9-203.0.113.1"}}), "nat.source.address"),
    (tcp(nat={"source": {"address": "203.0.113.9-2001:db8::1"}}), "nat.source.address"),
    (tcp(nat={"source": {"address": "203.0.113.0/24"}}), "nat.source.address"),
    (tcp(nat={"destination": {"port": "90-80"}}), "nat.destination.port"),
    (tcp(nat={"destination": {"port": 65536}}), "nat.destination.port"),
    ({"protocol": 50, "original": V4, "nat": {"source": {"port": 1}}}, "nat.source.port"),
    (tcp(status=["src_nat"]), "reply"),
    (tcp(reply={**BACK, "destination": "10.9.9.9"}, nat={"source": {"address": "203.0.113.7"}}), "reply.destination"),
    (tcp(reply={**BACK, "source": "10.9.9.9"}, nat={"source": {"address": "203.0.113.7"}}), "reply.source"),
    (tcp(reply={**BACK, "destination_port": 7}, nat={"source": {"port": "5000-6000"}}), "reply.destination_port"),
]


@pytest.mark.parametrize(
    ("document", "key"), MALFORMED, ids=[f"{key}-{i}" for i, (_unused, key) in enumerate(MALFORMED)]
)
def test_malformed_value_is_reported_with_advice(document: Any, key: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        from_document(document)
    assert caught.value.key == key
    assert any(advice in caught.value.problem for advice in ("write", "leave", "did you mean")), str(caught.value)
    assert "\n" not in str(caught.value)


LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["tcp", "10.0.0.1", "::1"])
)
NAMES = st.sampled_from([*_TOP, "source", "destination", "source_port", "state", "address"]) | st.text()


@given(st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner)), st.sampled_from(_TOP))
@examples(150)
def test_random_values_are_accepted_or_refused(raw: Any, key: str) -> None:
    for document in (raw, {**TCP, key: raw}):
        with contextlib.suppress(InvalidValue):
            entry = from_document(document)
            to_document(entry)
            requests.CREATE.message(creation(entry))
