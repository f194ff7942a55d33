# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Links of a gateway whose other end is the test: a TUN device, or a pair of Ethernet devices."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
import time
from typing import Protocol

from tests.lab import Namespace, tun
from tests.lab.lab import IFA_F_NODAD

TUNSETPERSIST = 0x400454CB
ETH_P_ALL, ETH_P_IP, ETH_P_IPV6, ETH_P_EXPERIMENTAL = 0x0003, 0x0800, 0x86DD, 0x88B5
PACKET_OUTGOING = 4
#: With these settings, the rules would see a packet before the bridge, and drop some that the test waits for.
BRIDGE_NETFILTER = ("net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables")
#: The address of the bridge.
ADDRESS = "02:00:00:00:00:02"
#: Seconds to wait until the kernel has a packet that was sent by Ethernet. This only ends a hung test.
TIMEOUT = 120.0


class Link(Protocol):
    """A link of the gateway."""

    name: str

    def inject(self, packet: bytes) -> bool:
        """Send a packet to the gateway, and wait until the kernel has it. Return False if the link is down."""

    def captured(self) -> list[bytes]:
        """Return the packets that the gateway sent by this link since the last call."""

    def close(self) -> None:
        """Remove the link."""


class Tun:
    """A TUN device."""

    def __init__(self, gateway: Namespace, name: str) -> None:
        self.name = name
        with gateway.entered():
            self._end = tun.create(name)
            # The device goes with its namespace, which the kernel does in the background
            fcntl.ioctl(self._end, TUNSETPERSIST, 1)

    def inject(self, packet: bytes) -> bool:
        try:
            os.write(self._end, packet)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return False
        return True

    def captured(self) -> list[bytes]:
        packets: list[bytes] = []
        with contextlib.suppress(BlockingIOError):
            while True:
                packets.append(os.read(self._end, tun.LARGEST))
        return packets

    def close(self) -> None:
        os.close(self._end)


class Ethernet:
    """A bridge with an Ethernet device whose peer is in another namespace."""

    def __init__(self, gateway: Namespace, name: str) -> None:
        self.name = name
        self._closing = contextlib.ExitStack()
        far = self._closing.enter_context(Namespace("far"))
        for setting in BRIDGE_NETFILTER:
            with contextlib.suppress(FileNotFoundError):
                gateway.sysctl(setting, 0)
        far.sysctl("net/ipv6/conf/default/addr_gen_mode", 1)
        with gateway.rtnetlink() as rtnetlink, open(far.path, "rb") as there:
            port = f"{name}-port"
            rtnetlink.link("add", kind="bridge", ifname=name, address=ADDRESS)
            rtnetlink.link("add", kind="veth", ifname=port, peer={"ifname": "far", "net_ns_fd": there.fileno()})
            bridge, index = (rtnetlink.link_lookup(ifname=each)[0] for each in (name, port))
            rtnetlink.link("set", index=index, master=bridge, state="up")
            rtnetlink.link("set", index=bridge, state="up")
            rtnetlink.addr("add", index=index, address="fe80::1", prefixlen=64, flags=IFA_F_NODAD)
        with far.rtnetlink() as rtnetlink:
            rtnetlink.link("set", index=rtnetlink.link_lookup(ifname="far")[0], state="up")
        self._header = bytes.fromhex(ADDRESS.replace(":", "")) + bytes.fromhex("020000000001")
        with far.entered():
            self._far = self._socket("far", ETH_P_ALL)
            self._far.setblocking(False)
        with gateway.entered():
            self._near = {version: self._socket(name, number) for version, number in ((4, ETH_P_IP), (6, ETH_P_IPV6))}
            probe = self._socket(name, ETH_P_EXPERIMENTAL)
        self._wait_for_bridge(probe)

    def _wait_for_bridge(self, probe: socket.socket) -> None:
        """Return when the bridge forwards the packets that its port receives."""
        probe.settimeout(0.05)
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            self._far.send(self._header + struct.pack("!H", ETH_P_EXPERIMENTAL) + bytes(46))
            with contextlib.suppress(TimeoutError):
                probe.recv(tun.LARGEST)
                return
        raise TimeoutError(f"{self.name} does not forward")

    def _socket(self, name: str, protocol: int) -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
        self._closing.callback(sock.close)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.settimeout(TIMEOUT)
        sock.bind((name, protocol))
        return sock

    def inject(self, packet: bytes) -> bool:
        version = packet[0] >> 4
        kind = struct.pack("!H", ETH_P_IP if version == 4 else ETH_P_IPV6)
        self._far.send(self._header + kind + packet)
        while self._near[version].recv(tun.LARGEST)[14:] != packet:  # the kernel passes it to IP at the same time
            pass
        return True

    def captured(self) -> list[bytes]:
        packets: list[bytes] = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, address = self._far.recvfrom(tun.LARGEST)
                if address[2] != PACKET_OUTGOING and frame[12:14] in (b"\x08\x00", b"\x86\xdd"):
                    packets.append(frame[14:])
        return packets

    def close(self) -> None:
        self._closing.close()
