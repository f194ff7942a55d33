# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every flow is counted for the hosts at its ends, and memory stays limited for any number of flows."""

from __future__ import annotations

from collections import Counter
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client import uapi
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.codec import ENTRIES
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.layout import LayoutCache
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.types import parse_address
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.scan import DumpDecoder
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document, to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.plugin_utils._inventory import flow_hosts
from ansible_collections.netops.conntrack.plugins.plugin_utils._inventory.flow_hosts import (
    ADDRESSES,
    SEPARATORS,
    SIDES,
    Endpoints,
    Tally,
    is_host,
)
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.support import wire
from ansible_collections.netops.conntrack.tests.unit.support.strategies import live_entries, odd_messages

Document = dict[str, Any]

tables = st.lists(live_entries(), max_size=6)
sides = st.sampled_from([SIDES, *((side,) for side in SIDES)])
separators = st.lists(st.sampled_from(SEPARATORS), unique=True)
#: The addresses of a document that each value of the option `addresses` selects.
PLACES = {name: [end.split(".") for end in ends] for name, ends in ADDRESSES.items()}


def flow(
    source: str = "10.0.0.1", destination: str = "10.0.0.9", port: int = 443, number: int = 1, **keys: Any
) -> Document:
    """Return a TCP flow, with its reply."""
    ends = {"source": source, "destination": destination, "source_port": number, "destination_port": port}
    reply_ends = {"source": destination, "destination": source, "source_port": port, "destination_port": number}
    return from_document({"protocol": "tcp", "original": ends, "reply": reply_ends, **keys})


def nated_flow(reply_source: str, reply_port: int, reply_destination: str) -> Document:
    """Return a flow from 10.0.0.1 to 203.0.113.80, port 443, with a reply from and to these addresses."""
    entry = flow(destination="203.0.113.80")
    return {
        **entry,
        "status": uapi.IPS_SRC_NAT | uapi.IPS_DST_NAT,
        "reply.source": parse_address(reply_source, ""),
        "reply.source_port": reply_port,
        "reply.destination": parse_address(reply_destination, ""),
    }


def found(entries: list[Any], **options: Any) -> dict[str, Any]:
    endpoints = Endpoints(**options)
    for entry in entries:
        endpoints.add(entry)
    return dict(endpoints.hosts())


# counts


@examples(60)
@given(tables, sides, st.sampled_from(list(ADDRESSES)), separators, st.integers(0, 3))
def test_every_flow_is_counted_once_on_each_side(
    entries: list[Any], of: tuple[str, ...], addresses: str, separate_by: list[str], room: int
) -> None:
    endpoints = Endpoints(of, addresses, separate_by, max_listed=room)
    endpoints.set_source("gw1", LabelMap())
    for entry in entries:
        endpoints.add(entry)
    hosts = dict(endpoints.hosts())
    assert endpoints.flows == len(entries)
    for side in of:
        roles = [variables[f"conntrack_as_{side}"] for variables in hosts.values()]
        assert sum(role["flows"] for role in roles) + endpoints.left_out[side] == len(entries)
        for role in roles:
            for listed in ("peers", "services"):
                assert len(role[listed]) <= room
                assert sum(row["flows"] for row in role[listed].values()) + role[f"other_{listed}"] == role["flows"]
    for variables in hosts.values():
        assert variables["conntrack_flows"] == sum(variables[f"conntrack_as_{side}"]["flows"] for side in of)


@examples(30)
@given(tables, st.sampled_from(list(ADDRESSES)))
def test_hosts_and_numbers_agree_with_info(entries: list[Any], addresses: str) -> None:
    shown = [to_document(entry) for entry in entries]
    hosts = found(entries, addresses=addresses, separate_by=())
    for side, (tuple_, end) in zip(SIDES, PLACES[addresses], strict=True):
        expected = Counter(document[tuple_][end] for document in shown)
        moved: Counter[str] = Counter()
        for document in shown:
            counters = document["counters"].values()
            moved[document[tuple_][end]] += sum(direction["bytes"] for direction in counters)
        roles = {name: variables[f"conntrack_as_{side}"] for name, variables in hosts.items()}
        got = {name: (role["flows"], role["bytes"]) for name, role in roles.items() if role["flows"]}
        assert got == {
            address: (flows, moved[address])
            for address, flows in expected.items()
            if is_host(parse_address(address, ""))
        }


