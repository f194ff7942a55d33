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

sshd's peer may be a program on this host that accepts connections and passes them on, such as sslh, haproxy,
stunnel or socat. The entry of the operator's connection is then that of the program's other socket, so all
connections of the program are found as well.

Source: sshd(8) on SSH_CONNECTION, proc(5) on PID/stat, PID/environ, PID/fd and net/tcp.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import AbstractSet, Any, Iterable, Iterator, NamedTuple, Tuple

from .. import uapi
from ..codec.types import AF_INET, AF_INET6
from ..errors import ConntrackError
from ..match.expression import And, InRanges, Or, Predicate, Term, points

_STATES = _ESTABLISHED, _LISTENING = "01", "0A"  # net/tcp_states.h
_MAPPED = bytes(10) + b"\xff\xff"
_LINK_LOCAL = b"\xfe\x80"
#: How the names of SSH servers' processes begin: OpenSSH has sshd, sshd-session and sshd-auth.
_SERVERS = ("sshd", "dropbear", "tinysshd")
#: Where SSH servers listen that cannot be looked into, for want of root or in another container.
_PORT = 22
_INIT = 1
#: Searches for the process that holds a socket
_ATTEMPTS = 3
#: Of a socket that no process holds
_NO_INODE = "0"
_WITHOUT = "or set keep_ssh: false if the module has this option"

#: An address and a port.
_End = Tuple[bytes, int]


class SessionUnknown(ConntrackError):
    """The connection that carries the session cannot be found, so it cannot be kept."""


class TcpConnection(NamedTuple):
    """The two ends of a TCP connection as this host's socket sees them.

    With the local port alone: all connections to that port of any of this host's addresses.
    """

    local: bytes
    local_port: int
    peer: bytes
    peer_port: int


def own_connections(proc: str = "/proc", pid: int | None = None) -> frozenset[TcpConnection]:
    """The connections that carry the session of process `pid` (this one).

    Raises `SessionUnknown` without /proc, and if another user's program on this host passes the session on.
    """
    found: set[TcpConnection] = set()
    if pid is None:
        pid = os.getpid()
        # A process with capabilities of its own, such as a file's, may not read what proc says of it.
        found.update(_parsed(os.environ.get("SSH_CONNECTION", "")))
    family = list(ancestors(proc, pid))
    for ancestor in family:
        found.update(_from_environment(proc, ancestor))
    found.update(connection for state, connection in _sockets(proc, family) if state == _ESTABLISHED)
    # Where init itself is an SSH server, as in some containers, an orphan is its child.
    detached = not any(_is_server(proc, ancestor) for ancestor in family if ancestor != _INIT)
    if not _processes(proc):
        _check_known(proc, found)
    if not found or detached:
        found.update(_to_servers(proc))
    found.update(_passed_on(proc, family, found, detached))
    return frozenset(found)


def _check_known(proc: str, connections: AbstractSet[TcpConnection]) -> None:
    """`SessionUnknown` where these connections, found without /proc, are not enough."""
    if not connections:
        raise SessionUnknown(
            f"The SSH connection of this task cannot be found: {proc} is not mounted and SSH_CONNECTION is not set; "
            f"mount {proc}, let sudo keep SSH_CONNECTION (env_keep in sudoers), {_WITHOUT}"
        )
    for connection in sorted(connections):
        if _is_local(connection.peer):
            raise _unseen(connection.peer, connection.peer_port, f"mount {proc}")


def _unseen(address: bytes, port: int, cure: str) -> SessionUnknown:
    text = socket.inet_ntop(AF_INET if len(address) == 4 else AF_INET6, address)
    return SessionUnknown(
        f"The SSH connection of this task comes from a program on this host ({text} port {port}), and the program's "
        f"own connections cannot be seen; {cure}, {_WITHOUT}"
    )


def _passed_on(
    proc: str, family: Iterable[int], connections: Iterable[TcpConnection], detached: bool
) -> Iterator[TcpConnection]:
    """The connections of the programs on this host that are the peers of these connections, and of their peers.

    With `detached`, also the connections to come to these programs.
    """
    seen = set(family)
    asked: set[_End] = set()
    ends = {(connection.peer, connection.peer_port) for connection in connections if connection.local}
    while ends:
        asked |= ends
        programs = _holders(proc, ends)
        ends = set()
        for state, connection in _sockets(proc, programs - seen):
            if state == _ESTABLISHED:
                yield connection
                ends.add((connection.peer, connection.peer_port))
            elif detached:
                yield _to_port(connection.local_port)
        seen |= programs
        ends -= asked


def _clients_at(proc: str, ends: AbstractSet[_End]) -> dict[str, _End]:
    """The inodes of established sockets with these local ends, in any network namespace that can be read.

    Sockets of servers are left out: a connection to a server on this host does not lead to the operator.
    """
    ports = {f":{port:04X}" for _address, port in ends}
    found: dict[str, _End] = {}
    for folders in _namespaces(proc):
        established: dict[str, _End] = {}
        listening: set[_End] = set()
        for file_name in ("tcp", "tcp6"):
            for local, _peer, state, inode in _listed(folders, file_name):
                if local[-5:] not in ports:
                    continue
                if state == _LISTENING:
                    listening.add(_end(local))
                elif inode != _NO_INODE and _end(local) in ends:
                    established[inode] = _end(local)
        served = {(address if any(address) else b"", port) for address, port in listening}
        found.update((inode, end) for inode, end in established.items() if not served & {end, (b"", end[1])})
    return found


