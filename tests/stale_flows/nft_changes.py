# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Small changes of a ruleset of nft(8): elements of sets and maps, single rules, chains, policies."""

from __future__ import annotations

from .base import ANY_PORT, changed

_OF_SETS = [
    changed("nothing changes", ""),
    changed("a blocked host", "add element inet filter blocked { 10.1.0.7 }"),
    changed("blocked networks", "add element inet filter blocked { 10.1.0.4/30, 10.20.0.0/24 }"),
    changed("a blocked host is free again", "flush set inet filter blocked; flush set inet filter blocked6"),
    changed("blocked IPv6 hosts", "add element inet filter blocked6 { 2001:db8:1::5-2001:db8:1::9, 2001:db8:20::/64 }"),
    changed("a service is closed", "delete element inet filter services { tcp . 22, udp . 123 }"),
    changed("a service is opened", "add element inet filter services { tcp . 25, udp . 161, tcp . 53 }"),
    changed("pairs of a set change", "flush set inet filter pairs; add element inet filter pairs { 10.30.0.81 . 80 }"),
    changed("ranges of a set shrink", "flush set inet filter ranges"),
    changed(
        "a verdict map sends a link elsewhere",
        'delete element inet filter forwarded { "vlan10" }\n'
        'add element inet filter forwarded { "vlan10" : jump from_lan }',
    ),
    changed("a link is missing in a verdict map", 'delete element inet filter forwarded { "lan" }'),
    changed(
        "a verdict map rejects a link",
        'delete element inet filter forwarded { "dmz" }\nadd element inet filter forwarded { "dmz" : goto rejected }',
    ),
]
_OF_RULES = [
    changed("a network is refused", "insert rule inet filter forward ip saddr 10.10.0.0/28 drop"),
    changed("ports are rejected", "insert rule inet filter forward tcp dport { 80, 8000-9000 } reject with tcp reset"),
    changed("UDP is rejected", "insert rule inet filter forward meta l4proto udp reject with icmpx port-unreachable"),
    changed("new flows to the DMZ are refused", 'insert rule inet filter forward oifname "dmz" ct state new drop'),
    changed(
        "a rule for replies only", 'insert rule inet filter forward ct direction reply tcp dport 80 accept comment "x"'
    ),
    changed(
        "addresses of the original direction",
        "insert rule inet filter forward ct original ip daddr 203.0.113.1 tcp dport 8443 drop",
    ),
    changed("destination NAT is refused", "insert rule inet filter forward ct status dnat tcp dport 8443 drop"),
    changed("the input policy accepts", "chain inet filter input { policy accept; }"),
    changed("the forward policy accepts", "chain inet filter forward { policy accept; }"),
    changed("input is closed", 'insert rule inet filter input iifname != "lo" tcp dport { 22, 80 } drop'),
    changed(
        "the loopback is filtered",
        'insert rule inet filter input iif "lo" meta l4proto { tcp, udp } th dport { 53, 80, 443, 8080 } drop',
    ),
    changed(
        "output is filtered",
        "insert rule inet filter output ip daddr 198.51.100.0/25 meta l4proto { tcp, udp, icmp } reject",
    ),
    changed(
        "output to itself is filtered", "insert rule inet filter output fib daddr type local tcp dport 80-443 drop"
    ),
    changed("an ICMP type is refused", "insert rule inet filter forward icmp type echo-request drop"),
    changed("IPv6 is refused", 'insert rule inet filter forward meta nfproto ipv6 iifname "lan" reject'),
    changed("other protocols are refused", "insert rule inet filter forward meta l4proto { 47, 99, 132, 136 } drop"),
    changed("a chain is emptied", "flush chain inet filter from_lan"),
    changed(
        "a chain gets rules",
        "insert rule inet filter from_lan ip daddr 198.51.100.0/24 tcp dport != { 80, 443 } goto rejected",
    ),
    changed("a chain returns", "insert rule inet filter from_vlan10 th dport 1024-65535 return"),
    changed("the rejecting chain accepts", "insert rule inet filter rejected tcp dport 3306 accept"),
    changed(
        "a route is required",
        "insert rule inet filter forward fib saddr . iif oif missing drop\n"
        "insert rule inet filter forward fib daddr . iif type broadcast drop",
    ),
    changed(
        "a lookup of the local type",
        "insert rule inet filter input fib daddr . iif type != local udp dport 53-500 drop",
    ),
    changed(
        "a filter of the prerouting hook",
        "table ip early { chain early { type filter hook prerouting priority -150; ip daddr 203.0.113.2 drop; }; }",
    ),
    changed(
        "a filter of the postrouting hook",
        'table inet late { chain late { type filter hook postrouting priority 300; oifname "wan" ip saddr 203.0.113.3 drop; }; }',
    ),
    changed("a dormant table", "table inet filter { flags dormant; }"),
    changed(
        "a second filter at another priority",
        "table ip second { chain forward { type filter hook forward priority 10; policy drop; ip daddr 198.51.100.0/24 accept; }; }",
    ),
    changed(
        "untracked protocols",
        "table inet raw { chain prerouting { type filter hook prerouting priority raw; udp dport { 53, 123 } notrack; }\n"
        "chain output { type filter hook output priority raw; udp dport { 53, 123 } notrack; }; }\n"
        "insert rule inet filter forward ct state untracked accept\n"
        "insert rule inet filter input ct state untracked accept",
    ),
    changed(
        "untracked and refused",
        "table inet raw { chain prerouting { type filter hook prerouting priority raw; ip saddr 10.1.0.0/28 tcp dport 443 notrack; }; }",
    ),
    changed(
        "a filter at a link's ingress",
        'table netdev early { chain lan { type filter hook ingress device "lan" priority 0; ip daddr 198.51.100.5 drop; }; }',
    ),
    changed(
        "helper and timeout objects",
        """
        table inet objects {
            ct helper files { type "ftp" protocol tcp; }
            ct timeout fast { protocol tcp; l3proto ip; policy = { established : 100, close : 4 }; }
            chain prerouting {
                type filter hook prerouting priority -100; policy accept;
                tcp dport 8000-8080 ct helper set "files"
                ip protocol tcp ct timeout set "fast"
            }
        }
        insert rule inet filter forward tcp dport 8443 drop
        """,
    ),
    changed(
        "a helper is required",
        """
        table inet objects {
            ct helper names { type "tftp" protocol udp; }
            chain prerouting {
                type filter hook prerouting priority -100; policy accept; udp dport 69 ct helper set "names"
            }
        }
        insert rule inet filter forward meta l4proto udp ct helper != "tftp" drop
        """,
    ),
    changed(
        "marks of connections",
        """
        table inet connmarks {
            chain prerouting {
                type filter hook prerouting priority mangle + 5; policy accept;
                iifname "lan" tcp dport { 80, 8080 } ct mark set 0x10
                ct mark 0x10 meta mark set ct mark
            }
            chain forward { type filter hook forward priority 5; meta mark 0x10 drop; }
        }
        """,
    ),
    changed(
        "marks by a map",
        """
        table ip mapped {
            map marks { type ipv4_addr : mark; flags interval; elements = { 10.1.0.0/29 : 2, 10.1.0.8/29 : 3 }; }
            chain prerouting {
                type filter hook prerouting priority mangle + 5; policy accept; meta mark set ip saddr map @marks
            }
            chain forward { type filter hook forward priority 5; meta mark 3 tcp dport 22-443 drop; }
        }
        """,
    ),
    changed(
        "groups of bits",
        "insert rule inet filter forward ip saddr & 0.0.0.3 == 2 drop\n"
        "insert rule inet filter forward tcp flags & (fin | syn | rst | ack) != syn drop",
    ),
    changed("flags of packets", "insert rule inet filter forward tcp flags syn / fin,syn,rst,ack tcp dport 22 drop"),
]
_OF_NAT = [
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
        "delete element ip nat by_address { 203.0.113.2 . 443 }; add element ip nat by_address { 203.0.113.2 . 443 : 10.30.0.80 }",
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
        'insert rule ip nat srcnat ip saddr 10.1.0.0/28 meta l4proto { tcp, udp } oifname "wan" masquerade to :40000-41000',
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
        "table inet both { chain dstnat { type nat hook prerouting priority -110; tcp dport 443 meta nfproto vmap { ipv4 : continue, ipv6 : accept }; fib daddr type local tcp dport 443 dnat ip to 10.30.0.82:443; }; }",
    ),
    changed(
        "a loop through the gateway",
        'insert rule ip nat srcnat oifname "lan" masquerade; insert rule ip nat dstnat ip daddr 203.0.113.1 udp dport 53 dnat to 10.1.0.80',
    ),
]
_OF_CHANCE = [
    changed(
        "a rate limit",
        "insert rule inet filter forward tcp dport 80-443 limit rate over 1/minute drop",
        undecidable=True,
    ),
    changed(
        "random backends",
        "insert rule ip nat dstnat ip daddr 203.0.113.1 tcp dport 80 dnat to numgen random mod 2 map { 0 : 10.30.0.80, 1 : 10.30.0.81 }",
        undecidable=True,
    ),
    changed(
        "backends in turn",
        "insert rule ip nat dstnat ip daddr 203.0.113.1 tcp dport 443 dnat to numgen inc mod 2 map { 0 : 10.30.0.80, 1 : 10.30.0.82 }",
        undecidable=True,
    ),
    changed(
        "backends by a hash",
        "insert rule ip nat dstnat ip daddr 203.0.113.1 tcp dport 80 dnat to jhash ip saddr mod 2 seed 0xdead map { 0 : 10.30.0.80, 1 : 10.30.0.81 }",
    ),
    changed(
        "backends by a random hash",
        "insert rule ip nat dstnat ip daddr 203.0.113.1 tcp dport 80 dnat to jhash ip saddr mod 2 map { 0 : 10.30.0.80, 1 : 10.30.0.81 }",
        undecidable=True,
    ),
    changed("a user", "insert rule inet filter output meta skuid 0 tcp dport 443 drop", undecidable=True),
    changed(
        "a length",
        "insert rule inet filter forward meta length 100-200 drop; insert rule inet filter forward ip ttl < 5 drop",
        undecidable=True,
    ),
    changed("a random sample", "insert rule inet filter forward numgen random mod 10 < 3 drop", undecidable=True),
    changed(
        "a count of connections",
        "insert rule inet filter forward tcp dport 443 ct count over 2 reject",
        undecidable=True,
    ),
]

CASES = [*_OF_SETS, *_OF_RULES, *_OF_NAT, *_OF_CHANCE]
