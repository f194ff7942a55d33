# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the first packet of a flow by reading each field back; the rules would see another packet otherwise."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.reevaluate.flow import flow_of

TCP, UDP, ICMP, ICMPV6, GRE, SCTP, ESP = 6, 17, 1, 58, 47, 132, 50
CONTROL = 0x4123


def entry(source: str, destination: str, protocol: int, **more: int) -> dict[str, Any]:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    ends = {"source": socket.inet_pton(family, source), "destination": socket.inet_pton(family, destination)}
    return {
        "family": int(family),
        "original.protocol": protocol,
        **{f"original.{key}": value for key, value in {**ends, **more}.items()},
        "reply.source": ends["destination"],
    }


def first_packet(entry: dict[str, Any], control: int) -> bytes:
    flow = flow_of(entry)
    return flow.layout.packet(flow.values, control)


def ports(protocol: int, source: str = "10.0.0.1", destination: str = "192.0.2.9") -> dict[str, Any]:
    return entry(source, destination, protocol, source_port=4000, destination_port=443)


def ones_complement_sum(data: bytes) -> int:
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize("protocol", [TCP, UDP, SCTP, ICMP, GRE, ESP])
@pytest.mark.parametrize(
    ("source", "destination"),
    [("10.0.0.1", "192.0.2.9"), ("255.255.255.254", "255.255.255.253"), ("0.0.0.1", "1.0.0.0")],
)
@pytest.mark.parametrize("control", [CONTROL, 0x4000, 0xFFFF])
def test_the_ipv4_header(protocol: int, source: str, destination: str, control: int) -> None:
    packet = first_packet(entry(source, destination, protocol), control)
    version, _tos, length, _control, fragment, _ttl, kind = struct.unpack_from(">BBHHHBB", packet)
    assert (version, length, fragment, kind) == (0x45, len(packet), 0, protocol)
    assert packet[4:6] == struct.pack("=H", control)
    assert packet[12:20] == socket.inet_aton(source) + socket.inet_aton(destination)
    assert ones_complement_sum(packet[:20]) == 0xFFFF


def test_the_ipv6_header() -> None:
    packet = first_packet(ports(UDP, "2001:db8::1", "2001:db8::2"), CONTROL)
    first, length, kind, _hops = struct.unpack_from(">IHBB", packet)
    assert (first >> 28, first >> 16 & 0xFFF, length, kind) == (6, 0, len(packet) - 40, UDP)
    assert packet[2:4] == struct.pack("=H", CONTROL)
    assert packet[8:40] == socket.inet_pton(socket.AF_INET6, "2001:db8::1") + socket.inet_pton(
        socket.AF_INET6, "2001:db8::2"
    )


def test_tcp_is_a_syn() -> None:
    source, destination, _sequence, acknowledged, offset, flags = struct.unpack_from(
        ">HHIIBB", first_packet(ports(TCP), CONTROL), 20
    )
    assert (source, destination, acknowledged, offset >> 4, flags) == (4000, 443, 0, 5, 0x02)


def test_udp_has_no_payload() -> None:
    assert struct.unpack(">HHHH", first_packet(ports(UDP), CONTROL)[20:]) == (4000, 443, 8, 0)


def test_sctp_is_a_single_init_chunk() -> None:
    payload = first_packet(ports(SCTP), CONTROL)[20:]
    source, destination, tag, _checksum, chunk, _flags, length = struct.unpack_from(">HHIIBBH", payload)
    assert (source, destination, tag, chunk, length) == (4000, 443, 0, 1, len(payload) - 12)


@pytest.mark.parametrize(
    ("protocol", "kind", "source", "destination"),
    [(ICMP, 8, "10.0.0.1", "192.0.2.9"), (ICMPV6, 128, "2001:db8::1", "2001:db8::2")],
)
def test_icmp_is_the_request(protocol: int, kind: int, source: str, destination: str) -> None:
    requested = entry(source, destination, protocol, icmp_type=kind, icmp_code=0, icmp_id=77)
    payload = first_packet(requested, CONTROL)[20 if protocol == ICMP else 40 :]
    assert struct.unpack_from(">BBHH", payload) == (kind, 0, 0, 77)