def _holders(proc: str, ends: AbstractSet[_End]) -> set[int]:
    """The processes on this host that hold sockets with these local ends.

    A program may close its socket, or pass it to another process, while the processes are searched. Therefore a
    socket without a visible process is looked up again. Raises `SessionUnknown` if it is still there.
    """
    found: set[int] = set()
    sockets = _clients_at(proc, ends)
    unseen = sockets
    for _attempt in range(_ATTEMPTS):
        if not unseen:
            return found
        for pid in _processes(proc):
            held = _socket_inodes(proc, pid) & sockets.keys()  # several processes may hold one
            if held:
                found.add(pid)
                unseen = {inode: end for inode, end in unseen.items() if inode not in held}
        if unseen:
            present = _clients_at(proc, ends)
            unseen = {inode: end for inode, end in unseen.items() if inode in present}
    if unseen:
        raise _unseen(*unseen[min(unseen)], "run as root on the host itself (become: true)")
    return found


def _namespaces(proc: str) -> list[list[str]]:
    """The folders of the processes in each network namespace."""
    found: dict[str, list[str]] = {}
    for pid in _processes(proc):
        folder = os.path.join(proc, str(pid))
        with contextlib.suppress(OSError):
            found.setdefault(os.readlink(os.path.join(folder, "ns", "net")), []).append(folder)
    return list(found.values())


def match_connections(connections: AbstractSet[TcpConnection]) -> Term:
    """The term that holds for the entries of these connections.

    Either tuple, either way round: the original differs from what the socket sees where the
    destination is translated, the reply where the source is, and a flow that was picked up in the
    middle may have begun with a packet of ours.
    """
    tcp = InRanges(("original.protocol",), points([uapi.IPPROTO_TCP]))
    return And((tcp, Or(tuple(_ways(connections)))))


def _ways(connections: Iterable[TcpConnection]) -> Iterator[Term]:
    for local, local_port, peer, peer_port in connections:
        for direction in ("original", "reply"):
            if not local:
                # A server here is the one who answers; what is only routed to such a port is not meant.
                yield And((_is(f"{direction}.source_port", local_port), _answered_here(f"{direction}.source")))
                continue
            for source, source_port, destination, destination_port in (
                (local, local_port, peer, peer_port),
                (peer, peer_port, local, local_port),
            ):
                yield And(
                    (
                        _is(f"{direction}.source", source),
                        _is(f"{direction}.source_port", source_port),
                        _is(f"{direction}.destination", destination),
                        _is(f"{direction}.destination_port", destination_port),
                    )
                )


def _is(key: str, value: Any) -> Term:
    return InRanges((key,), points([value]))


def _answered_here(key: str) -> Term:
    return Predicate(lambda entry: key in entry and _is_local(entry[key]))


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


def _to_servers(proc: str) -> Iterator[TcpConnection]:
    """All connections to this host's SSH servers, and those that begin while one looks."""
    yield _to_port(_PORT)
    servers = [pid for pid in _processes(proc) if _is_server(proc, pid)]
    for state, connection in _sockets(proc, servers):
        yield connection if state == _ESTABLISHED else _to_port(connection.local_port)


def _to_port(port: int) -> TcpConnection:
    return TcpConnection(b"", port, b"", 0)


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


def _from_environment(proc: str, pid: int) -> list[TcpConnection]:
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


def _parsed(variable: str) -> list[TcpConnection]:
    endpoints = parse_ssh_connection(variable)
    return [] if endpoints is None else [endpoints]


def parse_ssh_connection(value: str) -> TcpConnection | None:
    """The ends named in SSH_CONNECTION: client address and port, server address and port."""
    words = value.split()
    try:
        peer, peer_port, local, local_port = words
        return TcpConnection(_address(local), int(local_port), _address(peer), int(peer_port))
    except (OSError, ValueError):
        return None


def _address(text: str) -> bytes:
    text = text.partition("%")[0]
    address = socket.inet_pton(AF_INET6 if ":" in text else AF_INET, text)
    return _unmapped(address)


def _unmapped(address: bytes) -> bytes:
    """An IPv4 address that a dual-stack socket shows inside an IPv6 one is IPv4 on the wire."""
    return address[12:] if len(address) == 16 and address.startswith(_MAPPED) else address


def _sockets(proc: str, pids: Iterable[int]) -> Iterator[tuple[str, TcpConnection]]:
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
            for local, peer, state, inode in _listed(folders[namespace], file_name):
                if inode in held:
                    yield state, TcpConnection(*_end(local), *_end(peer))


def _listed(folders: list[str], file_name: str) -> Iterator[tuple[str, str, str, str]]:
    """The ends, state and inode of sockets, from the first process that still exists."""
    for folder in folders:
        with contextlib.suppress(OSError), open(os.path.join(folder, "net", file_name), encoding="ascii") as lines:
            for row in map(str.split, lines):
                if len(row) > 9 and row[3] in _STATES:
                    yield row[1], row[2], row[3], row[9]
            return


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
