# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes of filter rules of nft(8): elements of sets and maps, rules, chains and policies."""

from __future__ import annotations

from .base import changed

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
    changed(
        "a chain returns", "insert rule inet filter from_vlan10 meta l4proto { tcp, udp } th dport 1024-65535 return"
    ),
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
        "table inet late { chain late { type filter hook postrouting priority 300; "
        'oifname "wan" ip saddr 203.0.113.3 drop; }; }',
    ),
    changed("a dormant table", "table inet filter { flags dormant; }"),
    changed(
        "a second filter at another priority",
        "table ip second { chain forward { type filter hook forward priority 10; policy drop; "
        "ip daddr 198.51.100.0/24 accept; }; }",
    ),
    changed(
        "untracked protocols",
        "table inet raw { chain prerouting { type filter hook prerouting priority raw; "
        "udp dport { 53, 123 } notrack; }\n"
        "chain output { type filter hook output priority raw; udp dport { 53, 123 } notrack; }; }\n"
        "insert rule inet filter forward ct state untracked accept\n"
        "insert rule inet filter input ct state untracked accept",
    ),
    changed(
        "untracked and refused",
        "table inet raw { chain prerouting { type filter hook prerouting priority raw; "
        "ip saddr 10.1.0.0/28 tcp dport 443 notrack; }; }",
    ),
    changed(
        "a filter at a link's ingress",
        'table netdev early { chain lan { type filter hook ingress device "lan" priority 0; '
        "ip daddr 198.51.100.5 drop; }; }",
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
    changed(
        "rejected with few errors",
        "insert rule inet filter forward ip daddr 198.51.100.0/28 reject\n"
        "insert rule inet filter output icmp type destination-unreachable limit rate 1/second accept\n"
        "insert rule inet filter output tcp flags rst limit rate 1/second accept",
    ),
    changed("a next hop", "insert rule inet filter forward rt ip nexthop 192.0.2.254 tcp dport { 80, 443 } drop"),
    changed("flags of packets", "insert rule inet filter forward tcp flags syn / fin,syn,rst,ack tcp dport 22 drop"),
]

CASES = [*_OF_SETS, *_OF_RULES]
