# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kernel's filters never exclude a matching entry, and its own flush removes all matching entries and no others."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client import probe
from ansible_collections.netops.conntrack.plugins.module_utils.client.ctnetlink import messages
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.creation import creation
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import Entry
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import KernelError, Unsupported
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.kernel_filter import narrow
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import parse_match
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from tests import samples
from tests.lab import Namespace
from tests.samples import SAMPLES

pytestmark = pytest.mark.every_kernel

FAMILIES = {"ipv4": 2, "ipv6": 10}
ECHO = {"icmp_code": 0, "icmp_id": 9}


def zoned() -> Iterator[dict[str, Any]]:
    """Yield the same flows in different zones: in both directions, in one direction, and in no zone."""
    for family in FAMILIES:
        for port, zone in ((701, {"zone": 7}), (702, {}), (703, {"zone": 8}), (704, {"zone": 7, "mark": 0x17})):
            yield samples.flow(family, "udp", port, 53, **zone)
        for port, direction in ((705, "original"), (706, "reply")):
            flow = samples.flow(family, "udp", port, 53)
            yield {**flow, direction: {**flow[direction], "zone": 7}}


def marked() -> Iterator[dict[str, Any]]:
    for family in FAMILIES:
        for number, protocol in enumerate(("tcp", "udp", "sctp")):
            for mark in (1, 0x10, 0x11, 0xFF000001):
                yield samples.flow(family, protocol, 800 + number, 900 + mark % 97, mark=mark)
            flow = samples.flow(family, protocol, 820 + number, 443, mark=1, status=["seen_reply"])
            yield flow
            yield {**flow, **samples.flow(family, protocol, 830 + number, 443), "status": ["seen_reply", "assured"]}


def foreign_icmp() -> Iterator[Entry]:
    """Yield ICMP over IPv6 and ICMPv6 over IPv4. No packet creates such entries, but netlink does."""
    for family, protocol, request, answer in (("ipv6", 1, 8, 0), ("ipv4", 58, 128, 129)):
        entry = from_document(samples.flow(family, "udp", 1, 1))
        entry = {key: value for key, value in entry.items() if not key.endswith(("_port", ".protocol"))}
        for direction, kind in (("original", request), ("reply", answer)):
            more = {"protocol": protocol, "icmp_type": kind, **ECHO}
            entry.update({f"{direction}.{key}": value for key, value in more.items()})
        yield entry


@functools.cache
def entries() -> list[Entry]:
    documents = [sample.declared for _name, sample in SAMPLES if "master" not in sample.declared]
    parsed = [from_document(document) for document in (*documents, *zoned(), *marked())]
    # Long enough that no entry expires on a slow machine
    return [creation({"timeout": 3600, **entry}) for entry in (*parsed, *foreign_icmp())]


def populate(table: Table) -> None:
    for entry, error in zip(entries(), list(table.create_all(entries())), strict=True):
        if isinstance(error, Unsupported):  # this kernel lacks the helper
            table.create({key: value for key, value in entry.items() if key != "helper"})
        elif error is not None:
            raise error


