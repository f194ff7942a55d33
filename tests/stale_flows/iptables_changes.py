# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes of rulesets of iptables-nft: a router, and a node with services in chains like those of kube-proxy."""

from __future__ import annotations

from .base import ANY_PORT, ip_set, iptables, nft
from .comparison import Case, Step

ROUTER = """
*raw
:PREROUTING ACCEPT
:OUTPUT ACCEPT
{raw}
COMMIT
*mangle
:PREROUTING ACCEPT
:FORWARD ACCEPT
-A PREROUTING -i vlan20 -j MARK --set-xmark 0x2/0xffffffff
{mangle}
COMMIT
*nat
:PREROUTING ACCEPT
:INPUT ACCEPT
:OUTPUT ACCEPT
:POSTROUTING ACCEPT
:PUBLISHED -
{nat}
-A PREROUTING -m addrtype --dst-type LOCAL -j PUBLISHED
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j PUBLISHED
-A PUBLISHED -i lan -p udp --dport 53 -j RETURN
-A PUBLISHED -d 203.0.113.1/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination {web}:8080
-A PUBLISHED -d 203.0.113.1/32 -p tcp -m multiport --dports 443,8443 -j DNAT --to-destination {web}
-A PUBLISHED -d 203.0.113.2/32 -p udp -m udp --dport 53:500 -j DNAT --to-destination 10.30.0.81
-A PREROUTING -i vlan10 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 3128
-A POSTROUTING -s 10.1.0.0/24 -d 10.1.0.0/24 -j MASQUERADE
-A POSTROUTING -s 10.1.0.4/30 -o wan -j SNAT --to-source {address}
-A POSTROUTING -o wan -j MASQUERADE
-A POSTROUTING -o wan2 -j SNAT --to-source 192.0.2.1
COMMIT
*filter
:INPUT DROP
:FORWARD {policy}
:OUTPUT ACCEPT
:REFUSED -
{filter}
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A INPUT -p tcp -m multiport --dports 22,80,443,3128,8000:9000 -j ACCEPT
-A INPUT -i lan -p udp -j ACCEPT
-A INPUT -j REJECT --reject-with icmp-port-unreachable
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT
-A FORWARD -s 10.20.0.66/32 -j REFUSED
-A FORWARD -i lan -j ACCEPT
-A FORWARD -i vlan10 -o wan -j ACCEPT
-A FORWARD -i vlan20 -p tcp -m tcp --tcp-flags SYN,RST,ACK,FIN SYN -j ACCEPT
-A FORWARD -i dmz -m iprange --dst-range 198.51.100.0-198.51.100.100 -j ACCEPT
-A REFUSED -p tcp -j REJECT --reject-with tcp-reset
-A REFUSED -j DROP
COMMIT
"""
_PLAIN = {"raw": "", "mangle": "", "nat": "", "filter": "", "web": "10.30.0.80", "address": "203.0.113.2"}
_PLAIN["policy"] = "DROP"

IPV6 = """
*nat
:PREROUTING ACCEPT
:POSTROUTING ACCEPT
-A PREROUTING -d 2001:db8:100::1/128 -p tcp -m multiport --dports 80,443 -j DNAT --to-destination [{web}]:8080
-A PREROUTING -i lan -p tcp -m tcp --dport 8080 -j REDIRECT --to-ports 3128
-A POSTROUTING -s 2001:db8:10::/64 -o wan -j MASQUERADE
-A POSTROUTING -o wan2 -j SNAT --to-source 2001:db8:200::1
COMMIT
*mangle
:PREROUTING ACCEPT
-A PREROUTING -i vlan20 -j MARK --set-mark 2
COMMIT
*filter
:INPUT ACCEPT
:FORWARD ACCEPT
{filter}
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i wan -p tcp -m tcp --dport 8080 -j ACCEPT
-A FORWARD -i wan -j DROP
COMMIT
"""


def _router(**changes: str) -> Step:
    return iptables(ROUTER.format(**{**_PLAIN, **changes}))


def _changed(name: str, *, undecidable: bool = False, ports: range = range(0), **changes: str) -> Case:
    """Return a case in which the router's ruleset changes: the named places get these rules."""
    return Case(f"iptables: {name}", [_router()], [_router(**changes)], undecidable, ports, (4,))


