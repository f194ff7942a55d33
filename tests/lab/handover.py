# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A network in which one gateway replaces another one."""

from __future__ import annotations

from .lab import Lab, has_ipv6

PORT = 7
FAMILIES = ["ipv4", "ipv6"] if has_ipv6() else ["ipv4"]
SERVER = {"ipv4": "203.0.113.80", "ipv6": "2001:db8:ffff::80"}
#: The addresses of source NAT on the old and on the new gateway.
OLD = {"ipv4": "198.51.100.1", "ipv6": "2001:db8:9::1"}
NEW = {"ipv4": "198.51.100.2", "ipv6": "2001:db8:9::2"}


class Site:
    """A client and a server with two gateways between them. All packets pass the old gateway.

    ::

        client 10.1.0.2 ── inside ┬─ old 10.1.0.1, 203.0.113.1 ─┬ outside ── server 203.0.113.80
                                  └─ new 10.1.0.3, 203.0.113.3 ─┘
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.client, self.server = lab.host("client"), lab.host("server")
        self.old, self.new = lab.host("old", forwarding=True), lab.host("new", forwarding=True)
        inside, outside = lab.switch("inside"), lab.switch("outside")
        lab.link(self.client, inside, ("10.1.0.2/24", "2001:db8:1::2/64"))
        lab.link(self.server, outside, ("203.0.113.80/24", "2001:db8:ffff::80/64"))
        for number, gateway, to in ((1, self.old, OLD), (3, self.new, NEW)):
            lab.link(gateway, inside, (f"10.1.0.{number}/24", f"2001:db8:1::{number}/64"))
            lab.link(gateway, outside, (f"203.0.113.{number}/24", f"2001:db8:ffff::{number}/64"))
            for family in FAMILIES:
                gateway.firewall.snat(to[family], out_interface="outside")
        self.client.route("default", "10.1.0.1")
        self.client.route("default", "2001:db8:1::1")
        self.server.route("198.51.100.0/24", "203.0.113.1")
        self.server.route("2001:db8:9::/64", "2001:db8:ffff::1")
        self.server.mirror(PORT)
        # Behind a switch, IPv6 addresses are tentative for about a second.
        assert all(any(self.client.ping(SERVER[family]) for _attempt in range(5)) for family in FAMILIES)
        for gateway in (self.old, self.new):
            gateway.conntrack("-F")
