# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes whose result depends on chance, on the time, or on data that the table does not contain."""

from __future__ import annotations

from .base import changed

CASES = [
    changed(
        "a rate limit",
        "insert rule inet filter forward tcp dport 80-443 limit rate over 1/minute drop",
        undecidable=True,
    ),
    changed(
        "random backends",
        "insert rule ip nat dstnat ip daddr 203.0.113.1 tcp dport 80 dnat to numgen random mod 2 map { 0 : "
        "10.30.0.80, 1 : 10.30.0.81 }",
        undecidable=True,
    ),
    changed(
        "backends in turn",
        "insert rule ip nat dstnat ip daddr 203.0.113.1 tcp dport 443 dnat to numgen inc mod 2 map { 0 : "
        "10.30.0.80, 1 : 10.30.0.82 }",
        undecidable=True,
    ),
    changed(
        "backends by a hash",
        "insert rule ip nat dstnat ip daddr 203.0.113.1 tcp dport 80 dnat to jhash ip saddr mod 2 seed "
        "0xdead map { 0 : 10.30.0.80, 1 : 10.30.0.81 }",
    ),
    changed(
        "backends by a random hash",
        "insert rule ip nat dstnat ip daddr 203.0.113.1 tcp dport 80 dnat to jhash ip saddr mod 2 map { 0 : "
        "10.30.0.80, 1 : 10.30.0.81 }",
        undecidable=True,
    ),
    changed("a user", "insert rule inet filter output meta skuid 0 tcp dport 443 drop", undecidable=True),
    changed(
        "a length",
        "insert rule inet filter forward meta length 100-200 drop; insert rule inet filter forward ip ttl < 5 drop",
        undecidable=True,
    ),
    changed("a quota", "insert rule inet filter forward tcp dport 443 quota over 100 bytes drop", undecidable=True),
    changed(
        "a meter",
        "add set inet filter senders { type ipv4_addr; flags dynamic; timeout 1m; }\n"
        "insert rule inet filter forward add @senders { ip saddr limit rate over 1/minute } drop",
        undecidable=True,
    ),
    changed(
        "a limit object",
        "add limit inet filter slow { rate over 1/minute; }\n"
        'insert rule inet filter forward udp dport 53-123 limit name "slow" drop',
        undecidable=True,
    ),
    changed(
        "a set that packets fill",
        "add set inet filter seen { type ipv4_addr; flags dynamic; timeout 1m; }\n"
        "insert rule inet filter forward add @seen { ip daddr }\n"
        "insert rule inet filter forward ip daddr @seen drop",
        undecidable=True,
    ),
    changed(
        "a transparent proxy",
        "table ip proxy { chain prerouting { type filter hook prerouting priority mangle; "
        "tcp dport 80 tproxy to 127.0.0.1:3128; }; }",
        undecidable=True,
    ),
    changed(
        "a transparent socket",
        "table ip proxy { chain prerouting { type filter hook prerouting priority mangle; "
        "tcp dport 443 socket transparent 0 drop; }; }",
        undecidable=True,
    ),
    changed(
        "proxied handshakes",
        "insert rule inet filter input tcp dport 22 synproxy mss 1460 wscale 7 timestamp sack-perm",
        undecidable=True,
    ),
    changed(
        "a type of service",
        "insert rule inet filter forward ip dscp != 0 accept; "
        "insert rule inet filter forward ip ttl < 65 tcp dport 443 drop",
        undecidable=True,
    ),
    changed(
        "the content of a packet", "insert rule inet filter forward udp dport 53 @th,64,8 0x64 drop", undecidable=True
    ),
    changed(
        "a time of the day",
        'insert rule inet filter forward meta hour "00:00"-"23:59" tcp dport 22 drop',
        undecidable=True,
    ),
    changed("a type of link", "insert rule inet filter forward meta iiftype 65534 tcp dport 22 drop", undecidable=True),
    changed(
        "a share of ports",
        'insert rule ip nat srcnat oifname "wan" tcp dport 443 snat to numgen inc mod 3 map { 0 : '
        "203.0.113.1, 1 : 203.0.113.2, 2 : 203.0.113.3 }",
        undecidable=True,
    ),
    changed(
        "a symmetric hash",
        'insert rule ip nat srcnat oifname "wan" snat to symhash mod 3 map { 0 : 203.0.113.1, 1 : '
        "203.0.113.2, 2 : 203.0.113.3 }",
        undecidable=True,
    ),
    changed(
        "a limit that only counts",
        'insert rule inet filter forward limit rate 1/minute counter log prefix "x" level debug',
    ),
    changed("a random sample", "insert rule inet filter forward numgen random mod 10 < 3 drop", undecidable=True),
    changed(
        "a count of connections",
        "insert rule inet filter forward tcp dport 443 ct count over 2 reject",
        undecidable=True,
    ),
]
