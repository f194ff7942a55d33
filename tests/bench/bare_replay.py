# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measure how long the kernel alone takes to judge flows: write the first packet of each and receive its event.

The packets are built before the timed part. They pass through a namespace with two links and a single rule, which
uses conntrack. This module uses no code of the collection that it is compared with.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from pyroute2 import IPRoute

from tests.lab.firewall import Firewall

from .mix import CYCLE, IPV6, KINDS, TCP, ends

Work = Callable[[], int]

TUN, TUNSETIFF, IFF_TUN, IFF_NO_PI = "/dev/net/tun", 0x400454CA, 0x0001, 0x1000
NETLINK_NETFILTER, NEW_ENTRIES, SO_RCVBUFFORCE = 12, 1, 33
FLUSH = struct.pack("=IHHIIBBH", 20, 0x102, 1, 0, 0, 0, 0, 0)
SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/netfilter/nf_conntrack_checksum": "0",
    "net/netfilter/nf_conntrack_events": "1",
}
#: The networks of the clients, behind the first link, and of the servers, behind the second.
CLIENTS, SERVERS = ("10.0.0.0/8", "2001:db8:1::/48"), ("198.18.0.0/15", "2001:db8:2::/48")
#: Packets between two readings of events, and between two flushes of the table, which must never be full.
BATCH, FULL = 128, 32_768
IPV4_HEAD, PORTS = struct.Struct(">BBHHHBBH4s4s"), struct.Struct(">HH")
IPV6_HEAD = struct.Struct(">IHBB16s16s")
SYN, UDP_LENGTH = struct.pack(">IIBBHHH", 1, 0, 5 << 4, 2, 64240, 0, 0), struct.pack(">HH", 8, 0)


def replay(entries: str) -> Work:
    """Write the first packets of this number of entries of the mix, and receive an event for each."""
    os.unshare(os.CLONE_NEWNET)
    device = _link("lan", CLIENTS)
    other = _link("wan", SERVERS)
    for path, value in SYSCTLS.items():
        (Path("/proc/sys") / path).write_text(value, encoding="ascii")
    Firewall(contextlib.nullcontext).track()
    packets = list(_packets(int(entries)))
    events = _open()
    events.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20)
    events.bind((0, NEW_ENTRIES))
    requests = _open()

    def work() -> int:
        received = 0
        for start in range(0, len(packets), BATCH):
            for packet in packets[start : start + BATCH]:
                os.write(device, packet)
            with contextlib.suppress(BlockingIOError):
                while events.recv(4096, socket.MSG_DONTWAIT):
                    received += 1
            if start % FULL == 0:
                requests.send(FLUSH)
        os.close(other)
        return received

    return work


def _packets(entries: int) -> Iterator[bytes]:
    for turn in range(entries // CYCLE):
        for kind in KINDS:
            source, destination, port = ends(kind, turn)
            payload = PORTS.pack(port, kind.port) + (SYN if kind.protocol == TCP else UDP_LENGTH)
            if kind.clients is IPV6:
                head = IPV6_HEAD.pack(6 << 28, len(payload), kind.protocol, 64, source, destination)
            else:
                fields = (0x45, 0, 20 + len(payload), 0, 0, 64, kind.protocol, 0, source, destination)
                head = IPV4_HEAD.pack(*fields)
                total = sum(struct.unpack(">10H", head))
                total = (total & 0xFFFF) + (total >> 16)
                head = IPV4_HEAD.pack(*fields[:7], ~(total + (total >> 16)) & 0xFFFF, *fields[8:])
            yield head + payload


def _link(name: str, networks: tuple[str, ...]) -> int:
    """Create a TUN device with routes to these networks."""
    device = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    with IPRoute() as rtnetlink:
        (index,) = rtnetlink.link_lookup(ifname=name)
        rtnetlink.link("set", index=index, state="up")
        for network in networks:
            family = socket.AF_INET6 if ":" in network else socket.AF_INET
            rtnetlink.route("add", dst=network, oif=index, family=family)
    return device


def _open() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