_OF_ROUTER = [
    _changed("nothing changes"),
    _changed("a service moves", web="10.30.0.82"),
    _changed("another address", address="203.0.113.3"),
    _changed("a range of addresses", address="203.0.113.1-203.0.113.3"),
    _changed("the policy accepts", policy="ACCEPT"),
    _changed(
        "a reset for some ports",
        filter="-A FORWARD -p tcp -m multiport --dports 22,80,8000:8090 -j REJECT --reject-with tcp-reset",
    ),
    _changed("an ICMP error", filter="-A FORWARD -d 198.51.100.0/25 -j REJECT --reject-with icmp-host-prohibited"),
    _changed("destination NAT is refused", filter="-A FORWARD -m conntrack --ctstate DNAT --ctorigdstport 443 -j DROP"),
    _changed("no protocol but TCP", filter="-A FORWARD ! -p tcp -j REFUSED"),
    _changed(
        "source and destination ports",
        filter=(
            "-A FORWARD -p udp -m multiport --ports 53,123 -j DROP\n"
            "-A INPUT -p udp -m udp --sport 1024: --dport 53 -j DROP"
        ),
    ),
    _changed(
        "local addresses", filter="-A INPUT -m addrtype --dst-type LOCAL --limit-iface-in -p tcp --dport 22 -j DROP"
    ),
    _changed("reverse path", raw="-A PREROUTING -m rpfilter --invert -j DROP", filter="-A INPUT -p icmp -j DROP"),
    _changed(
        "untracked",
        raw="-A PREROUTING -p udp -m udp --dport 53 -j CT --notrack\n-A OUTPUT -p udp --dport 123 -j NOTRACK",
        filter="-A FORWARD -m conntrack --ctstate UNTRACKED -j ACCEPT",
    ),
    _changed(
        "a helper",
        raw="-A PREROUTING -p udp -m udp --dport 69 -j CT --helper tftp",
        filter="-A FORWARD -p udp -m helper --helper tftp -j DROP",
    ),
    _changed(
        "marks",
        mangle=(
            "-A PREROUTING -i lan -p tcp -m tcp --dport 443 -j MARK --set-mark 0x2\n"
            "-A FORWARD -m mark --mark 0x2 -d 198.51.100.128/25 -j DROP"
        ),
    ),
    _changed(
        "marks of connections",
        mangle=(
            "-A PREROUTING -i lan -p udp -j CONNMARK --set-mark 7\n"
            "-A PREROUTING -m connmark --mark 7 -j CONNMARK --restore-mark"
        ),
        filter="-A FORWARD -m mark --mark 7 -j REFUSED",
    ),
    _changed("no redirect", nat="-A PREROUTING -i vlan10 -j ACCEPT"),
    _changed(
        "a redirect",
        nat=(
            "-A PREROUTING -i lan -p tcp -m multiport --dports 80,8080 -j REDIRECT --to-ports 3128\n"
            "-A OUTPUT -p udp --dport 53 -j REDIRECT"
        ),
    ),
    _changed("a mapped network", nat="-A POSTROUTING -s 10.1.0.0/28 -o wan -j NETMAP --to 203.0.113.16/28"),
    _changed("random ports", nat="-A POSTROUTING -o wan -j MASQUERADE --random-fully", ports=ANY_PORT),
    _changed(
        "ports in a range",
        nat="-A POSTROUTING -o wan -p udp -j MASQUERADE --to-ports 20000-20500",
        ports=range(20000, 20501),
    ),
    _changed("no source NAT", nat="-A POSTROUTING -j RETURN"),
    _changed(
        "a comment and a counter",
        filter=(
            '-A FORWARD -m comment --comment "no names" -p udp --dport 53 -j LOG\n'
            '-A FORWARD -p udp --dport 53 -m comment --comment "x" -j DROP'
        ),
    ),
    _changed("a limit", filter="-A FORWARD -p tcp -m limit --limit 1/min -j DROP", undecidable=True),
    _changed(
        "a share", filter="-A FORWARD -p tcp -m statistic --mode random --probability 0.5 -j DROP", undecidable=True
    ),
    _changed("an owner", filter="-A OUTPUT -m owner --uid-owner 0 -p tcp -j DROP", undecidable=True),
    _changed(
        "recent",
        filter=(
            "-A FORWARD -p tcp -m recent --set --name seen\n"
            "-A FORWARD -p tcp -m recent --update --hitcount 2 --name seen -j DROP"
        ),
        undecidable=True,
    ),
    _changed("a length", filter="-A FORWARD -p udp -m length --length 0:50 -j DROP", undecidable=True),
    _changed(
        "legacy connection limit", filter="-A FORWARD -p tcp -m connlimit --connlimit-above 1 -j DROP", undecidable=True
    ),
    Case(
        "iptables: ipset",
        [ip_set("blocked", "10.1.0.5"), _router(filter="-A FORWARD -m set --match-set blocked src -j DROP")],
        [ip_set("blocked", "10.1.0.6", "10.1.0.7", "198.51.100.7")],
        undecidable=True,
    ),
    Case(
        "iptables and nft",
        [_router()],
        [nft("table ip own { chain forward { type filter hook forward priority 10; tcp dport { 80, 443 } drop; }; }")],
    ),
]


def _ipv6(name: str, web: str = "2001:db8:30::80", rules: str = "") -> Case:
    before = iptables(IPV6.format(web="2001:db8:30::80", filter=""), 6)
    return Case(f"ip6tables: {name}", [before], [iptables(IPV6.format(web=web, filter=rules), 6)], versions=(6,))


_OF_IPV6 = [
    _ipv6("a service moves", web="2001:db8:30::81"),
    _ipv6("an ICMP type", rules="-A FORWARD -p ipv6-icmp -m icmp6 --icmpv6-type 128 -j DROP"),
    _ipv6(
        "a reset",
        rules=(
            "-A FORWARD -p tcp -m tcp --dport 443 -j REJECT --reject-with tcp-reset\n"
            "-A INPUT -p tcp -m multiport --dports 22,80 -j REJECT"
        ),
    ),
    _ipv6("a network", rules="-A FORWARD -s 2001:db8:1::/125 -j REJECT --reject-with icmp6-adm-prohibited"),
    _ipv6("an extension", rules="-A FORWARD -p udp -m multiport --dports 53,123,443 -j DROP"),
]