@examples(30)
@given(tables, st.sampled_from(list(ADDRESSES)), st.integers(0, 3), st.booleans())
def test_scan_of_messages_agrees_with_entries(
    entries: list[Any], addresses: str, pending: int, accounted: bool
) -> None:
    """Messages are read differently from entries, and equal messages are counted first."""
    entries = [
        {key: value for key, value in entry.items() if accounted or not key.startswith("counters.")}
        for entry in entries * 2
    ]
    layouts, scanned = LayoutCache(ENTRIES), Endpoints(addresses=addresses)
    scanned.set_source("gw1", LabelMap({"voice": 1}))
    messages = [
        wire.framed(0x0100, 2, 1, bytes([entry["family"], 0, 0, 0]) + ENTRIES.encode(entry)) for entry in entries
    ]
    with mock.patch.object(flow_hosts, "_PENDING", pending):
        DumpDecoder(scanned, layouts=layouts).feed(b"".join(messages))
        scanned.finish()

    added = Endpoints(addresses=addresses)
    added.set_source("gw1", LabelMap({"voice": 1}))
    for entry in entries:
        added.add(entry)
    assert dict(scanned.hosts()) == dict(added.hosts())


@examples(100)
@given(st.lists(odd_messages(), max_size=4), st.sampled_from(list(ADDRESSES)))
def test_scan_of_odd_messages_agrees_with_the_general_decoder(payloads: list[bytes], addresses: str) -> None:
    scanned, added = Endpoints(addresses=addresses), Endpoints(addresses=addresses)
    messages = [wire.framed(0x0100, 2, 1, payload) for payload in payloads]
    DumpDecoder(scanned, layouts=LayoutCache(ENTRIES)).feed(b"".join(messages))
    scanned.finish()
    for payload in payloads:
        added.add({"family": payload[0], **ENTRIES.decode(payload, 4)})
    assert dict(scanned.hosts()) == dict(added.hosts())


def test_host_has_the_documented_variables() -> None:
    counters = {f"counters.{direction}.bytes": size for direction, size in (("original", 100), ("reply", 50))}
    endpoints = Endpoints()
    endpoints.set_source("gw1", LabelMap({"voice": 5}))
    endpoints.add({**flow(mark=16, labels=[5, 6], helper="ftp"), **counters})
    endpoints.add({**flow(port=80, mark=16), **counters})
    assert dict(endpoints.hosts())["10.0.0.1"] == {
        "ansible_host": "10.0.0.1",
        "conntrack_address": "10.0.0.1",
        "conntrack_family": "ipv4",
        "conntrack_gateways": ["gw1"],
        "conntrack_flows": 2,
        "conntrack_bytes": 300,
        "conntrack_as_source": {
            "flows": 2,
            "bytes": 300,
            "peers": {"10.0.0.9": {"flows": 2, "bytes": 300}},
            "other_peers": 0,
            "services": {"tcp/80": {"flows": 1, "bytes": 150}, "tcp/443": {"flows": 1, "bytes": 150}},
            "other_services": 0,
        },
        "conntrack_as_destination": {
            "flows": 0,
            "peers": {},
            "other_peers": 0,
            "services": {},
            "other_services": 0,
        },
        "conntrack_zones": [0],
        "conntrack_marks": [16],
        "conntrack_labels": ["6", "voice"],
        "conntrack_helpers": ["ftp"],
        "conntrack_cut": [],
    }


