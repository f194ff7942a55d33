# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Packets of the flows: the first packet, its answer, and the tuple of a captured packet.

This code is independent of the collection, which has its own packet builder.
"""

from __future__ import annotations

import functools
import socket
import struct
from typing import NamedTuple

TCP, UDP, ICMP, ICMPV6, GRE, SCTP, UDPLITE, OTHER = 6, 17, 1, 58, 47, 132, 136, 99
WITH_PORTS = (TCP, UDP, SCTP, UDPLITE)
ECHO_REQUEST = {ICMP: 8, ICMPV6: 128}
SYN, RST, ACK = 0x02, 0x04, 0x10
#: The first data of a TFTP client.
READ_REQUEST = b"\0\1file\0octet\0"
#: The sequence numbers of a handshake, by the flags of the packet.
_SEQUENCE = {SYN: 1000, SYN | ACK: 5000, ACK: 1001}
_ACKNOWLEDGED = {SYN: 0, SYN | ACK: 1001, ACK: 5001}
#: The polynomial of CRC-32C, reflected
_CRC32C = 0x82F63B78


class Tuple(NamedTuple):
    """The addresses and ports of one direction of a flow. The identifier of an ICMP echo request is the source port."""

    protocol: int
    source: str
    destination: str
    source_port: int = 0
    destination_port: int = 0

    @property
    def version(self) -> int:
        return 6 if ":" in self.source else 4

    def reversed(self) -> Tuple:
        """Return the tuple of the other direction. Both directions have the same ICMP identifier."""
        if self.protocol in ECHO_REQUEST:
            return self._replace(source=self.destination, destination=self.source)
        return Tuple(self.protocol, self.destination, self.source, self.destination_port, self.source_port)


def first_packet(flow: Tuple) -> bytes:
    """Return the packet that starts a flow: SYN, INIT, an echo request, or data."""
    return _packet(flow, _SEGMENTS[flow.protocol](flow, SYN) if flow.protocol == TCP else transport(flow))


def transport(flow: Tuple) -> bytes:
    """Return the part after the IP header of the first packet of a flow that is not TCP."""
    return _SEGMENTS[flow.protocol](flow, 0)


def acknowledgement(flow: Tuple) -> bytes:
    """Return the third packet of the TCP handshake, after the second one from `answer`."""
    return _packet(flow, _tcp(flow, ACK))


def answer(packet: bytes) -> bytes | None:
    """Return the answer to a packet of `first_packet`, None for other packets."""
    seen = parse(packet)
    if seen is None:
        return None
    back = seen.reversed()
    if seen.protocol == TCP:
        start = 40 if seen.version == 6 else 20
        is_own = packet[start + 4 : start + 8] == struct.pack("!I", _SEQUENCE[SYN])
        return _packet(back, _tcp(back, SYN | ACK)) if is_own else None
    if seen.protocol in ECHO_REQUEST:
        return _packet(back, _icmp(back, reply=True))
    if seen.protocol == SCTP:
        return None
    return _packet(back, transport(back))


def parse(packet: bytes) -> Tuple | None:
    """Return the tuple of a packet, None if it is not the first packet of a flow (an ICMP error, a reset)."""
    if packet[0] >> 4 == 4:
        protocol, payload = packet[9], packet[(packet[0] & 15) * 4 :]
        addresses = [socket.inet_ntop(socket.AF_INET, packet[at : at + 4]) for at in (12, 16)]
    else:
        protocol, payload = packet[6], packet[40:]
        addresses = [socket.inet_ntop(socket.AF_INET6, packet[at : at + 16]) for at in (8, 24)]
    return parse_transport(protocol, addresses[0], addresses[1], payload)


def parse_transport(protocol: int, source: str, destination: str, payload: bytes) -> Tuple | None:
    """Return the tuple of a packet from its parts; see `parse`."""
    if protocol in ECHO_REQUEST:
        if len(payload) < 8 or payload[0] != ECHO_REQUEST[protocol]:
            return None
        return Tuple(protocol, source, destination, struct.unpack_from("!H", payload, 4)[0])
    if protocol in WITH_PORTS:
        if len(payload) < 4 or (protocol == TCP and payload[13] & (SYN | RST | ACK) != SYN):
            return None
        return Tuple(protocol, source, destination, *struct.unpack_from("!HH", payload))
    return Tuple(protocol, source, destination) if protocol in (GRE, OTHER) else None


def _packet(flow: Tuple, payload: bytes) -> bytes:
    source, destination = _addresses(flow)
    if flow.version == 6:
        return struct.pack("!IHBB", 6 << 28, len(payload), flow.protocol, 61) + source + destination + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0x1234, 0, 61, flow.protocol, 0) + source + destination
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


@functools.lru_cache(maxsize=4096)
def _binary(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def _addresses(flow: Tuple) -> tuple[bytes, bytes]:
    return _binary(flow.source), _binary(flow.destination)


def checksum(data: bytes) -> int:
    """Return the checksum of the internet protocols."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _pseudo_header(flow: Tuple, size: int) -> bytes:
    return b"".join(_addresses(flow)) + struct.pack("!II", size, flow.protocol)


