# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first packet of a flow, as the kernel that tracked it may have received it.

A packet carries a control word for the rules of the scratch namespace (see `expressions.py`): the identification of
IPv4, and the low 16 bits of the flow label of IPv6.

Source: RFC 791, 8200, 9293, 768, 792, 4443, 9260, 2784, 4340.
"""

from __future__ import annotations

import struct
from typing import Any, Mapping

from .. import uapi

_IPV4 = struct.Struct(">BBHHHBBH4s4s")
_IPV4_AND_PORTS = struct.Struct(">BBHHHBBH4s4sHH")
_IPV6 = struct.Struct(">BBHHBB16s16s")
_PORTS = struct.Struct(">HH")
_CONTROL = struct.Struct("=H")
_NETWORK_ORDER = struct.Struct(">H")
#: Below 128: the scratch namespace sends its own packets with more.
_HOP_LIMIT = 64

#: What follows the ports of a TCP segment with SYN.
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


def first_packet(entry: Mapping[str, Any], control: int) -> bytes:
    """Return the packet that would start a flow with the original tuple of an entry, from its IP header on."""
    source, destination = entry["original.source"], entry["original.destination"]
    protocol = entry["original.protocol"]
    (word,) = _NETWORK_ORDER.unpack(_CONTROL.pack(control))
    behind = _BEHIND_PORTS.get(protocol)
    if len(source) == 16:
        payload = _payload(entry, protocol) if behind is None else _PORTS.pack(*_ports(entry)) + behind
        return _IPV6.pack(0x60, 0, word, len(payload), protocol, _HOP_LIMIT, source, destination) + payload
    payload = _payload(entry, protocol) if behind is None else behind
    size = len(payload) + (20 if behind is None else 24)
    # The sum of 16-bit words in ones' complement is the number modulo 0xFFFF
    total = 0x4500 + size + word + (_HOP_LIMIT << 8) + protocol + int.from_bytes(source + destination, "big")
    head = (0x45, 0, size, word, 0, _HOP_LIMIT, protocol, -total % 0xFFFF, source, destination)
    if behind is None:
        return _IPV4.pack(*head) + payload
    return _IPV4_AND_PORTS.pack(*head, *_ports(entry)) + payload


def _ports(entry: Mapping[str, Any]) -> tuple[int, int]:
    """Return the ports of a tuple. The kernel no longer tracks those of some protocols."""
    return entry.get("original.source_port", 0), entry.get("original.destination_port", 0)


def _payload(entry: Mapping[str, Any], protocol: int) -> bytes:
    """Return what follows the IP header in the first packet of a protocol without ports."""
    if protocol not in _ICMP:
        return _BARE
    kind, code = entry.get("original.icmp_type", 0), entry.get("original.icmp_code", 0)
    return struct.pack(">BBHHH", kind, code, 0, entry.get("original.icmp_id", 0), 1)
