# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connections through which this process is being run, so that a flush can spare them.

Whoever runs a command on a host comes in through a TCP connection that some ancestor of the
process holds: sshd, usually. sudo wipes the environment and a daemon loses its ancestors, so
three things are looked at, and whatever is found counts: SSH_CONNECTION in the environment of the
process and of its ancestors, the sockets of the ancestors, and, only if neither gives anything,
the sockets of every sshd on the host.

Source: sshd(8) on SSH_CONNECTION, proc(5) on PID/stat, PID/environ, PID/fd and net/tcp.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Any, Iterator, Mapping, NamedTuple

from . import uapi
from .values import AF_INET, AF_INET6

_ESTABLISHED = "01"
_MAPPED = bytes(10) + b"\xff\xff"
_SERVERS = ("sshd", "dropbear")


class Endpoints(NamedTuple):
    """The two ends of a TCP connection as this host's socket sees them."""

    local: bytes
    local_port: int
    peer: bytes
    peer_port: int


def own_connections(proc: str = "/proc", pid: int | None = None) -> frozenset[Endpoints]:
    """The connections that carry the session of process `pid` (this one), as far as can be told."""
    found: set[Endpoints] = set()
    for ancestor in ancestors(proc, os.getpid() if pid is None else pid):
        found.update(_from_environment(proc, ancestor))
        found.update(_from_sockets(proc, ancestor))
    if not found:
        for server in _servers(proc):
            found.update(_from_sockets(proc, server))
    return frozenset(found)


def carries(entry: Mapping[str, Any], connections: frozenset[Endpoints]) -> bool:
    """Whether the entry is that of one of the connections.

    Either tuple, either way round: the original differs from what the socket sees where the
    destination is translated, the reply where the source is, and a flow that was picked up in the
    middle may have begun with a packet of ours.
    """
    if entry.get("original.protocol") != uapi.IPPROTO_TCP:
        return False
    for direction in ("original", "reply"):
        if f"{direction}.source" not in entry:
            continue
        source = (entry[f"{direction}.source"], entry.get(f"{direction}.source_port"))
        destination = (
            entry[f"{direction}.destination"],
            entry.get(f"{direction}.destination_port"),
        )
        if (*source, *destination) in connections or (*destination, *source) in connections:
            return True
    return False


def ancestors(proc: str, pid: int) -> Iterator[int]:
    """The process and its parents, up to init."""
    seen: set[int] = set()
    while pid > 0 and pid not in seen:
        yield pid
        seen.add(pid)
        try:
            with open(os.path.join(proc, str(pid), "stat"), "rb") as file:
                # The name, in parentheses, may itself hold spaces and parentheses.
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return


def _servers(proc: str) -> Iterator[int]:
    for name in os.listdir(proc):
        if not name.isdigit():
            continue
        try:
            with open(os.path.join(proc, name, "comm"), encoding="utf-8") as file:
                command = file.read().strip()
        except (OSError, UnicodeDecodeError):
            continue
        if command.startswith(_SERVERS):
            yield int(name)


def _from_environment(proc: str, pid: int) -> list[Endpoints]:
    try:
        with open(os.path.join(proc, str(pid), "environ"), "rb") as file:
            variables = file.read().split(b"\0")
    except OSError:
        return []
    for variable in variables:
        name, _equals, value = variable.partition(b"=")
        if name == b"SSH_CONNECTION":
            endpoints = parse_ssh_connection(value.decode("ascii", "replace"))
            return [] if endpoints is None else [endpoints]
    return []


def parse_ssh_connection(value: str) -> Endpoints | None:
    """The ends named in SSH_CONNECTION: client address and port, server address and port."""
    words = value.split()
    try:
        peer, peer_port, local, local_port = words
        return Endpoints(_address(local), int(local_port), _address(peer), int(peer_port))
    except (OSError, ValueError):
        return None


def _address(text: str) -> bytes:
    text = text.partition("%")[0]
    address = socket.inet_pton(AF_INET6 if ":" in text else AF_INET, text)
    return _unmapped(address)


def _unmapped(address: bytes) -> bytes:
    """An IPv4 address that a dual-stack socket shows inside an IPv6 one is IPv4 on the wire."""
    return address[12:] if len(address) == 16 and address.startswith(_MAPPED) else address


def _from_sockets(proc: str, pid: int) -> Iterator[Endpoints]:
    inodes = _socket_inodes(proc, pid)
    if not inodes:
        return
    for file_name in ("tcp", "tcp6"):
        try:
            with open(os.path.join(proc, str(pid), "net", file_name), encoding="ascii") as lines:
                next(lines, None)
                for line in lines:
                    fields = line.split()
                    if len(fields) > 9 and fields[3] == _ESTABLISHED and fields[9] in inodes:
                        yield Endpoints(*_end(fields[1]), *_end(fields[2]))
        except OSError:
            continue


def _socket_inodes(proc: str, pid: int) -> set[str]:
    folder = os.path.join(proc, str(pid), "fd")
    inodes: set[str] = set()
    try:
        descriptors = os.listdir(folder)
    except OSError:
        return inodes
    for descriptor in descriptors:
        try:
            target = os.readlink(os.path.join(folder, descriptor))
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[len("socket:[") : -1])
    return inodes


def _end(text: str) -> tuple[bytes, int]:
    """`0100007F:0016`: the address in 32-bit words of this host's byte order, the port as it is."""
    address, _colon, port = text.partition(":")
    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
    return _unmapped(struct.pack(f"={len(words)}I", *words)), int(port, 16)
