# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The entries in the tables: those of a gateway, by number, as declarations and as bytes.

Twenty kinds of connections alternate. In a table whose size is a multiple of twenty, exactly half of the entries
are TCP to port 443, exactly half have a source in 10.0.0.0/9, and a tenth is IPv6. A client has four connections
to each of its servers. The timeouts are longer than any run, so no entry expires during a run.

This file imports only a small part of the standard library, because the bench measures the memory of its importers.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

TIMEOUT = 7200
#: The match of each flush. Half of the entries match.
PORT = 443
NETWORK = "10.0.0.0/9"

LOW, HIGH, IPV6 = (bytes([10, 0, 0, 0]), bytes([10, 128, 0, 0]), bytes.fromhex("20010db8000100000000000000000000"))
IPV4_SERVERS, IPV6_SERVERS = bytes([198, 18, 0, 0]), bytes.fromhex("20010db8000200000000000000000000")
TCP, UDP = 6, 17
PROTOCOLS = {TCP: "tcp", UDP: "udp"}
TCP_STATES = {"syn_sent": 1, "established": 3, "close_wait": 5, "time_wait": 7}
ANSWERED, ASSURED, CONFIRMED = 2, 4, 8
#: Distributes the IPv4 clients over their networks. An odd factor keeps their addresses distinct.
SCATTER, HOSTS = 5_038_849, (1 << 23) - 1


class Kind(NamedTuple):
    """The values that all connections of one kind share."""

    number: int
    clients: bytes
    protocol: int
    port: int
    state: str = ""
    status: int = ANSWERED | ASSURED | CONFIRMED
    mark: int = 0

    @property
    def servers(self) -> bytes:
        return IPV6_SERVERS if self.clients is IPV6 else IPV4_SERVERS


def _kinds() -> Iterator[Kind]:
    rows: list[tuple[Any, ...]] = [
        *[(LOW, TCP, PORT, "established")] * 3,
        (LOW, TCP, PORT, "time_wait"),
        (LOW, TCP, PORT, "established", ANSWERED | ASSURED | CONFIRMED, 0x10),
        (LOW, TCP, 80, "established"),
        (LOW, TCP, 22, "established", ANSWERED | ASSURED | CONFIRMED, 0x20),
        (LOW, UDP, 53, "", ANSWERED | CONFIRMED),
        (LOW, UDP, 53, "", CONFIRMED),
        (LOW, UDP, PORT),
        *[(HIGH, TCP, PORT, "established")] * 2,
        (HIGH, TCP, PORT, "close_wait"),
        (HIGH, TCP, PORT, "syn_sent", CONFIRMED),
        (HIGH, TCP, 5432, "established", ANSWERED | ASSURED | CONFIRMED, 0x10),
        (HIGH, UDP, 53, "", ANSWERED | CONFIRMED),
        (HIGH, UDP, 53, "", CONFIRMED),
        (HIGH, UDP, 123, "", ANSWERED | CONFIRMED),
        (IPV6, TCP, PORT, "established"),
        (IPV6, UDP, 53, "", ANSWERED | CONFIRMED),
    ]
    for number, row in enumerate(rows):
        yield Kind(number, *row)


KINDS = tuple(_kinds())
#: Every table has a multiple of this number of entries.
CYCLE = len(KINDS)
#: The half that each flush removes.
HALVES = {
    "port": tuple(kind for kind in KINDS if (kind.protocol, kind.port) == (TCP, PORT)),
    "network": tuple(kind for kind in KINDS if kind.clients is LOW),
}


def ends(kind: Kind, turn: int) -> tuple[bytes, bytes, int]:
    """Return source, destination and source port of a connection of this kind and turn."""
    client = turn >> 2
    size = len(kind.clients)
    host = client + 1 if kind.clients is IPV6 else client * SCATTER & HOSTS
    source = int.from_bytes(kind.clients, "big") + host
    server = int.from_bytes(kind.servers, "big") + (kind.number << 8) + (client * 167 & 0xFF)
    return source.to_bytes(size, "big"), server.to_bytes(size, "big"), 32768 + (turn & 3) * 7000 + client * 37 % 7000


def declarations(start: int, stop: int) -> Iterator[dict[str, Any]]:
    """Return the declarations of the entries with these numbers."""
    for number in range(start, stop):
        turn, position = divmod(number, CYCLE)
        yield declaration(KINDS[position], turn)


