# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes of addresses, routes, policy rules, settings and zones, with the same ruleset before and after."""

from __future__ import annotations

from .base import RULES, instead, ip, nft, sysctl
from .comparison import Case, Step
from .flows import Flow
from .packets import TCP, Tuple


def _network(
    name: str, *steps: Step, undecidable: bool = False, before: tuple[Step, ...] = (), rules: str = ""
) -> Case:
    return Case(name, [*before, instead(RULES + rules)], list(steps), undecidable)


_OF_ADDRESSES = [
    _network("all addresses of a network are gone", ip("address del 203.0.113.1/24 dev wan")),
    _network(
        "an address is gone",
        ip("address del 203.0.113.1/24 dev wan"),
        before=(sysctl("ipv4/conf/wan/promote_secondaries", 1),),
    ),
    _network("an inside address is gone", ip("address del 10.1.0.1/24 dev lan\naddress add 10.1.0.250/24 dev lan")),
    _network("a new address", ip("address add 203.0.113.9/24 dev wan\naddress add 10.30.0.80/32 dev lo")),
    _network(
        "another first address",
        ip("address del 203.0.113.1/24 dev wan\naddress add 203.0.113.1/24 dev wan"),
        before=(sysctl("ipv4/conf/wan/promote_secondaries", 1),),
    ),
    _network("another IPv6 address", ip("address add 2001:db8:100::77/64 dev wan nodad", 6)),
    _network("a deprecated IPv6 address", ip("address change 2001:db8:100::1/64 dev wan preferred_lft 0", 6)),
    _network(
        "an address that was deprecated already",
        before=(ip("address change 2001:db8:100::1/64 dev wan preferred_lft 0", 6),),
    ),
]
_OF_ROUTES = [
    _network("the other uplink", ip("route replace default via 192.0.2.254 dev wan2")),
    _network("the other uplink for IPv6", ip("route replace default via 2001:db8:200::fe dev wan2", 6)),
    _network("some networks by the other uplink", ip("route add 198.51.100.128/25 via 192.0.2.254 dev wan2")),
    _network("no default route", ip("route del default"), ip("route del default", 6)),
    _network(
        "an unreachable network", ip("route add unreachable 198.51.100.0/28\nroute add prohibit 198.51.100.70/32")
    ),
    _network("a blackhole", ip("route add blackhole 198.51.100.0/28"), ip("route add blackhole 2001:db8:9::/122", 6)),
    _network("a host by another link", ip("route add 10.10.0.80/32 dev lan")),
    _network("a policy rule by source", ip("rule add from 10.10.0.0/24 lookup 102 priority 900")),
    _network(
        "a policy rule by link",
        ip("rule add iif lan lookup 102 priority 900"),
        ip("rule add iif lan lookup 102 priority 900", 6),
    ),
    _network("no policy rule for marks", ip("rule del fwmark 2 lookup 102"), ip("rule del fwmark 2 lookup 102", 6)),
    _network(
        "a rule that refuses",
        ip("rule add from 10.1.0.8/29 prohibit priority 800\nrule add to 198.51.100.9 blackhole priority 801"),
    ),
    _network("an uplink is down", ip("link set wan2 down")),
    _network("nexthop objects", ip("nexthop add id 7 via 192.0.2.254 dev wan2\nroute add 198.51.100.0/28 nhid 7")),
    _network(
        "a group of nexthop objects",
        ip("nexthop add id 7 via 192.0.2.254 dev wan2\nnexthop add id 9 group 7\nroute add 198.51.100.0/28 nhid 9", 0),
    ),
    _network(
        "several next hops",
        ip("route replace default nexthop via 203.0.113.254 dev wan nexthop via 192.0.2.254 dev wan2"),
        undecidable=True,
    ),
]
_OF_SETTINGS = [
    _network("no forwarding", sysctl("ipv4/ip_forward", 0)),
    _network("no forwarding of IPv6", sysctl("ipv6/conf/all/forwarding", 0)),
    _network("no forwarding by one link", sysctl("ipv4/conf/lan/forwarding", 0)),
    _network("strict reverse path filter", sysctl("ipv4/conf/all/rp_filter", 1)),
    _network("strict reverse path filter before", before=(sysctl("ipv4/conf/wan2/rp_filter", 1),)),
    _network("loose tracking", sysctl("netfilter/nf_conntrack_tcp_loose", 0)),
]
_ZONES = """
table ip zones {
    chain prerouting {
        type filter hook prerouting priority raw; policy accept;
        iifname "vlan10" ct zone set 10
        iifname "dmz" ct zone set 30
    }
}
"""
_OF_ZONES = [
    _network(
        "zones stay",
        nft("insert rule inet filter forward ip saddr 10.10.0.0/29 drop"),
        rules=_ZONES,
    ),
    _network(
        "zones of one direction stay",
        nft('insert rule inet filter forward iifname "vlan10" tcp dport 443 reject with tcp reset'),
        rules=_ZONES.replace("ct zone", "ct original zone"),
    ),
    _network("a link gets a zone", nft(_ZONES.replace("vlan10", "vlan20"))),
    _network(
        "a zone is required",
        nft("insert rule inet filter forward ct zone 10 meta l4proto { tcp, udp } drop"),
        rules=_ZONES,
    ),
]

_UPLINKS = """
table ip uplinks {
    chain prerouting {
        type filter hook prerouting priority mangle - 5; policy accept;
        iifname "wan2" ct mark set 2
        iifname "dmz" ct mark 2 meta mark set ct mark
    }
    chain output { type route hook output priority mangle - 5; policy accept; ct mark 2 meta mark set ct mark; }
}
"""


def _overlapping() -> list[Flow]:
    """Return flows of two hosts that have the same address in two VLANs."""
    server = "198.51.100.7"
    ports = (22, 80, 443, 8080)
    ten = [("vlan10", Tuple(TCP, "10.50.0.5", server, 30_000 + port, port)) for port in ports]
    return ten + [("vlan20", Tuple(TCP, "10.50.0.5", server, 40_000 + port, port)) for port in ports]


_OF_WAYS_IN = [
    _network(
        "uplinks by the mark of the connection",
        nft("insert rule inet filter forward tcp dport 8443 drop"),
        before=(ip("rule del from 192.0.2.1 lookup 102"),),
        rules=_UPLINKS,
    ),
    Case(
        "zones for equal addresses",
        [
            ip("address add 10.50.0.1/24 dev vlan10\naddress add 10.50.0.2/24 dev vlan20"),
            instead(RULES + _ZONES.replace('"dmz"', '"vlan20"')),
        ],
        [nft("insert rule inet filter forward tcp dport { 80, 443 } ip saddr 10.50.0.0/24 drop")],
        flows=_overlapping(),
    ),
]

CASES = [*_OF_ADDRESSES, *_OF_ROUTES, *_OF_SETTINGS, *_OF_ZONES, *_OF_WAYS_IN]