def test_bytes_require_accounting() -> None:
    """Zero would mean that no bytes were transferred."""
    host = found([flow()])["10.0.0.1"]
    assert "conntrack_bytes" not in host
    assert host["conntrack_as_source"]["peers"] == {"10.0.0.9": {"flows": 1}}


def test_protocol_without_ports_is_a_separate_service() -> None:
    ping = from_document(
        {
            "protocol": "icmp",
            "original": {"source": "10.0.0.1", "destination": "10.0.0.9", "icmp_type": 8, "icmp_code": 0, "icmp_id": 1},
        }
    )
    portless = {**ping, "original.protocol": uapi.IPPROTO_DCCP}
    services = found([ping, portless, {**portless, "original.destination_port": 5}], addresses="as_client_sees")
    assert set(services["10.0.0.9"]["conntrack_as_destination"]["services"]) == {"icmp", "dccp", "dccp/5"}


# addresses


@pytest.mark.parametrize(
    ("addresses", "client", "server", "service"),
    [
        ("own", "10.0.0.1", "10.9.0.7", "tcp/8443"),
        ("as_client_sees", "10.0.0.1", "203.0.113.80", "tcp/443"),
        ("as_server_sees", "198.51.100.1", "10.9.0.7", "tcp/8443"),
    ],
)
def test_addresses_selects_the_side_of_nat(addresses: str, client: str, server: str, service: str) -> None:
    """A play on a virtual address runs on the gateway, and a play on a backend runs on the host where the flow ends."""
    hosts = found([nated_flow("10.9.0.7", 8443, "198.51.100.1")], addresses=addresses)
    assert set(hosts) == {client, server}
    assert set(hosts[client]["conntrack_as_source"]["peers"]) == {server}
    assert set(hosts[server]["conntrack_as_destination"]["services"]) == {service}


def test_flow_without_a_reply_has_no_destination_host() -> None:
    """The kernel always has one, but a file may lack it."""
    entry = {key: value for key, value in flow().items() if not key.startswith("reply.")}
    assert set(found([entry])) == {"10.0.0.1"}


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.251", "ff02::fb", "255.255.255.255", "169.254.1.1", "fe80::1"],
)
def test_special_addresses_are_not_hosts(address: str) -> None:
    """A host 127.0.0.1 would be localhost in all plays."""
    other = "2001:db8::1" if ":" in address else "10.0.0.1"
    endpoints = Endpoints()
    endpoints.add(flow(address, other))
    endpoints.add(flow(other, address))
    hosts = dict(endpoints.hosts())
    assert set(hosts) == {other}
    assert endpoints.left_out == {"source": 1, "destination": 1}
    assert set(hosts[other]["conntrack_as_source"]["peers"]) == {address}, "a peer may have a special address"


@pytest.mark.parametrize("address", ["10.0.0.255", "203.0.113.1", "2001:db8::1", "fd00::1", "100.64.0.1"])
def test_ordinary_addresses_are_hosts(address: str) -> None:
    assert is_host(parse_address(address, ""))


# hosts


def test_overlapping_networks_are_separated_by_zone() -> None:
    """Otherwise a play for one tenant's database would run on another's."""
    entries = [flow(), flow(zone=7), {**flow(number=3), "original.zone": 8}]
    assert {name: host["conntrack_zones"] for name, host in found(entries).items()} == {
        "10.0.0.1": [0],
        "10.0.0.1@zone7": [7],
        "10.0.0.1@zone8": [8],
        "10.0.0.9": [0],
        "10.0.0.9@zone7": [7],
    }
    assert set(found(entries, separate_by=())) == {"10.0.0.1", "10.0.0.9"}
    assert found(entries)["10.0.0.1@zone7"]["ansible_host"] == "10.0.0.1"


