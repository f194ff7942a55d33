# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A gateway with two uplinks, VLANs and a DMZ. The test takes the place of its neighbours.

::

    lan      10.1.0.0/24     2001:db8:1::/64     TUN
    vlan10   10.10.0.0/24    2001:db8:10::/64    TUN
    vlan20   10.20.0.0/24    2001:db8:20::/64    TUN
    dmz      10.30.0.0/24    2001:db8:30::/64    Ethernet
    wan      203.0.113.0/24  2001:db8:100::/64   TUN, default route
    wan2     192.0.2.0/24    2001:db8:200::/64   TUN, default route of table 102: for mark 2 and for its own address

The gateway has the address 1 in each network, and 2 and 3 on `wan`.
"""

from __future__ import annotations

from tests.lab.lab import Host

from .links import Ethernet, Link, Tun
from .packets import TCP, Tuple, acknowledgement, answer, first_packet, parse
from .sockets import Sockets

NETWORKS = {"lan": 1, "vlan10": 10, "vlan20": 20, "dmz": 30}
#: Hosts in the DMZ, which have neighbour entries.
DMZ_HOSTS = (*range(2, 12), *range(80, 90))
DMZ_ADDRESS = "02:00:00:00:00:01"


def _configuration() -> dict[str, str]:
    """Return the input of ip(8) by its option for the family."""
    links = ("wan", "wan2", *NETWORKS)
    ipv4, ipv6 = [f"link set {name} up" for name in links], []
    for name, number in NETWORKS.items():
        ipv4.append(f"address add 10.{number}.0.1/24 brd + dev {name}")
        ipv6.append(f"address add 2001:db8:{number}::1/64 dev {name} nodad")
    ipv4 += [f"address add 203.0.113.{number}/24 dev wan" for number in (1, 2, 3)]
    ipv6 += [f"address add 2001:db8:100::{number}/64 dev wan nodad" for number in (2, 1)]
    ipv4.append("address add 192.0.2.1/24 dev wan2")
    ipv6.append("address add 2001:db8:200::1/64 dev wan2 nodad")
    for commands, gateway, second, own in (
        (ipv4, "203.0.113.254", "192.0.2.254", "192.0.2.1"),
        (ipv6, "2001:db8:100::fe", "2001:db8:200::fe", "2001:db8:200::1"),
    ):
        commands += [
            f"route add default via {gateway} dev wan",
            f"route add default via {second} dev wan2 table 102",
            f"rule add from {own} lookup 102 priority 1000",
            "rule add fwmark 2 lookup 102 priority 1001",
        ]
    for host in DMZ_HOSTS:
        neighbour = f"lladdr {DMZ_ADDRESS} dev dmz nud permanent"
        ipv4.append(f"neighbour add 10.30.0.{host} {neighbour}")
        ipv6.append(f"neighbour add 2001:db8:30::{host} {neighbour}")
    return {family: "\n".join(commands) + "\n" for family, commands in (("-4", ipv4), ("-6", ipv6))}


class Gateway(Host):
    """The gateway. `send` sends the first packets of flows through it."""

    def __init__(self) -> None:
        super().__init__("gateway", forwarding=True)
        try:
            self.sysctl("net/ipv6/conf/default/addr_gen_mode", 1)
            self.sysctl("net/ipv4/tcp_syncookies", 2)  # listeners that accept all connections
            self.links: dict[str, Link] = {}
            for name in ("lan", "vlan10", "vlan20", "wan", "wan2", "dmz"):
                link: Link = Ethernet(self, name) if name == "dmz" else Tun(self, name)
                self._cleanup.callback(link.close)
                self.links[name] = link
            for family, commands in _configuration().items():
                self.run(["ip", family, "-batch", "-"], input=commands)
            self._sockets = self._cleanup.enter_context(Sockets(self.entered))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Gateway:
        return self

    def forget(self) -> None:
        """Remove all rules, the flows of the gateway itself, and all entries."""
        self.nft("flush ruleset")
        self.send([])
        self.conntrack("-F")

    def send(self, flows: list[tuple[str, Tuple]]) -> Passed:
        """Send the first packet of each flow on a link, or from a socket if the name of the link is "".

        Return the packets that passed.
        """
        self._sockets.renew()
        self._drain()
        lost = set()
        for name, flow in flows:
            if not (self.links[name].inject(first_packet(flow)) if name else self._sockets.send(flow)):
                lost.add(flow)
        return Passed(self._drain(), self._sockets.delivered(), lost)

    def answer(self, flows: list[tuple[str, Tuple]], passed: Passed) -> None:
        """Let the receivers of forwarded flows answer. The clients of TCP connections then send the acknowledgement."""
        for name, packets in passed.left.items():
            for packet in packets:
                back = answer(packet)
                if back is not None:
                    self.links[name].inject(back)
        for name, flow in flows:
            if name and flow.protocol == TCP:
                self.links[name].inject(acknowledgement(flow))
        self._drain()

    def _drain(self) -> dict[str, list[bytes]]:
        return {name: link.captured() for name, link in self.links.items()}


class Passed:
    """The packets that the gateway sent, by link, and the tuples of packets that it delivered to itself.

    `lost` are the flows that cannot have a packet: their link is down, or the gateway lost their source address.
    """

    def __init__(self, left: dict[str, list[bytes]], delivered: set[Tuple], lost: set[Tuple]) -> None:
        self.left = left
        self.delivered = delivered
        self.lost = lost
        found = {parse(packet) for packets in left.values() for packet in packets}
        self.forwarded: set[Tuple] = {one for one in found if one is not None}
