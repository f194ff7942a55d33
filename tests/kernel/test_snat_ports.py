# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The use of SNAT ports: real flows through a gateway until the kernel has no port left, and ranges of real rules."""

from __future__ import annotations

import socket
from collections import Counter
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.types import parse_address
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.socket import NetlinkSocket
from ansible_collections.netops.conntrack.plugins.module_utils.client.reevaluate.snat_ranges import (
    SnatRange,
    ports_of,
    read_snat_ranges,
)
from tests.lab import Gateway, Host, Namespace
from tests.modules import run

TCP, UDP = 6, 17
#: A rule of a chain for source NAT, and what it allows.
RULES: dict[str, tuple[str, list[Any]]] = {
    "an address": ("snat to 198.51.100.1", [("198.51.100.1", "198.51.100.1", None)]),
    "addresses": ("snat to 198.51.100.1-198.51.100.9", [("198.51.100.1", "198.51.100.9", None)]),
    "ports": (
        "meta l4proto tcp counter snat to 198.51.100.1:2000-2999",
        [("198.51.100.1", "198.51.100.1", range(2000, 3000), TCP)],
    ),
    "a port": (
        "ip saddr 10.0.0.0/8 meta l4proto udp snat to 198.51.100.1:5060",
        [("198.51.100.1", "198.51.100.1", range(5060, 5061), UDP)],
    ),
    "masquerade": ('oifname "wan" masquerade random', [(None, None, None)]),
    "masquerade to ports": ("meta l4proto tcp masquerade to :1024-1033", [(None, None, range(1024, 1034), TCP)]),
    "a map": ("snat to ip saddr map { 10.1.0.2 : 198.51.100.7 }", [(None, None, None)]),
    "a map after a value": (
        "meta mark set 5 snat to ip saddr map { 10.1.0.2 : 198.51.100.7 }",
        [(None, None, None)],
    ),
    "several protocols": (
        "meta l4proto { tcp, udp } snat to 198.51.100.1:2000-2999",
        [("198.51.100.1", "198.51.100.1", range(2000, 3000))],
    ),
    "a protocol in the header": (
        "ip protocol udp snat to 198.51.100.1:2000-2999",
        [("198.51.100.1", "198.51.100.1", range(2000, 3000), UDP)],
    ),
    "all protocols but one": (
        "meta l4proto != tcp snat to 198.51.100.1",
        [("198.51.100.1", "198.51.100.1", None)],
    ),
    "no NAT": ("ip saddr 10.1.0.2 accept", []),
}
IPTABLES: dict[str, tuple[str, list[Any]]] = {
    "SNAT": (
        "-p tcp -j SNAT --to-source 198.51.100.1-198.51.100.2:4000-4009",
        [("198.51.100.1", "198.51.100.2", range(4000, 4010), TCP)],
    ),
    "SNAT without ports": ("-j SNAT --to-source 198.51.100.1", [("198.51.100.1", "198.51.100.1", None)]),
    "MASQUERADE": ("-p udp -j MASQUERADE --to-ports 1024-1025", [(None, None, range(1024, 1026), UDP)]),
}


def ranges_of(namespace: Namespace) -> list[SnatRange]:
    with namespace.entered(), NetlinkSocket() as netlink:
        return read_snat_ranges(netlink)


def expected(ranges: list[Any], size: int = 4) -> list[SnatRange]:
    """Return the ranges with these addresses, ports, and protocols if they have one."""
    return [
        SnatRange(
            *(address and parse_address(address, "") for address in (low, high)), ports, *(more or (None,)), (size,)
        )
        for low, high, ports, *more in ranges
    ]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.oldest_and_newest_kernel
def test_ranges_of_nftables(namespace: Namespace, name: str) -> None:
    rule, ranges = RULES[name]
    namespace.nft(f"table ip nat {{ chain postrouting {{ type nat hook postrouting priority srcnat\n{rule}\n}}\n}}")
    assert ranges_of(namespace) == expected(ranges)


@pytest.mark.parametrize("name", IPTABLES)
def test_ranges_of_iptables(namespace: Namespace, name: str) -> None:
    rule, ranges = IPTABLES[name]
    namespace.run(["iptables-nft", "-t", "nat", "-A", "POSTROUTING", *rule.split()])
    assert ranges_of(namespace) == expected(ranges)


def test_ranges_of_ipv6(namespace: Namespace) -> None:
    namespace.nft(
        "table inet nat { chain postrouting { type nat hook postrouting priority srcnat\n"
        "meta l4proto tcp snat ip6 to [2001:db8::1]-[2001:db8::2]:7000-7001\n}\n}"
    )
    ranges = ranges_of(namespace)
    assert ranges == expected([("2001:db8::1", "2001:db8::2", range(7000, 7002), TCP)], size=16)
    assert ports_of(parse_address("2001:db8::2", ""), TCP, ranges).count(False) == 2


