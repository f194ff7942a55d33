# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first packet of a flow, as the kernel that tracked it may have received it.

A packet carries a control word for the rules of the scratch namespace (see `expressions.py`): the identification of
IPv4, and the low 16 bits of the flow label of IPv6.

Source: RFC 791, 8200, 9293, 768, 792, 4443, 9260, 2784, 4340.
"""

from __future__ import annotations

import socket
import struct

from .. import uapi
from ..codec.types import AF_INET6

_IPV4 = struct.Struct(">BBHHHBBH4s4s")
_IPV4_AND_PORTS = struct.Struct(">BBHHHBBH4s4sHH")
_IPV6 = struct.Struct(">BBHHBB16s16s")
_PORTS = struct.Struct(">HH")
#: Below 128: the scratch namespace sends its own packets with more.
_HOP_LIMIT = 64

#: A TCP segment with SYN, without its ports.
_SYN = struct.pack(">IIBBHHH", 1, 0, 5 << 4, 0x02, 64240, 0, 0)
_UDP = struct.pack(">HH", 8, 0)
#: The kernel refuses UDP-Lite without a checksum, whatever its value is.
_UDPLITE = struct.pack(">HH", 8, 0xFFFF)
#: An INIT chunk, in a packet with the verification tag 0.
_SCTP_INIT = struct.pack(">II", 0, 0) + struct.pack(">BBHIIHHI", 1, 0, 20, 1, 0xFFFF, 1, 1, 1)
#: The rest of a DCCP-Request: data offset, checksum, type with 48-bit sequence numbers, service code.
_DCCP_REQUEST = struct.pack(">BBHBBHII", 5, 0, 0, 1, 0, 0, 1, 0)
_BEHIND_PORTS = {
    uapi.IPPROTO_TCP: _SYN,
    uapi.IPPROTO_UDP: _UDP,
    uapi.IPPROTO_UDPLITE: _UDPLITE,
    uapi.IPPROTO_SCTP: _SCTP_INIT,
    uapi.IPPROTO_DCCP: _DCCP_REQUEST,
}
_ICMP = (uapi.IPPROTO_ICMP, uapi.IPPROTO_ICMPV6)
#: A GRE header of version 0 without a protocol. Other protocols get the same bytes.
_BARE = bytes(8)


class FirstPackets:
    """Builds the packets that would start flows of one family and protocol, from their IP header on."""

    def __init__(self, family: int, protocol: int) -> None:
        self._protocol = protocol
        self._behind = _BEHIND_PORTS.get(protocol)
        self.build = self._build_ipv6 if family == AF_INET6 else self._build_ipv4
        self._size = 20 + (8 if self._behind is None else 4 + len(self._behind))
        # The constant part of the checksum
        self._sum = 0x4500 + self._size + (_HOP_LIMIT << 8) + protocol

    def _build_ipv4(self, source: bytes, destination: bytes, ends: tuple[int, ...], control: int) -> bytes:
        word = socket.htons(control)
        # The sum of 16-bit words in ones' complement is the number modulo 0xFFFF
        checksum = -(self._sum + word + int.from_bytes(source + destination, "big")) % 0xFFFF
        head = (0x45, 0, self._size, word, 0, _HOP_LIMIT, self._protocol, checksum, source, destination)
        if self._behind is not None and ends:
            return _IPV4_AND_PORTS.pack(*head, *ends) + self._behind
        return _IPV4.pack(*head) + self._payload(ends)

    def _build_ipv6(self, source: bytes, destination: bytes, ends: tuple[int, ...], control: int) -> bytes:
        payload = self._payload(ends)
        word = socket.htons(control)
        return _IPV6.pack(0x60, 0, word, len(payload), self._protocol, _HOP_LIMIT, source, destination) + payload

    def _payload(self, ends: tuple[int, ...]) -> bytes:
        """Return what follows the IP header. `ends` are the ports, or the type, code and id of ICMP, if there are any.

        The kernel no longer tracks the ports of some protocols.
        """
        if self._behind is not None:
            return _PORTS.pack(*(ends or (0, 0))) + self._behind
        if self._protocol in _ICMP and ends:
            kind, code, number = ends
            return struct.pack(">BBHHH", kind, code, 0, number, 1)
        return _BARE
