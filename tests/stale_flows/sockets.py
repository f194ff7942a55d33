# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gateway's own sockets: sockets that start flows, TCP listeners, and raw sockets for delivered packets."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Callable

from .packets import GRE, ICMP, ICMPV6, OTHER, SCTP, TCP, UDP, UDPLITE, Tuple, parse_transport, transport

Entered = Callable[[], contextlib.AbstractContextManager[None]]

#: Ports on which the gateway accepts TCP connections. To a port without a listener, a reset would end the flow.
LISTENING = (22, 25, 53, 80, 113, 443, 2222, 3128, 3306, 5432, 6443, 8000, 8080, 8081, 8443, 9000, 30080)
IPV6_RECVPKTINFO, IPV6_PKTINFO = 49, 50
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_RAW = {
    socket.AF_INET: (TCP, UDP, ICMP, GRE, SCTP, UDPLITE, OTHER),
    socket.AF_INET6: (TCP, UDP, ICMPV6, GRE, SCTP, UDPLITE, OTHER),
}


class Sockets:
    """Sockets in the gateway's namespace."""

    def __init__(self, entered: Entered) -> None:
        self._entered = entered
        self._closing = contextlib.ExitStack()
        self._of_flows = contextlib.ExitStack()
        self._raw: dict[tuple[int, int], socket.socket] = {}
        with entered():
            for family, protocols in _RAW.items():
                for protocol in protocols:
                    raw = self._closing.enter_context(socket.socket(family, socket.SOCK_RAW, protocol))
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
                    raw.setblocking(False)
                    if family == socket.AF_INET6:
                        raw.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
                    self._raw[family, protocol] = raw

    def __enter__(self) -> Sockets:
        return self

    def __exit__(self, *_: object) -> None:
        self._of_flows.close()
        self._closing.close()

    def renew(self) -> None:
        """Close all earlier flows, and listen."""
        self._of_flows.close()
        self.delivered()
        with self._entered():
            for family in _RAW:
                for port in LISTENING:
                    listener = self._of_flows.enter_context(socket.socket(family, socket.SOCK_STREAM))
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    if family == socket.AF_INET6:
                        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    listener.bind(("", port))
                    listener.listen(1024)

    def send(self, flow: Tuple) -> bool:
        """Send the first packet of a flow from the gateway itself. A rule or a missing route may prevent it.

        Return False if the gateway no longer has the source address.
        """
        family = socket.AF_INET6 if flow.version == 6 else socket.AF_INET
        kind = {TCP: socket.SOCK_STREAM, UDP: socket.SOCK_DGRAM}.get(flow.protocol, socket.SOCK_RAW)
        with self._entered():
            sock = self._of_flows.enter_context(socket.socket(family, kind, flow.protocol))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            sock.setblocking(False)
            try:
                sock.bind((flow.source, flow.source_port if kind != socket.SOCK_RAW else 0))
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:
                    raise
                return False
            with contextlib.suppress(OSError):
                if kind == socket.SOCK_STREAM:
                    sock.connect((flow.destination, flow.destination_port))
                elif kind == socket.SOCK_DGRAM:
                    sock.sendto(b"data of the flow", (flow.destination, flow.destination_port))
                else:
                    sock.sendto(transport(flow), (flow.destination, 0))
        return True

    def delivered(self) -> set[Tuple]:
        """Return the tuples of the first packets that were delivered to the gateway itself since the last call."""
        found: set[Tuple | None] = set()
        for (family, protocol), raw in self._raw.items():
            with contextlib.suppress(BlockingIOError):
                while True:
                    found.add(_received(family, protocol, raw))
        return {one for one in found if one is not None}


def _received(family: int, protocol: int, raw: socket.socket) -> Tuple | None:
    data, ancillary, _flags, sender = raw.recvmsg(4096, 256)
    if family == socket.AF_INET:
        source, destination = (socket.inet_ntoa(data[at : at + 4]) for at in (12, 16))
        return parse_transport(protocol, source, destination, data[(data[0] & 15) * 4 :])
    information = next(value for _level, kind, value in ancillary if kind == IPV6_PKTINFO)
    source, destination = sender[0].partition("%")[0], socket.inet_ntop(socket.AF_INET6, information[:16])
    return parse_transport(protocol, source, destination, data)