def _with_checksum(flow: Tuple, segment: bytes, place: int, pseudo: bool = True) -> bytes:
    total = checksum((_pseudo_header(flow, len(segment)) if pseudo else b"") + segment)
    return segment[:place] + struct.pack("!H", total or 0xFFFF) + segment[place + 2 :]


def _tcp(flow: Tuple, flags: int) -> bytes:
    ports, numbers = (flow.source_port, flow.destination_port), (_SEQUENCE[flags], _ACKNOWLEDGED[flags])
    head = struct.pack("!HHIIBBHHH", *ports, *numbers, 6 << 4, flags, 29200, 0, 0)
    return _with_checksum(flow, head + struct.pack("!BBH", 2, 4, 1400), 16)


def _udp(flow: Tuple, _flags: int) -> bytes:
    data = READ_REQUEST if flow.destination_port == 69 else b"data of the flow"
    # In place of the length, UDP-Lite has the number of bytes that the checksum covers. The value 0 stands for all.
    size = 8 + len(data) if flow.protocol == UDP else 0
    return _with_checksum(flow, struct.pack("!HHHH", flow.source_port, flow.destination_port, size, 0) + data, 6)


def _icmp(flow: Tuple, _flags: int = 0, reply: bool = False) -> bytes:
    kind = ECHO_REQUEST[flow.protocol]
    if reply:
        kind = 0 if flow.protocol == ICMP else 129
    message = struct.pack("!BBHHH", kind, 0, 0, flow.source_port, 1) + b"abcdefgh"
    return _with_checksum(flow, message, 2, pseudo=flow.protocol == ICMPV6)


def _sctp(flow: Tuple, _flags: int) -> bytes:
    chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 4711, 65536, 10, 10, 1)
    head = struct.pack("!HHI", flow.source_port, flow.destination_port, 0)
    return head + struct.pack("<I", _crc32c(head + bytes(4) + chunk)) + chunk


def _crc32c(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register = register >> 8 ^ _crc_table()[(register ^ byte) & 0xFF]
    return register ^ 0xFFFFFFFF


@functools.cache
def _crc_table() -> list[int]:
    table = []
    for number in range(256):
        for _bit in range(8):
            number = number >> 1 ^ (_CRC32C if number & 1 else 0)
        table.append(number)
    return table


def _gre(_flow: Tuple, _flags: int) -> bytes:
    return struct.pack("!HH", 0, 0x0800) + bytes(20)


def _other(_flow: Tuple, _flags: int) -> bytes:
    return b"bytes of a protocol without ports"


_SEGMENTS = {
    TCP: _tcp,
    UDP: _udp,
    UDPLITE: _udp,
    ICMP: _icmp,
    ICMPV6: _icmp,
    SCTP: _sctp,
    GRE: _gre,
    OTHER: _other,
}