def test_ports_of_an_address_are_those_of_all_its_rules() -> None:
    address, other, ipv6 = (parse_address(text, "") for text in ("198.51.100.1", "198.51.100.2", "2001:db8::1"))
    named = SnatRange(address, address, range(2000, 2010), TCP)
    masquerade = SnatRange(None, None, range(3000, 3004))

    def count(of: bytes, *ranges: SnatRange, protocol: int = TCP, outside: bool = False) -> int:
        return ports_of(of, protocol, ranges).count(outside)

    assert count(address) == 64512
    assert count(address, named, masquerade) == 10
    assert count(address, named, masquerade, protocol=UDP) == 4, "the other rule is for TCP"
    assert count(other, named, masquerade) == 4
    assert count(address, named, SnatRange(address, other, range(2005, 2015)), masquerade) == 15
    assert count(address, named, SnatRange(address, other, None)) == 10, "no flow has a port outside of the range"
    assert count(address, named, SnatRange(address, other, None), outside=True) == 64512
    assert count(ipv6, named) == 64512
    of_ipv4, of_ipv6 = masquerade._replace(sizes=(4,)), SnatRange(None, None, None, sizes=(16,))
    assert [count(each, of_ipv4, of_ipv6) for each in (address, ipv6)] == [4, 64512]


@pytest.mark.parametrize(("others", "limit"), [("", 10), ("meta l4proto udp ", 64512)])
def test_ports_show_which_of_two_rules_applies(gateway_lab: Gateway, others: str, limit: int) -> None:
    """A range needs a protocol, so most rulesets have another rule without a range after it."""
    gateway, server, outside = gateway_lab.gateway, gateway_lab.SERVER, gateway_lab.OUTSIDE[0]
    gateway.firewall.clear("snat")
    port = gateway_lab.PORT if not others else 53
    gateway.nft(
        "table ip range { chain postrouting { type nat hook postrouting priority srcnat\n"
        f'oifname "server" udp dport {port} snat to {outside}:1024-1033\n'
        f'oifname "server" {others}snat to {outside}\n}}\n}}'
    )
    sockets = open_flows(gateway_lab.client1, 3, server, gateway_lab.PORT)
    (only,) = used(gateway)
    assert (only["used"], only["limit"]) == (3, limit)
    for one in sockets:
        one.close()


def open_flows(client: Host, number: int, address: str, port: int) -> list[socket.socket]:
    """Send a datagram from this number of ports, and return the sockets."""
    with client.entered():
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _number in range(number)]
    for one in sockets:
        one.connect((address, port))
        one.send(b"?")
    return sockets


def used(gateway: Host, **options: Any) -> list[Any]:
    facts = run(gateway, "conntrack_facts", gather_subset=["!all", "snat_ports", "statistics"], **options)
    found: list[Any] = facts["ansible_facts"]["conntrack"]["snat_ports"]
    return found


@pytest.mark.oldest_and_newest_kernel
def test_packets_are_lost_if_all_ports_are_used(gateway_lab: Gateway) -> None:
    """Two clients share ten ports to one destination. The other destination still has ports."""
    gateway, server, outside = gateway_lab.gateway, gateway_lab.SERVER, gateway_lab.OUTSIDE[0]
    gateway.firewall.clear("snat")
    gateway.nft(
        "table ip range { chain postrouting { type nat hook postrouting priority srcnat\n"
        f'oifname "server" meta l4proto udp snat to {outside}:1024-1033\n}}\n}}'
    )
    before = lost(gateway)
    sockets = [
        *open_flows(gateway_lab.client1, 7, server, gateway_lab.PORT),
        *open_flows(gateway_lab.client2, 9, server, gateway_lab.PORT),
        *open_flows(gateway_lab.client1, 2, server, 53),
    ]
    shared = {"address": outside, "destination": server, "protocol": "udp", "zone": 0, "limit": 10}
    listed = Counter(
        flow["original"]["source"]
        for flow in gateway.table()
        if flow["original"]["destination_port"] == gateway_lab.PORT
    )
    assert listed == {"10.1.0.2": 7, "10.2.0.2": 3}, "the second client has only the remaining ports"
    assert used(gateway) == [
        {
            **shared,
            "destination_port": gateway_lab.PORT,
            "used": 10,
            "usage_percent": 100.0,
            "sources": [{"address": "10.1.0.2", "ports": 7}, {"address": "10.2.0.2", "ports": 3}],
        },
        {
            **shared,
            "destination_port": 53,
            "used": 2,
            "usage_percent": 20.0,
            "sources": [{"address": "10.1.0.2", "ports": 2}],
        },
    ]
    assert lost(gateway) - before >= 6
    (first,) = used(gateway, top=1, match={"source": "10.2.0.2"})
    assert (first["used"], first["sources"]) == (3, [{"address": "10.2.0.2", "ports": 3}])
    for one in sockets:
        one.close()


def lost(gateway: Host) -> int:
    """Return the number of packets that the gateway has dropped as conntrack(8) counts them."""
    counts = Counter[str]()
    for line in gateway.conntrack("-S").splitlines():
        counts.update({name: int(number) for name, _sign, number in (part.partition("=") for part in line.split())})
    return counts["insert_failed"] + counts["drop"]


def test_no_ports_are_used_without_source_nat(namespace: Namespace) -> None:
    namespace.conntrack(*"-I -p udp -s 10.1.0.2 -d 192.0.2.1 --sport 1 --dport 53 -t 600".split())
    assert used(namespace) == []
