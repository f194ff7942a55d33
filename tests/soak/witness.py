# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Count the changes that requests caused, as the kernel reports them, without the code under test.

An event has the port of the netlink socket that requested the change; if an entry expires or a packet changes it, that
is 0. A filter in the kernel passes only the former, so the few events of the requests do not compete with those of the
traffic for the receive buffer.

Source: ctnetlink_conntrack_event in net/netfilter/nf_conntrack_netlink.c (nlmsg_pid is item->portid).
"""

from __future__ import annotations

import contextlib
import ctypes
import select
import socket
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.lab import Namespace

from .children import Stop

NETLINK_NETFILTER = 12
SO_ATTACH_FILTER, SO_RCVBUFFORCE = 26, 33
BUFFER = 256 << 20
NEW, UPDATE, DESTROY = 1, 2, 4
NLM_F_CREATE = 0x400
DELETE = 2
HEADER, ATTRIBUTE, INSTRUCTION = struct.Struct("=IHHII"), struct.Struct("=HH"), struct.Struct("=HBBI")
NFGENMSG = 4
CTA_TUPLE_ORIG, CTA_TUPLE_PROTO, CTA_PROTO_DST_PORT = 1, 2, 3
#: BPF: load nlmsg_pid. If it is 0, drop the event, otherwise pass it.
REQUESTED = ((0x20, 0, 0, 12), (0x15, 0, 1, 0), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


def watch(stop: Stop, ready: Callable[[], None], namespaces: dict[str, Namespace]) -> dict[str, Any]:
    """Count until the parent requests the end.

    :returns: For each namespace the number of events by (kind, destination port), and `lost`: how often the kernel
        reported that the buffer was full.
    """
    counts: dict[str, Counter[tuple[str, int]]] = {name: Counter() for name in namespaces}
    lost = 0
    poll = select.epoll()
    sockets: dict[int, tuple[str, socket.socket]] = {}
    for name, namespace in namespaces.items():
        with namespace.entered():
            subscribed = _subscribe()
        sockets[subscribed.fileno()] = (name, subscribed)
        poll.register(subscribed, select.EPOLLIN)
    poll.register(stop, select.EPOLLIN)
    ready()
    stopped = False
    while True:
        found = dict(poll.poll(0 if stopped else None))
        # The kernel reports a change before it answers the request, so no more events can arrive now
        if stopped and found.keys() <= {stop.fileno()}:
            return {"counts": counts, "lost": lost}
        stopped = stopped or stop.fileno() in found
        for fd in found.keys() & sockets.keys():
            name, subscribed = sockets[fd]
            try:
                counts[name].update(_events(subscribed.recv(1 << 16)))
            except BlockingIOError:
                pass
            except OSError:  # ENOBUFS
                lost += 1


def _subscribe() -> socket.socket:
    subscribed = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_NETFILTER)
    subscribed.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    with contextlib.suppress(PermissionError):  # in a user namespace
        subscribed.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    program = ctypes.create_string_buffer(b"".join(INSTRUCTION.pack(*each) for each in REQUESTED))
    filter_ = struct.pack("HP", len(REQUESTED), ctypes.addressof(program))
    subscribed.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filter_)
    subscribed.bind((0, NEW | UPDATE | DESTROY))
    return subscribed


def _events(datagram: bytes) -> list[tuple[str, int]]:
    """Return the kind and the destination port of each event in a datagram."""
    events = []
    start = 0
    while start + HEADER.size <= len(datagram):
        length, kind, flags, _sequence, port = HEADER.unpack_from(datagram, start)
        if port == 0:
            raise AssertionError("the filter passed an event that no request caused")
        name = "destroy" if kind & 0xFF == DELETE else "new" if flags & NLM_F_CREATE else "update"
        events.append((name, _destination_port(datagram[start + HEADER.size + NFGENMSG : start + length])))
        start += (length + 3) & ~3
    return events


def _destination_port(attributes: bytes) -> int:
    for number in (CTA_TUPLE_ORIG, CTA_TUPLE_PROTO, CTA_PROTO_DST_PORT):
        attributes = _attribute(attributes, number)
    return int.from_bytes(attributes, "big")


def _attribute(attributes: bytes, wanted: int) -> bytes:
    """Return the content of an attribute, empty if it is absent."""
    start = 0
    while start + ATTRIBUTE.size <= len(attributes):
        length, number = ATTRIBUTE.unpack_from(attributes, start)
        if number & 0x3FFF == wanted:
            return attributes[start + ATTRIBUTE.size : start + length]
        start += max(ATTRIBUTE.size, (length + 3) & ~3)
    return b""
