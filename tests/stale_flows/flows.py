# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The flows of a case: a mix as on a real gateway, with other ports and hosts in each case."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from .packets import GRE, ICMP, ICMPV6, OTHER, SCTP, TCP, UDP, UDPLITE, Tuple

Flow = tuple[str, Tuple]

#: Ports, the frequent ones first.
TCP_PORTS = (80, 443, 8080, 22, 8443, 53, 3128, 8000, 25, 3306, 5432, 6443, 8081, 9000, 30080, 2222, 113)
UDP_PORTS = (53, 5060, 123, 443, 1194, 69, 500, 161, 4500, 8080)
OUTSIDE4, OUTSIDE6 = "203.0.113", "2001:db8:100:"
#: The number of a network on the inside by its link.
INSIDE = {"lan": 1, "vlan10": 10, "vlan20": 20, "dmz": 30}


class Mix:
    """Generate flows. The same seed gives the same flows.

    :param versions: The versions of IP. Repeat a version to make it more frequent.
    :param published: The weight of flows from the internet to addresses of the gateway; all others together have 76.
    """

    def __init__(self, seed: str, versions: tuple[int, ...] = (4, 4, 6), published: int = 20) -> None:
        self._versions = versions
        self._random = random.Random(seed)
        self._port = 20_000 + self._random.randrange(2000)
        self._kinds: list[tuple[int, Callable[[int], Flow | None]]] = [
            (32, self._to_internet),
            (12, self._between),
            (published, self._published),
            (8, self._to_gateway),
            (6, self._hairpin),
            (8, self._from_gateway),
            (6, self._loopback),
            (4, self._by_second_uplink),
        ]

    def flows(self, number: int) -> list[Flow]:
        """Return this number of flows.

        No two flows have the same tuple in either direction. For protocols without ports, no two flows have a source or
        a destination in common. With the same destination, source NAT could make them equal, and the kernel would drop
        the second one. With the same source, the kernel would choose the same address of a range for both.
        """
        chosen: dict[Tuple, Flow] = {}
        without_ports: set[tuple[int, str]] = set()
        for link, flow in self._all():
            if flow in chosen or flow.reversed() in chosen:
                continue
            if flow.protocol in (GRE, OTHER):
                ends = {(flow.protocol, flow.source), (flow.protocol, flow.destination)}
                if ends & without_ports:
                    continue
                without_ports |= ends
            chosen[flow] = link, flow
            if len(chosen) == number:
                break
        return list(chosen.values())

    def _all(self) -> Iterator[Flow]:
        weights, kinds = zip(*self._kinds, strict=True)
        while True:
            make = self._random.choices(kinds, weights)[0]
            flow = make(self._random.choice(self._versions))
            if flow is not None:
                yield flow

    def inside(self, link: str, version: int, servers: bool = False) -> str:
        """Return a host of an inside network."""
        host = self._random.choice((80, 81, 82) if servers else (5, 6, 7, 8, 9, 10, 66, 67))
        if link == "dmz":
            host = self._random.choice((80, 81, 82) if servers else (5, 6, 7, 8))
        return f"10.{INSIDE[link]}.0.{host}" if version == 4 else f"2001:db8:{INSIDE[link]}::{host}"

    def internet(self, version: int) -> str:
        """Return a host of the internet."""
        host = self._random.choice((5, 7, 9, 70, 71, 130, 131, 200))
        return f"198.51.100.{host}" if version == 4 else f"2001:db8:9::{host}"

    def tuple(self, source: str, destination: str, protocols: tuple[int, ...] = ()) -> Tuple:
        """Return a flow between two hosts."""
        everything = (TCP,) * 11 + (UDP,) * 6 + (ICMP,) * 2 + (SCTP, UDPLITE, GRE, OTHER)
        protocol = self._random.choice(protocols or everything)
        if protocol in (GRE, OTHER):
            return Tuple(protocol, source, destination)
        self._port += self._random.randrange(1, 9)
        if protocol == ICMP:
            return Tuple(ICMPV6 if ":" in source else ICMP, source, destination, self._port)
        ports = TCP_PORTS if protocol in (TCP, SCTP) else UDP_PORTS
        port = self._random.choice(ports if self._random.random() < 0.4 else ports[:4])
        return Tuple(protocol, source, destination, self._port, port)

    def _to_internet(self, version: int) -> Flow:
        link = self._random.choice(("lan", "lan", "lan", "vlan10", "vlan20", "dmz"))
        return link, self.tuple(self.inside(link, version), self.internet(version))

    def _between(self, version: int) -> Flow:
        source, destination = self._random.sample(list(INSIDE), 2)
        return source, self.tuple(self.inside(source, version), self.inside(destination, version, servers=True))

    def _published(self, version: int) -> Flow:
        outside = self._random.choice(("203.0.113.1", "203.0.113.1", "203.0.113.2", "203.0.113.3"))
        destination = outside if version == 4 else "2001:db8:100::1"
        return "wan", self.tuple(self.internet(version), destination, (TCP, TCP, TCP, UDP))

    def _by_second_uplink(self, version: int) -> Flow:
        destination = "192.0.2.1" if version == 4 else "2001:db8:200::1"
        return "wan2", self.tuple(self.internet(version), destination, (TCP, TCP, UDP))

    def _to_gateway(self, version: int) -> Flow:
        link = self._random.choice(("lan", "vlan10", "dmz"))
        number = INSIDE[link]
        own = f"10.{number}.0.1" if version == 4 else f"2001:db8:{number}::1"
        return link, self.tuple(self.inside(link, version), own)

    def _hairpin(self, version: int) -> Flow:
        destination = "203.0.113.1" if version == 4 else "2001:db8:100::1"
        link = self._random.choice(("lan", "lan", "vlan10"))
        return link, self.tuple(self.inside(link, version), destination, (TCP, TCP, UDP, ICMP))

    def _from_gateway(self, version: int) -> Flow:
        if self._random.random() < 0.3:
            source = "10.1.0.1" if version == 4 else "2001:db8:1::1"
            return "", self.tuple(source, self.inside("lan", version, servers=True))
        source = self._random.choice(("203.0.113.1", "203.0.113.2") if version == 4 else ("2001:db8:100::1",))
        if self._random.random() < 0.2:
            source = "192.0.2.1" if version == 4 else "2001:db8:200::1"
        return "", self.tuple(source, self.internet(version))

    def _loopback(self, version: int) -> Flow:
        own = (
            ("127.0.0.1", "203.0.113.1", "10.1.0.1", "127.0.0.53")
            if version == 4
            else ("::1", "2001:db8:100::1", "2001:db8:1::1")
        )
        address = self._random.choice(own)
        destination = self._random.choice(own[1:3])
        if address in ("127.0.0.1", "127.0.0.53", "::1"):
            destination = self._random.choice(("127.0.0.1", "127.0.0.53")) if version == 4 else "::1"
        return "", self.tuple(address, destination, (TCP, TCP, UDP))
