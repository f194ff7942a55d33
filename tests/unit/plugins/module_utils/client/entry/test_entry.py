# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the identity and the NAT of an entry, because an error changes another connection."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.attributes import ENTRY
from ansible_collections.netops.conntrack.plugins.module_utils.client.ctnetlink import messages
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry import entry as subject
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document, to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import describe, identity
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.nat import translations
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.tuple import (
    answered_type,
    default_reply,
    reversed_tuple,
    tuple_of,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.message import Message
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.support import corpus
from ansible_collections.netops.conntrack.tests.unit.support.strategies import live_entries

ENTRIES = {sample.name: messages.parse_entry(Message(0x100, 0, sample.data)) for sample in corpus.ANSWERS}
UDP = from_document(
    {
        "protocol": "udp",
        "original": {"source": "10.0.0.1", "destination": "192.0.2.53", "source_port": 1000, "destination_port": 53},
    }
)


def keys_in_the_docstring() -> set[str]:
    """Return the keys of the table in the docstring; keys that end with `…` remain as they are."""
    keys = set()
    for line in (subject.__doc__ or "").splitlines():
        before, gap, _meaning = line.strip().partition("  ")
        if not line.startswith("    ") or not gap or before == "key":
            continue
        stem = ""
        for name in before.split(", "):
            key = stem + name if name.startswith(".") else name
            stem = key.rpartition(".")[0]
            keys.update(key.replace("*", direction) for direction in ("original", "reply"))
    return keys


def test_the_docstring_lists_every_key() -> None:
    listed = keys_in_the_docstring()
    groups = tuple(key[:-1] for key in listed if key.endswith("…"))
    assert groups
    rows = {row.key for row in ENTRY} | {"family", "extra"}
    assert sorted(key for key in rows if key not in listed and not key.startswith(groups)) == []
    assert sorted(key for key in listed if key not in rows and not key.endswith("…")) == []


@given(live_entries())
@examples(60)
def test_identity_is_zones_family_protocol_and_original_tuple(entry: Any) -> None:
    part = {
        key: value
        for key, value in entry.items()
        if key in ("family", "zone", "reply.zone") or key.startswith("original.")
    }
    assert identity(entry) == identity(part)
    changed = {**entry, "mark": 99, "reply.source_port": 7, "id": 1, "timeout": 5, "status": 0}
    assert identity(changed) == identity(entry)
    for key in part:
        other = bytes(len(entry[key])) + b"\1" if isinstance(entry[key], bytes) else entry[key] + 1
        assert identity({**entry, key: other}) != identity(entry)


def test_zone_0_equals_no_zone() -> None:
    assert identity({**UDP, "zone": 0, "original.zone": 0}) == identity(UDP)
    assert identity({**UDP, "zone": 5}) != identity({**UDP, "original.zone": 5})


@given(live_entries())
@examples(60)
def test_reversing_a_tuple_twice_restores_it(entry: Any) -> None:
    original = tuple_of(entry, "original")
    assert "zone" not in original
    assert reversed_tuple(reversed_tuple(original)) == original
    plain = default_reply(entry)
    assert plain["reply.source"] == entry["original.destination"]


@pytest.mark.parametrize("name", ["icmp", "icmpv6", "gre", "sctp", "protocol_99", "udp_ipv4_original_zone"])
def test_default_reply_equals_that_of_the_kernel(name: str) -> None:
    entry = ENTRIES[name]
    assert {f"reply.{key}": value for key, value in tuple_of(entry, "reply").items()} == default_reply(entry)


def test_icmp_types_have_their_reply_types() -> None:
    assert [answered_type(1, number) for number in (8, 0, 13, 14, 15, 16, 17, 18)] == [0, 8, 14, 13, 16, 15, 18, 17]
    assert [answered_type(58, number) for number in (128, 129, 139, 140)] == [129, 128, 140, 139]
    for protocol, number in ((1, 3), (1, 128), (58, 8), (58, 135), (1, 255)):
        assert answered_type(protocol, number) is None
        with pytest.raises(InvalidValue, match="write the type"):
            reversed_tuple({"protocol": protocol, "icmp_type": number})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tcp_ipv6_nat", {"source": ("2001:db8:2::9", 5000), "destination": ("2001:db8:3::4", 8080)}),
        ("udp_ipv4_snat", {"source": ("203.0.113.7", None)}),
        ("icmp_snat", {"source": ("203.0.113.7", 7)}),
        ("icmp_dnat", {"destination": ("203.0.113.8", None)}),
        ("tcp_ipv4_full", {}),
        ("ftp_data", {}),
    ],
)
def test_nat_is_derived_from_status_and_tuples(name: str, expected: Any) -> None:
    found = translations(ENTRIES[name])
    assert set(found) == set(expected)
    shown = to_document(ENTRIES[name]).get("nat", {})
    for end, (address, port) in expected.items():
        assert shown[end]["address"] == address
        if port is not None:
            assert shown[end]["port"] == port
        elif name.startswith("icmp"):
            assert "port" not in shown[end], "the ICMP id is unchanged"


def test_different_tuples_without_the_status_bit_are_not_nat() -> None:
    entry = {**ENTRIES["udp_ipv4_snat"], "status": 0x188}
    assert translations(entry) == {}, "asymmetric routing has the same effect"


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        (UDP, "udp 10.0.0.1:1000 -> 192.0.2.53:53"),
        ({**UDP, "zone": 5}, "udp 10.0.0.1:1000 -> 192.0.2.53:53 (zone 5)"),
        (ENTRIES["udp_ipv4_snat"], None),
        (ENTRIES["icmp"], "icmp 10.0.0.3 -> 192.0.2.1 type 8 code 0 id 4242"),
        (ENTRIES["gre"], "gre 10.0.0.5:4660 -> 192.0.2.5:17185"),
        (ENTRIES["protocol_99"], "99 10.0.0.6 -> 192.0.2.6"),
        (ENTRIES["tcp_ipv6_traffic"], "tcp [::1]:7001 -> [::1]:7000"),
        ({}, "unknown protocol ? -> ?"),
        ({"original.icmp_type": 8}, "unknown protocol ? -> ? type 8 code ? id ?"),
    ],
)
def test_entry_is_described_in_one_line(entry: Any, line: str | None) -> None:
    if line is None:
        assert "reply 192.0.2.53:53 -> 203.0.113.7" in describe(entry)
    else:
        assert describe(entry) == line