CLIENT, SERVER, OUTSIDE = (ends["ipv4"] for ends in (samples.CLIENT, samples.SERVER, samples.OUTSIDE))
CLIENT6 = samples.CLIENT["ipv6"]
V4, V6 = {"family": "ipv4"}, {"family": "ipv6"}
MATCHES: list[Any] = [
    V4,
    V6,
    {"family": ["ipv4", "ipv6"]},
    *({"protocol": protocol} for protocol in ("tcp", "icmp", "icmpv6")),
    *(
        {**family, "protocol": protocol}
        for family in (V4, V6)
        for protocol in ("tcp", "udp", "udplite", "dccp", "sctp", "gre", "icmp", "icmpv6", 50, 0, 255, ["tcp", "udp"])
    ),
    *({"protocol": protocol, "source": CLIENT} for protocol in ("tcp", "sctp", "gre", "icmp", 50)),
    *({"protocol": protocol, "source": CLIENT6} for protocol in ("tcp", "sctp", "gre", "icmpv6", 50)),
    {"source": CLIENT},
    {"source": SERVER},
    {"destination": SERVER},
    {"destination": CLIENT},
    {"source": CLIENT, "destination": SERVER},
    {"source": [CLIENT, CLIENT6]},
    {"source": "192.0.2.0/24"},
    {"source": CLIENT6},
    {"source": OUTSIDE},
    {"address": OUTSIDE},
    {"reply_destination": OUTSIDE},
    {"destination": samples.SERVER["ipv6"], "protocol": "udp", "destination_port": 53},
    *(
        {**family, "protocol": protocol, "destination_port": port}
        for family in (V4, V6)
        for protocol in ("tcp", "udp", "sctp")
        for port in (53, 443, 2, [53, 443], "1-500")
    ),
    *({**family, "protocol": "udp", "source_port": 1, "destination_port": 53} for family in (V4, V6)),
    *({**family, "protocol": "udp", "reply_destination_port": 1200} for family in (V4, V6)),
    *({**family, "protocol": "gre", "source_key": 1} for family in (V4, V6)),
    {"destination_port": 443},
    {**V4, "port": 53},
    {**V4, "protocol": "icmp", "icmp_type": 8},
    {**V4, "protocol": "icmp", "icmp_id": 1},
    {**V4, "protocol": "icmp", "icmp_type": 8, "icmp_code": 0, "icmp_id": 65535},
    {**V4, "protocol": "icmp", "icmp_type": 0},
    {**V4, "protocol": "icmp", "icmp_type": 3},
    {**V4, "protocol": "icmpv6", "icmp_type": 128},
    {**V6, "protocol": "icmpv6", "icmp_type": 128},
    {**V6, "protocol": "icmpv6", "icmp_id": 65535},
    {**V6, "protocol": "icmpv6", "icmp_type": 129},
    {**V6, "protocol": "icmpv6", "icmp_type": 135},
    {**V6, "protocol": "icmp", "icmp_type": 8},
    {**V4, "icmp_id": 65535},
    *({"mark": mark} for mark in (0, 1, "0x10/0xf0", "0/1", [1, 0x10], 0xFF000001, 12345)),
    *({**V6, "protocol": "udp", "mark": mark} for mark in (1, "0x10/0xf0", "0/1")),
    *({key: bit} for key in ("status", "status_not") for bit in ("assured", "seen_reply", "confirmed", "src_nat")),
    *({**V4, "protocol": "udp", key: "assured"} for key in ("status", "status_not")),
    {**V4, "protocol": "tcp", "status": "seen_reply", "status_not": "assured", "mark": 1, "destination_port": 443},
    *({"nat": nat} for nat in ("source", "destination", "any", "none", ["source", "none"])),
    *({**V4, "protocol": "udp", "nat": nat} for nat in ("source", "none", "any")),
    *({"zone": zone} for zone in (0, 5, 7, 8, 65535, [0, 7], 9)),
    *({key: zone} for key in ("original_zone", "reply_zone") for zone in (0, 7, 8, [0, 7])),
    {"original_zone": 0, "reply_zone": 0},
    {"original_zone": 7, "reply_zone": 0},
    *({**V6, "protocol": "udp", "zone": zone, "destination_port": 53} for zone in (0, 7, [0, 7])),
    {**V4, "protocol": "udp", "zone": 0, "mark": 0, "status_not": "assured", "destination_port": 53},
    {**V4, "state": "established"},
    {**V4, "protocol": "tcp", "state": ["none", "established"]},
    {**V4, "helper": "ftp"},
    {**V4, "expected": False},
    {**V4, "timeout_below": 5000},
    {**V4, "except": {"protocol": "udp"}},
    {**V4, "protocol": "udp", "except": {"destination_port": 53}},
    {**V4, "protocol": "udp", "except": {"zone": 7}},
    [{"source": CLIENT}, {"source": CLIENT6}],
    [{**V4, "protocol": "tcp"}, {**V4, "protocol": "udp"}],
    [{**V6, "protocol": "tcp", "mark": 1}, {**V6, "protocol": "tcp", "mark": 0x11}],
    [{**V6, "protocol": "udp", "zone": 7}, {**V6, "protocol": "udp", "zone": 7, "destination_port": 53}],
    [{"status": "assured"}, {"status_not": "assured"}],
]


def name_of(match: Any) -> str:
    return str(match).translate(str.maketrans("", "", "{}' "))


def flushed(match: Any) -> bool:
    """Return whether the kernel can flush exactly the matching entries, and rejects filters that it does not know."""
    narrowing = narrow(parse_match(match).term)
    return narrowing.exact and narrowing.fails_closed


@functools.lru_cache
def supports_every_filter() -> bool:
    """Return whether this kernel supports every filter. Older kernels return more entries, and reject such a flush."""
    found = probe.probe()
    return all(found[f"{work}_by_{by}"] for work in ("dump", "flush") for by in ("mark", "status", "zone", "tuple"))


@pytest.fixture
def namespace(emptied_namespace: Namespace) -> Namespace:
    return emptied_namespace


@pytest.fixture
def table(namespace: Namespace) -> Iterator[Table]:
    with namespace.entered(), Table() as table:
        populate(table)
        yield table


def ids(entries: Any) -> list[int]:
    return sorted(entry["id"] for entry in entries)


def test_narrowed_dump_contains_all_matching_entries(table: Table, namespace: Namespace) -> None:
    everything = list(table.read(messages.dump(), messages.parse_entry))
    assert ids(everything) == ids(namespace.table())
    for raw in MATCHES:
        match = parse_match(raw)
        narrowing = narrow(match.term)
        found = list(table.read(messages.dump(kernel_filter=narrowing), messages.parse_entry))
        matching = ids(filter(match, everything))
        assert ids(filter(match, found)) == matching, raw
        if supports_every_filter():
            assert not narrowing.exact or ids(found) == matching, f"{raw}: the dump contains other entries"
            assert len(found) < len(everything) or narrowing[:2] == (0, b"") or matching == ids(everything), raw


@pytest.mark.parametrize("match", list(filter(flushed, MATCHES)), ids=name_of)
def test_narrowed_flush_removes_exactly_the_matching_entries(table: Table, namespace: Namespace, match: Any) -> None:
    wanted = parse_match(match)
    before = namespace.table()
    assert len(before) == namespace.count() > 100
    matching = ids(filter(wanted, table.read(messages.dump(), messages.parse_entry)))
    try:
        table.ask("flushing", messages.flush(narrow(wanted.term)))
    except KernelError:
        assert not supports_every_filter()
        assert ids(namespace.table()) == ids(before)
        return
    assert ids(namespace.table()) == sorted(set(ids(before)) - set(matching))


def test_kernel_can_flush_many_matches() -> None:
    assert sum(map(flushed, MATCHES)) > 60
