# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A throw-away network: hosts, links between them, and one topology that most tests need."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable
from typing import TypeVar

from tests import clock

from .delay import Delay
from .namespace import Namespace
from .traffic import Endpoint, Flow, Mirror, ping

Kept = TypeVar("Kept", bound=Namespace)

LOCAL_TABLE = 255  # RT_TABLE_LOCAL: the routes to the host's own addresses
IFA_F_NODAD = 0x02  # an address that is used immediately, without duplicate address detection


class Host(Namespace):
    """A namespace with links to others, which can send and answer packets."""

    def __init__(self, name: str, forwarding: bool = False) -> None:
        super().__init__(name)
        if forwarding:
            self.sysctl("net.ipv4.ip_forward", 1)
            if has_ipv6():
                self.sysctl("net.ipv6.conf.all.forwarding", 1)
        if has_ipv6():
            self.sysctl("net.ipv6.conf.default.accept_dad", 0)  # link-local addresses are usable immediately

    # its links, addresses and routes

    def address(self, interface: str, *addresses: str) -> None:
        """Add addresses to an interface, such as "10.1.0.1/24" or "2001:db8::1/64"; IPv6 only if the kernel has it."""
        with self.rtnetlink() as rtnetlink:
            index = rtnetlink.link_lookup(ifname=interface)[0]
            for address in addresses:
                if ":" not in address:
                    broadcast = str(ipaddress.ip_interface(address).network.broadcast_address)
                    rtnetlink.addr("add", index=index, address=address, broadcast=broadcast)
                elif has_ipv6():
                    rtnetlink.addr("add", index=index, address=address, flags=IFA_F_NODAD)

    def route(self, destination: str, via: str) -> None:
        """Add a route, to a network such as "10.2.0.0/24", or to "default" in the family of the gateway."""
        if ":" in via and not has_ipv6():
            return
        family = socket.AF_INET6 if ":" in via else socket.AF_INET
        with self.rtnetlink() as rtnetlink:
            rtnetlink.route("add", dst=destination, gateway=via, family=family)

    def wait_for_links(self) -> None:
        """Wait until each link is up and has its link-local address. The kernel does both in the background.

        :raises TimeoutError: if a link does not come up.
        """

        def waiting() -> list[str]:
            with self.rtnetlink() as rtnetlink:
                links = [one for one in rtnetlink.get_links() if one.get_attr("IFLA_IFNAME") != "lo"]
                local = {
                    route.get_attr("RTA_OIF")
                    for route in rtnetlink.get_routes(family=socket.AF_INET6, table=LOCAL_TABLE)
                    if str(route.get_attr("RTA_DST")).startswith("fe80:")
                }
            return [
                one.get_attr("IFLA_IFNAME")
                for one in links
                if one.get_attr("IFLA_OPERSTATE") != "UP" or (has_ipv6() and one["index"] not in local)
            ]

        clock.wait_until(lambda: not waiting(), lambda: f"{self.name}: not up: {waiting()}", pause=0.05)

    def delay(self, other: Host, seconds: float) -> None:
        """Link two hosts without Ethernet, with a delay of this number of seconds; see `Lab.slow_link`."""
        self._cleanup.callback(Delay(self, other, seconds).close)

    # its traffic

    def mirror(self, port: int) -> Mirror:
        """Answer on a TCP and a UDP port, until the host is closed."""
        mirror = Mirror(self.entered, port)
        self._cleanup.callback(mirror.close)
        return mirror

    def tcp(self, address: str, port: int, source_port: int = 0) -> Flow:
        """Open a TCP connection to a mirror.

        :raises OSError: if no host answers, or the host refuses the connection.
        """
        return self._closed_at_the_end(Flow(self.entered, socket.SOCK_STREAM, Endpoint(address, port), source_port))

    def udp(self, address: str, port: int, source_port: int = 0) -> Flow:
        """Open a UDP flow to a mirror. This sends no packet."""
        return self._closed_at_the_end(Flow(self.entered, socket.SOCK_DGRAM, Endpoint(address, port), source_port))

    def _closed_at_the_end(self, flow: Flow) -> Flow:
        self._cleanup.callback(flow.close)
        return flow

    def ping(self, address: str, identifier: int | None = None, count: int = 1) -> int:
        """Return the number of ICMP echo requests that were answered."""
        return ping(self.entered, address, identifier, count)