def test_gateways_are_listed_and_may_separate_hosts() -> None:
    def seen(separate_by: tuple[str, ...]) -> Any:
        endpoints = Endpoints(separate_by=separate_by)
        for name, entries in (("gw1", [flow(), flow(zone=7)]), ("gw2", [flow()])):
            endpoints.set_source(name, LabelMap())
            for entry in entries:
                endpoints.add(entry)
        hosts = dict(endpoints.hosts())
        return {name: host["conntrack_gateways"] for name, host in hosts.items() if "0.1" in name}

    assert seen(()) == {"10.0.0.1": ["gw1", "gw2"]}
    assert seen(("gateway",)) == {"10.0.0.1@gw1": ["gw1"], "10.0.0.1@gw2": ["gw2"]}
    assert seen(("zone", "gateway")) == {
        "10.0.0.1@gw1": ["gw1"],
        "10.0.0.1@gw2": ["gw2"],
        "10.0.0.1@zone7@gw1": ["gw1"],
    }


@pytest.mark.parametrize("name", ["", "a,b", "{{ 1 }}", "a:b", "-x", "é", "a b", "x" * 300, "gw1\n"])
def test_invalid_gateway_name_is_refused_in_host_names(name: str) -> None:
    Endpoints().set_source(name, LabelMap())  # without separate_by, it is not part of a host name
    with pytest.raises(InvalidValue, match="separate_by: the gateway .* give it another name"):
        Endpoints(separate_by=["gateway"]).set_source(name, LabelMap())


def test_labels_have_the_names_of_their_gateway() -> None:
    endpoints = Endpoints()
    for names in ({"voice": 5}, {"video": 5}):
        endpoints.set_source("gw", LabelMap(names))
        endpoints.add(flow(labels=[5]))
    assert set(dict(endpoints.hosts())["10.0.0.1"]["conntrack_labels"]) == {"voice", "video"}


def test_hosts_are_sorted_by_address() -> None:
    entries = [flow(source) for source in ("10.0.0.10", "10.0.0.9", "9.0.0.1")]
    entries += [flow("2001:db8::1", "2001:db8::2"), flow("9.0.0.1", zone=3)]
    hosts = list(found(entries, sides=("source",)))
    assert hosts == ["9.0.0.1", "9.0.0.1@zone3", "10.0.0.9", "10.0.0.10", "2001:db8::1"]


# limits


def test_limit_of_hosts_is_checked_while_reading() -> None:
    """A play on some of the hosts would look like a play on all hosts."""
    endpoints = Endpoints(("source",), max_hosts=2)
    for source in ("10.0.0.1", "10.0.0.2", "10.0.0.1"):
        endpoints.add(flow(source))
    with pytest.raises(InvalidValue, match="max_hosts: there are more than 2 hosts .* narrow match"):
        endpoints.add(flow("10.0.0.3"))


def test_largest_values_are_listed_and_others_counted() -> None:
    entries = [flow(destination=f"10.0.0.{n}", port=n, mark=n, number=k) for n in range(1, 6) for k in range(n)]
    host = found(entries, sides=("source",), max_listed=3)["10.0.0.1"]
    role = host["conntrack_as_source"]
    assert {peer: row["flows"] for peer, row in role["peers"].items()} == {"10.0.0.5": 5, "10.0.0.4": 4, "10.0.0.3": 3}
    assert list(role["services"]) == ["tcp/5", "tcp/4", "tcp/3"]
    assert (role["other_peers"], role["other_services"]) == (3, 3)
    assert host["conntrack_marks"] == [5, 4, 3]
    assert host["conntrack_cut"] == ["marks"]


def test_memory_is_limited_for_any_number_of_ports() -> None:
    tally = Tally()
    for port in range(60_000):
        tally.add((6, port), 1, 1, 20)
        assert len(tally.rows) <= 40
    tally.cut(20)
    assert sum(flows for flows, _moved in tally.rows.values()) + tally.others == 60_000


def test_frequent_value_is_listed() -> None:
    """It alternates with new ones, each of which occurs only once."""
    tally = Tally()
    for number in range(3000):
        tally.add("often" if number % 3 == 0 else f"{number:05}", 1, 0, 5)
    tally.cut(5)
    assert tally.rows["often"][0] == 1000