def declaration(kind: Kind, turn: int) -> dict[str, Any]:
    source, destination, port = ends(kind, turn)
    family = socket.AF_INET6 if kind.clients is IPV6 else socket.AF_INET
    status = [name for bit, name in ((ANSWERED, "seen_reply"), (ASSURED, "assured")) if kind.status & bit]
    document: dict[str, Any] = {
        "protocol": PROTOCOLS[kind.protocol],
        "original": {
            "source": socket.inet_ntop(family, source),
            "destination": socket.inet_ntop(family, destination),
            "source_port": port,
            "destination_port": kind.port,
        },
        "timeout": TIMEOUT,
        "status": [*status, "confirmed"],
    }
    if kind.mark:
        document["mark"] = kind.mark
    if kind.state:
        document["tcp"] = {"state": kind.state}
    return document


def services(number: int) -> Iterator[dict[str, Any]]:
    """Return matches for this number of IPv4 servers.

    Each match is a service with endpoints that have no connections.
    """
    kinds = [kind for kind in KINDS if kind.clients is not IPV6]
    for at in range(number):
        host, position = divmod(at, len(kinds))
        kind = kinds[position]
        server = int.from_bytes(kind.servers, "big") + (kind.number << 8) + host
        yield {
            "protocol": PROTOCOLS[kind.protocol],
            "destination": socket.inet_ntop(socket.AF_INET, server.to_bytes(4, "big")),
            "destination_port": kind.port,
            "except": {"reply_source": [f"203.0.113.{host}", "203.0.113.255"]},
        }


# The same entries as ctnetlink requests, built only from the definitions in the kernel's headers. The measured code is
# not used to fill the tables.

_NESTED = 0x8000
_ORIGINAL, _REPLY, _STATUS, _PROTOINFO, _TIMEOUT, _MARK = 1, 2, 3, 4, 7, 8
_NEW, _REQUEST, _CREATE_EXCLUSIVE = 0x100, 1, 0x600
_SOURCE, _DESTINATION, _PORT = (bytes([fill]) * 16 for fill in (0xA1, 0xA2, 0xA3))


class Template:
    """The request of a kind. Only addresses and one port differ from turn to turn."""

    def __init__(self, kind: Kind) -> None:
        size = len(kind.clients)
        self.kind = kind
        request = _request(kind, _SOURCE[:size], _DESTINATION[:size], _PORT[:2])
        self._fixed: list[bytes] = []
        for hole in (_SOURCE, _DESTINATION, _PORT, _DESTINATION, _SOURCE, _PORT):
            width = 2 if hole is _PORT else size
            before, _hole, request = request.partition(hole[:width])
            self._fixed.append(before)
        self._fixed.append(request)

    def request(self, turn: int) -> bytes:
        source, destination, number = ends(self.kind, turn)
        port = number.to_bytes(2, "big")
        a, b, c, d, e, f, g = self._fixed
        return b"".join((a, source, b, destination, c, port, d, destination, e, source, f, port, g))


def _request(kind: Kind, source: bytes, destination: bytes, port: bytes) -> bytes:
    service = struct.pack("!H", kind.port)
    body = _tuple(_ORIGINAL, source, destination, kind.protocol, port, service)
    body += _tuple(_REPLY, destination, source, kind.protocol, service, port)
    body += _attribute(_STATUS, struct.pack("!I", kind.status)) + _attribute(_TIMEOUT, struct.pack("!I", TIMEOUT))
    if kind.state:
        state = _attribute(1, bytes([TCP_STATES[kind.state]]))
        body += _attribute(_PROTOINFO | _NESTED, _attribute(1 | _NESTED, state))
    if kind.mark:
        body += _attribute(_MARK, struct.pack("!I", kind.mark))
    family = socket.AF_INET6 if kind.clients is IPV6 else socket.AF_INET
    return struct.pack("=IHHIIBBH", 20 + len(body), _NEW, _REQUEST | _CREATE_EXCLUSIVE, 0, 0, family, 0, 0) + body


def _tuple(number: int, source: bytes, destination: bytes, protocol: int, *ports: bytes) -> bytes:
    first = 3 if len(source) == 16 else 1
    addresses = _attribute(first, source) + _attribute(first + 1, destination)
    numbers = _attribute(1, bytes([protocol])) + _attribute(2, ports[0]) + _attribute(3, ports[1])
    return _attribute(number | _NESTED, _attribute(1 | _NESTED, addresses) + _attribute(2 | _NESTED, numbers))


def _attribute(number: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)
