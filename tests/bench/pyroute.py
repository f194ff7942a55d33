# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The same works with pyroute2, as its documentation shows them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

from pyroute2 import NFCTSocket
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple

from . import mix

Work = Callable[[], int]


def read() -> Work:
    """Read and decode every entry."""

    def work() -> int:
        with NFCTSocket(nfgen_family=socket.AF_UNSPEC) as conntrack:
            return sum(1 for _entry in conntrack.dump())

    return work


def create_each(entries: str) -> Work:
    """Create IPv4 entries with one request each, and wait for each reply."""
    return _each("add", entries)


def get_each(entries: str) -> Work:
    """Read each entry by its tuple."""
    return _each("get", entries)


def delete_each(entries: str) -> Work:
    """Delete each entry by its tuple."""
    return _each("del", entries)


def _each(command: str, entries: str) -> Work:
    prepared = list(_arguments(command, int(entries)))

    def work() -> int:
        with NFCTSocket() as conntrack:
            for arguments in prepared:
                conntrack.entry(command, **arguments)
        return len(prepared)

    return work


def _arguments(command: str, entries: int) -> Iterator[dict[str, Any]]:
    kind = mix.KINDS[0]
    for turn in range(entries):
        source, destination, port = mix.ends(kind, turn)
        original = NFCTAttrTuple(
            family=socket.AF_INET,
            saddr=socket.inet_ntoa(source),
            daddr=socket.inet_ntoa(destination),
            proto=kind.protocol,
            sport=port,
            dport=kind.port,
        )
        more = {"tuple_reply": original.reverse(), "timeout": mix.TIMEOUT} if command == "add" else {}
        yield {"tuple_orig": original, **more}