class Switch(Namespace):
    """A bridge in its own namespace. All links to it share one network."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        with self.rtnetlink() as rtnetlink:
            rtnetlink.link("add", ifname="bridge", kind="bridge")
            self.bridge = rtnetlink.link_lookup(ifname="bridge")[0]
            rtnetlink.link("set", index=self.bridge, state="up")


class Lab:
    """Hosts and links that are removed together: after the block, after a failure in it, or with this process."""

    def __init__(self) -> None:
        self.hosts: dict[str, Namespace] = {}

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove every host, the last one first."""
        while self.hosts:
            self.hosts.popitem()[1].close()

    def host(self, name: str, forwarding: bool = False) -> Host:
        """Add a host. With forwarding, it is a router."""
        return self._keep(Host(name, forwarding))

    def switch(self, name: str) -> Switch:
        """Add a switch."""
        return self._keep(Switch(name))

    def paths(self) -> dict[str, str]:
        """Return the path of each namespace, for an inventory or a netns option."""
        return {name: host.path for name, host in self.hosts.items()}

    def link(
        self, left: Namespace, right: Namespace, of_left: Iterable[str] = (), of_right: Iterable[str] = ()
    ) -> None:
        """Link two hosts. The interface on each side has the name of the other side and these addresses."""
        with left.rtnetlink() as rtnetlink, open(right.path, "rb") as there:
            rtnetlink.link(
                "add", kind="veth", ifname=right.name, peer={"ifname": left.name, "net_ns_fd": there.fileno()}
            )
        for here, there_, addresses in ((left, right.name, of_left), (right, left.name, of_right)):
            with here.rtnetlink() as rtnetlink:
                index = rtnetlink.link_lookup(ifname=there_)[0]
                if isinstance(here, Switch):
                    rtnetlink.link("set", index=index, master=here.bridge)
                rtnetlink.link("set", index=index, state="up")
            if isinstance(here, Host):
                here.address(there_, *addresses)

    def slow_link(
        self, left: Host, right: Host, seconds: float, of_left: Iterable[str] = (), of_right: Iterable[str] = ()
    ) -> None:
        """Link two hosts as `link` does, but without Ethernet and with a delay of this number of seconds.

        :raises unittest.SkipTest: on a kernel without TUN.
        """
        left.delay(right, seconds)
        for here, there, addresses in ((left, right.name, of_left), (right, left.name, of_right)):
            here.address(there, *addresses)

    def gateway_topology(self) -> Gateway:
        """Create two clients, a gateway with source NAT, and a server without a route to the clients."""
        return Gateway(self)

    def _keep(self, host: Kept) -> Kept:
        if host.name in self.hosts:
            host.close()
            raise ValueError(f"there is a host {host.name} already")
        self.hosts[host.name] = host
        return host


class Gateway:
    """Two clients behind a gateway with source NAT, and a server outside with a mirror on port 7.

    ::

        client1 10.1.0.2, 2001:db8:1::2 ──┐
                                       gateway ── server 203.0.113.80, 2001:db8:ffff::80
        client2 10.2.0.2, 2001:db8:2::2 ──┘

    The gateway owns two outside addresses of each family. Its rule for source NAT uses the first address, and can
    change to the second.
    """

    CLIENTS = ("10.1.0.2", "10.2.0.2")
    OUTSIDE = ("203.0.113.1", "203.0.113.2")
    OUTSIDE_IPV6 = ("2001:db8:ffff::1", "2001:db8:ffff::2")
    SERVER = "203.0.113.80"
    SERVER_IPV6 = "2001:db8:ffff::80"
    PORT = 7

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.client1, self.client2 = lab.host("client1"), lab.host("client2")
        self.gateway = lab.host("gateway", forwarding=True)
        self.server = lab.host("server")
        for number, client in enumerate((self.client1, self.client2), start=1):
            lab.link(
                client,
                self.gateway,
                (f"10.{number}.0.2/24", f"2001:db8:{number}::2/64"),
                (f"10.{number}.0.1/24", f"2001:db8:{number}::1/64"),
            )
            client.route("default", f"10.{number}.0.1")
            client.route("default", f"2001:db8:{number}::1")
        outside = [f"{address}/24" for address in self.OUTSIDE] + [f"{address}/64" for address in self.OUTSIDE_IPV6]
        lab.link(self.gateway, self.server, outside, (f"{self.SERVER}/24", f"{self.SERVER_IPV6}/64"))
        self.translate_to(0)
        self.server.mirror(self.PORT)

    def translate_to(self, number: int) -> None:
        """Change the NAT rule: new connections use the first (0) or the second (1) outside address."""
        firewall = self.gateway.firewall
        firewall.clear("snat")
        firewall.snat(self.OUTSIDE[number], out_interface="server")
        if has_ipv6():
            firewall.snat(self.OUTSIDE_IPV6[number], out_interface="server")


def has_ipv6() -> bool:
    """Return whether this kernel supports IPv6."""
    return os.path.exists("/proc/sys/net/ipv6")