def _node(backends: dict[str, list[str]], extra: str = "") -> Step:
    """Return the ruleset of a node: services by address and port, with backends chosen at random."""
    services, chains, declared = [], [], []
    for number, (service, addresses) in enumerate(backends.items()):
        address, port = service.split(":")
        name = f"KUBE-SVC-{number}"
        declared.append(f":{name} -")
        services.append(f"-A KUBE-SERVICES -d {address}/32 -p tcp -m tcp --dport {port} -j {name}")
        for place, backend in enumerate(addresses):
            endpoint = f"KUBE-SEP-{number}-{place}"
            declared.append(f":{endpoint} -")
            left = len(addresses) - place
            chance = f"-m statistic --mode random --probability {1 / left:.11f} " if left > 1 else ""
            chains.append(f"-A {name} {chance}-j {endpoint}")
            chains.append(f"-A {endpoint} -s {backend.split(':')[0]}/32 -j KUBE-MARK-MASQ")
            chains.append(f"-A {endpoint} -p tcp -m tcp -j DNAT --to-destination {backend}")
        if not addresses:
            chains.append(f"-A {name} -j RETURN")
    refused = [
        f"-A KUBE-SERVICES -d {service.split(':')[0]}/32 -p tcp -m tcp --dport {service.split(':')[1]} -j REJECT"
        for service, addresses in backends.items()
        if not addresses
    ]
    lines = [
        "*filter",
        ":INPUT ACCEPT",
        ":FORWARD ACCEPT",
        ":OUTPUT ACCEPT",
        ":KUBE-SERVICES -",
        ":KUBE-FORWARD -",
        "-A INPUT -m conntrack --ctstate NEW -j KUBE-SERVICES",
        "-A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES",
        "-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES",
        "-A FORWARD -j KUBE-FORWARD",
        "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
        "-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT",
        "-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        *refused,
        "COMMIT",
        "*nat",
        ":PREROUTING ACCEPT",
        ":OUTPUT ACCEPT",
        ":POSTROUTING ACCEPT",
        *(":KUBE-SERVICES -", ":KUBE-POSTROUTING -", ":KUBE-MARK-MASQ -"),
        *declared,
        "-A PREROUTING -j KUBE-SERVICES",
        "-A OUTPUT -j KUBE-SERVICES",
        "-A POSTROUTING -j KUBE-POSTROUTING",
        "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000",
        "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
        "-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0",
        "-A KUBE-POSTROUTING -j MASQUERADE --random-fully",
        *services,
        *chains,
        *([extra] if extra else []),
        "COMMIT",
    ]
    return iptables("\n".join(lines) + "\n")


SERVICES = {
    "203.0.113.1:80": ["10.30.0.80:8080", "10.30.0.81:8080"],
    "203.0.113.1:443": ["10.30.0.82:8443"],
    "203.0.113.1:8080": ["10.1.0.80:80", "10.1.0.81:80", "10.1.0.82:80"],
    "203.0.113.2:22": ["10.30.0.80:22"],
    "10.1.0.1:80": ["10.30.0.80:8080", "10.1.0.9:8080"],
}


_OF_SERVICES = [
    Case("services: nothing changes", [_node(SERVICES)], [_node(SERVICES)], True, ANY_PORT, (4,), 150),
    Case(
        "services: a backend is gone",
        [_node(SERVICES)],
        [
            _node(
                {
                    **SERVICES,
                    "203.0.113.1:80": ["10.30.0.80:8080"],
                    "203.0.113.1:8080": ["10.1.0.80:80", "10.1.0.82:80"],
                }
            )
        ],
        True,
        ANY_PORT,
        (4,),
        150,
        frozenset({"10.30.0.81", "10.1.0.81"}),
    ),
    Case(
        "services: single backends move",
        [_node({service: backends[:1] for service, backends in SERVICES.items()})],
        [_node({service: backends[-1:] for service, backends in SERVICES.items()})],
        ports=ANY_PORT,
        versions=(4,),
        published=150,
    ),
    Case(
        "services: no backend is left",
        [_node({service: backends[:1] for service, backends in SERVICES.items()})],
        [_node({service: [] for service in SERVICES})],
        ports=ANY_PORT,
        versions=(4,),
        published=150,
    ),
    Case(
        "services: traffic policy",
        [_node({service: backends[:1] for service, backends in SERVICES.items()})],
        [
            _node(
                {service: backends[:1] for service, backends in SERVICES.items()},
                "-I KUBE-SERVICES ! -s 10.1.0.0/24 -d 203.0.113.1/32 -p tcp -j KUBE-MARK-MASQ",
            )
        ],
        ports=ANY_PORT,
        versions=(4,),
        published=150,
    ),
]

CASES = [*_OF_ROUTER, *_OF_IPV6, *_OF_SERVICES]
