# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connections through which this process is being run, so that a flush can spare them.

Whoever runs a command on a host comes in through a TCP connection that some ancestor of the
process holds: sshd, usually. sudo wipes the environment, and without root one sees nobody's
sockets but one's own, so two things are looked at, and whatever is found counts: the sockets of
the ancestors, and SSH_CONNECTION in the environment of the process and of its ancestors.

A process that has no SSH server among its ancestors has outlived the connection it was started
by, or never had one: an asynchronous task, a shell in tmux, a job of cron or systemd. An
environment may name a connection that is long over, and whoever waits for the process comes back
through another one, perhaps this very moment. So every connection to an SSH server of this host
counts then.

Source: sshd(8) on SSH_CONNECTION, proc(5) on PID/stat, PID/environ, PID/fd and net/tcp.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import AbstractSet, Any, Iterable, Iterator, NamedTuple

from . import uapi
from .term import Either, Every, Term, Told, Within, points
from .values import AF_INET, AF_INET6

_STATES = _ESTABLISHED, _LISTENING = "01", "0A"  # net/tcp_states.h
_MAPPED = bytes(10) + b"\xff\xff"
_LINK_LOCAL = b"\xfe\x80"
#: How the names of SSH servers' processes begin: OpenSSH has sshd, sshd-session and sshd-auth.
_SERVERS = ("sshd", "dropbear", "tinysshd")
#: Where SSH servers listen that cannot be looked into, for want of root or in another container.
_PORT = 22
_INIT = 1


class Endpoints(NamedTuple):
    """The two ends of a TCP connection as this host's socket sees them.

    With the local port alone: all connections to that port of any of this host's addresses.
    """

    local: bytes
    local_port: int
    peer: bytes
    peer_port: int


def own_connections(proc: str = "/proc", pid: int | None = None) -> frozenset[Endpoints]:
    """The connections that carry the session of process `pid` (this one), as far as can be told."""
    found: set[Endpoints] = set()
    if pid is None:
        pid = os.getpid()
        # A process with capabilities of its own, such as a file's, may not read what proc says of it.
        found.update(_parsed(os.environ.get("SSH_CONNECTION", "")))
    family = list(ancestors(proc, pid))
    for ancestor in family:
        found.update(_from_environment(proc, ancestor))
    found.update(connection for state, connection in _sockets(proc, family) if state == _ESTABLISHED)
    # Where init itself is an SSH server, as in some containers, an orphan is its child.
    if not found or not any(_is_server(proc, ancestor) for ancestor in family if ancestor != _INIT):
        found.update(_to_servers(proc))
    return frozenset(found)


def carried_by(connections: AbstractSet[Endpoints]) -> Term:
    """The term that holds for the entries of these connections.

    Either tuple, either way round: the original differs from what the socket sees where the
    destination is translated, the reply where the source is, and a flow that was picked up in the
    middle may have begun with a packet of ours.
    """
    tcp = Within(("original.protocol",), points([uapi.IPPROTO_TCP]))
    return Every((tcp, Either(tuple(_ways(connections)))))


def _ways(connections: Iterable[Endpoints]) -> Iterator[Term]:
    for local, local_port, peer, peer_port in connections:
        for direction in ("original", "reply"):
            if not local:
                # A server here is the one who answers; what is only routed to such a port is not meant.
                yield Every((_is(f"{direction}.source_port", local_port), _answered_here(f"{direction}.source")))
                continue
            for source, source_port, destination, destination_port in (
                (local, local_port, peer, peer_port),
                (peer, peer_port, local, local_port),
            ):
                yield Every(
                    (
                        _is(f"{direction}.source", source),
                        _is(f"{direction}.source_port", source_port),
                        _is(f"{direction}.destination", destination),
                        _is(f"{direction}.destination_port", destination_port),
                    )
                )


def _is(key: str, value: Any) -> Term:
    return Within((key,), points([value]))


def _answered_here(key: str) -> Term:
    return Told(lambda entry: key in entry and _is_local(entry[key]))


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


def _to_servers(proc: str) -> Iterator[Endpoints]:
    """All connections to this host's SSH servers, and those that begin while one looks."""
    yield _to_port(_PORT)
    servers = [pid for pid in _processes(proc) if _is_server(proc, pid)]
    for state, connection in _sockets(proc, servers):
        yield connection if state == _ESTABLISHED else _to_port(connection.local_port)


def _to_port(port: int) -> Endpoints:
    return Endpoints(b"", port, b"", 0)


def _processes(proc: str) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(proc) if name.isdecimal())
    except OSError:
        return []


def _is_server(proc: str, pid: int) -> bool:
    try:
        with open(os.path.join(proc, str(pid), "comm"), "rb") as file:
            return os.fsdecode(file.read()).startswith(_SERVERS)
    except OSError:
        return False


def _is_local(address: bytes) -> bool:
    """Whether the address is one of this host's, as its routing sees it; nothing is sent."""
    family = AF_INET if len(address) == 4 else AF_INET6
    text = socket.inet_ntop(family, address)
    if address[:2] == _LINK_LOCAL:  # is never routed
        return True
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((text, _PORT))
            return str(probe.getsockname()[0]) == text
    except OSError:
        return False


def _from_environment(proc: str, pid: int) -> list[Endpoints]:
    try:
        with open(os.path.join(proc, str(pid), "environ"), "rb") as file:
            variables = file.read().split(b"\0")
    except OSError:
        return []
    for variable in variables:
        name, _equals, value = variable.partition(b"=")
        if name == b"SSH_CONNECTION":
            return _parsed(value.decode("ascii", "replace"))
    return []


def _parsed(variable: str) -> list[Endpoints]:
    endpoints = parse_ssh_connection(variable)
    return [] if endpoints is None else [endpoints]


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


def _sockets(proc: str, pids: Iterable[int]) -> Iterator[tuple[str, Endpoints]]:
    """What these processes hold of listening sockets and of established ones, with the state of each.

    The list of a network namespace may be long and is read once for all processes in there.
    """
    inodes: dict[str, set[str]] = {}
    folders: dict[str, list[str]] = {}
    for pid in pids:
        held = _socket_inodes(proc, pid)
        if not held:
            continue
        folder = os.path.join(proc, str(pid))
        try:
            namespace = os.readlink(os.path.join(folder, "ns", "net"))
        except OSError:
            namespace = folder
        inodes.setdefault(namespace, set()).update(held)
        folders.setdefault(namespace, []).append(folder)
    for namespace, held in inodes.items():
        for file_name in ("tcp", "tcp6"):
            for local, peer, state in _listed(folders[namespace], file_name, held):
                yield state, Endpoints(*_end(local), *_end(peer))


def _listed(folders: list[str], file_name: str, inodes: set[str]) -> list[list[str]]:
    """The ends and the state of these sockets, from the first process that has not ended meanwhile."""
    for folder in folders:
        try:
            with open(os.path.join(folder, "net", file_name), encoding="ascii") as lines:
                table = map(str.split, lines)
                return [row[1:4] for row in table if len(row) > 9 and row[9] in inodes and row[3] in _STATES]
        except OSError:
            continue
    return []


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
