# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A router with rules, for the tests of stale flows."""

from __future__ import annotations

import pytest

from tests.lab import Host, Lab

#: The address of the router in its network `wan`.
OUTSIDE = "203.0.113.1"
RULES = """
table inet filter {
    set blocked { type ipv4_addr; elements = { 10.1.0.66 }; }
    chain input {
        type filter hook input priority 0; policy accept;
        tcp dport 23 reject with tcp reset
    }
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        ip saddr @blocked counter drop comment "blocked hosts"
        iifname "lan" oifname "wan" accept
        iifname "wan" ct status dnat accept
        tcp dport 2222 limit rate 5/second accept comment "slowly"
    }
}
table ip raw {
    chain prerouting {
        type filter hook prerouting priority -300; policy accept;
        udp dport 6081 notrack
    }
}
table ip nat {
    map services { type inet_service : ipv4_addr . inet_service; elements = { 8080 : 10.1.0.80 . 80 }; }
    chain prerouting {
        type nat hook prerouting priority -100; policy accept;
        ip daddr 203.0.113.1 dnat to tcp dport map @services
    }
    chain postrouting {
        type nat hook postrouting priority 100; policy accept;
        oifname "wan" ip saddr 10.1.0.0/24 masquerade comment "to the internet"
    }
}
"""


@pytest.fixture
def gateway(lab: Lab, tun: None) -> Host:
    """Return a router between `lan` and `wan`, with RULES and no flows."""
    gateway, lan, wan = lab.host("gateway", forwarding=True), lab.host("lan"), lab.host("wan")
    lab.link(gateway, lan, ["10.1.0.1/24", "2001:db8:1::1/64"])
    lab.link(gateway, wan, [f"{OUTSIDE}/24", "2001:db8:2::1/64"])
    gateway.route("default", "203.0.113.254")
    gateway.route("default", "2001:db8:2::ff")
    gateway.nft(RULES)
    return gateway
