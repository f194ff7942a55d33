# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes of NAT rules of nft(8)."""

from __future__ import annotations

from .base import ANY_PORT, changed

CASES = [
    changed(
        "a published port moves",
        "delete element ip nat published { 80 }; add element ip nat published { 80 : 10.30.0.81 . 8080 }",
    ),
    changed("a published port is closed", "delete element ip nat published { 443 }"),
    changed(
        "a published port gets another port",
        "delete element ip nat published { 2222 }; add element ip nat published { 2222 : 10.1.0.80 . 2222 }",
    ),
    changed(
        "an address and port move",
        "delete element ip nat by_address { 203.0.113.2 . 443 }; "
        "add element ip nat by_address { 203.0.113.2 . 443 : 10.30.0.80 }",
    ),
    changed("addresses by source are closed", "flush map ip nat by_address"),
    changed(
        "the map of source addresses changes",
        "flush map ip nat by_source; add element ip nat by_source { 10.1.0.0/24 : 203.0.113.3 }",
    ),
    changed("source addresses are masqueraded", "flush map ip nat by_source"),
    changed(
        "an IPv6 service moves",
        "flush map ip6 nat published; add element ip6 nat published { 80 : 2001:db8:30::81 . 80 }",
    ),
    changed(
        "a new published port",
        "insert rule ip nat dstnat ip daddr 203.0.113.3 tcp dport { 8000-9000 } dnat to 10.30.0.82",
    ),
    changed("a new redirect", 'insert rule ip nat dstnat iifname "lan" tcp dport 80 redirect to :3128'),
    changed("a redirect for IPv6", 'insert rule ip6 nat dstnat iifname "lan" udp dport 53 redirect'),
    changed("no source NAT", "flush chain ip nat srcnat"),
    changed("no destination NAT", "flush chain ip nat dstnat; flush chain ip6 nat dstnat"),
    changed(
        "all by one address",
        'flush chain ip nat srcnat; add rule ip nat srcnat oifname { "wan", "wan2" } snat to 203.0.113.3',
    ),
    changed("all by one of three addresses", 'insert rule ip nat srcnat oifname "wan" snat to 203.0.113.1-203.0.113.3'),
    changed(
        "persistently by one of three addresses",
        'insert rule ip nat srcnat oifname "wan" snat to 203.0.113.1-203.0.113.3 persistent',
    ),
    changed(
        "a prefix is translated",
        'insert rule ip nat srcnat oifname "wan" snat ip prefix to ip saddr map { 10.10.0.0/24 : 203.0.113.0/24 }',
    ),
    changed("IPv6 is masqueraded", 'insert rule ip6 nat srcnat oifname "wan" masquerade'),
    changed("a network keeps its addresses", "insert rule ip nat srcnat ip saddr 10.1.0.0/29 accept"),
    changed(
        "NAT to oneself at output",
        "insert rule ip nat output ip daddr 203.0.113.1 tcp dport 80 dnat to 10.30.0.80:8080",
    ),
    changed(
        "NAT of local flows to another host",
        "insert rule ip nat output tcp dport { 443, 8080, 8443 } fib daddr type local dnat to 10.1.0.81:443",
    ),
    changed("a redirect at output", "insert rule ip nat output meta l4proto { tcp, udp } th dport { 53, 80 } redirect"),
    changed(
        "a redirect at output that is refused",
        'insert rule inet filter input iif "lo" tcp dport 3128 drop',
        first="insert rule ip nat output tcp dport { 80, 443 } redirect to :3128",
    ),
    changed("NAT at input", "insert rule ip nat input ip saddr 10.1.0.0/24 snat to 10.1.0.1"),
    changed(
        "a static port",
        'insert rule ip nat srcnat udp dport 5060 oifname "wan" masquerade to :5060-5061',
        ports=range(5060, 5062),
    ),
    changed(
        "a range of ports",
        'insert rule ip nat srcnat ip saddr 10.1.0.0/28 meta l4proto { tcp, udp } oifname "wan" masquerade '
        "to :40000-41000",
        ports=range(40000, 41001),
    ),
    changed("random ports", 'insert rule ip nat srcnat oifname "wan" masquerade random', ports=ANY_PORT),
    changed(
        "random ports stay random",
        "",
        ports=ANY_PORT,
        first='insert rule ip nat srcnat oifname "wan" masquerade fully-random',
    ),
    changed(
        "destination ports in a range",
        "insert rule ip nat dstnat ip daddr 203.0.113.3 tcp dport 8000 dnat to 10.30.0.82:9000-9010",
    ),
    changed(
        "NAT for both families",
        "table inet both { chain dstnat { type nat hook prerouting priority -110; "
        "tcp dport 443 meta nfproto vmap { ipv4 : continue, ipv6 : accept }; "
        "fib daddr type local tcp dport 443 dnat ip to 10.30.0.82:443; }; }",
    ),
    changed(
        "a loop through the gateway",
        'insert rule ip nat srcnat oifname "lan" masquerade; '
        "insert rule ip nat dstnat ip daddr 203.0.113.1 udp dport 53 dnat to 10.1.0.80",
    ),
]
