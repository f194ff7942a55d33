# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The SSH connections that run this process, so that a flush can keep their entries.

An ancestor of the process, usually sshd, has the socket of the connection. sudo removes the environment, and only root
sees the sockets of other users. Two sources are therefore used, and all connections of both count:

- the sockets of the ancestors
- SSH_CONNECTION in the environment of the process and of its ancestors

A process without an SSH server among its ancestors was detached from its connection, or never had one: an asynchronous
task, a shell in tmux, a job of cron or systemd. Its environment may name a connection that has ended, and the client
may connect again at any time. All connections to SSH servers of this host then count.

The peer of sshd may be a program on this host that forwards connections, such as sslh, haproxy, stunnel or socat. The
operator's connection is then one of the other connections of the program, and these count, too.

Source: sshd(8) on SSH_CONNECTION, proc(5) on PID/stat, PID/environ, PID/fd, net/tcp and net/sockstat.
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
#: Prefixes of the process names of SSH servers: OpenSSH has sshd, sshd-session and sshd-auth.
_SERVERS = ("sshd", "dropbear", "tinysshd")
#: The port of SSH servers whose sockets cannot be read, without root or in another container.
_PORT = 22
_INIT = 1
#: Searches for the process that holds a socket
_ATTEMPTS = 3
#: The inode of a socket without a process
_NO_INODE = "0"
_WITHOUT = "or set keep_ssh: false if the module has this option"

#: The keys of both ends in a tuple.
_ENDS = ("source", "source_port", "destination", "destination_port")
#: An address and a port.
_End = Tuple[bytes, int]


class SessionUnknown(ConntrackError):
    """The connection that carries the session cannot be found, so it cannot be kept."""


class TcpConnection(NamedTuple):
    """The addresses (bytes) and ports of a TCP connection, as the socket on this host has them.

    An empty `local` stands for all connections to the local port of any address of this host.
    """

    local: bytes
    local_port: int
    peer: bytes
    peer_port: int


def own_connections(proc: str = "/proc", pid: int | None = None) -> frozenset[TcpConnection]:
    """Return the SSH connections that run process `pid` (by default, this process). May be empty.

    Raises `SessionUnknown` if /proc is not mounted and the environment is not enough, and if a program of another user
    on this host forwards the connection.
    """
    found: set[TcpConnection] = set()
    if pid is None:
        pid = _own_pid(proc)
        # A process with file capabilities may not read its own files in /proc
        found.update(parse_ssh_connection(os.environ.get("SSH_CONNECTION", "")))
    family = list(ancestors(proc, pid))
    for ancestor in family:
        found.update(_from_environment(proc, ancestor))
    found.update(connection for state, connection in _sockets(proc, family) if state == _ESTABLISHED)
    # In containers where init is an SSH server, an orphan is its child
    detached = not any(_is_server(proc, ancestor) for ancestor in family if ancestor != _INIT)
    if not processes(proc):
        _check_known(proc, found)
    if not found or detached:
        found.update(_to_servers(proc))
    found.update(_forwarders(proc, family, found, detached))
    return frozenset(found)


def _own_pid(proc: str) -> int:
    """Return the ID that this process has in /proc, which can be that of another PID namespace than its own."""
    try:
        return int(os.readlink(os.path.join(proc, "self")))
    except (OSError, ValueError):
        return os.getpid()


def _check_known(proc: str, connections: AbstractSet[TcpConnection]) -> None:
    """Raise `SessionUnknown` if these connections, found without /proc, are not enough."""
    if not connections:
        raise SessionUnknown(
            f"The SSH connection of this task cannot be found: {proc} is not mounted and SSH_CONNECTION is not set; "
            f"mount {proc}, let sudo keep SSH_CONNECTION (env_keep in sudoers), {_WITHOUT}"
        )
    for connection in sorted(connections):
        if is_local(connection.peer):
            raise _unknown_peer(connection.peer, connection.peer_port, f"mount {proc}")


def _unknown_peer(address: bytes, port: int, cure: str) -> SessionUnknown:
    text = socket.inet_ntop(AF_INET if len(address) == 4 else AF_INET6, address)
    return SessionUnknown(
        f"The SSH connection of this task comes from a program on this host ({text} port {port}), and the program's "
        f"own connections cannot be seen; {cure}, {_WITHOUT}"
    )


def _forwarders(
    proc: str, family: Iterable[int], connections: Iterable[TcpConnection], detached: bool
) -> Iterator[TcpConnection]:
    """Yield the connections of programs on this host that are peers of these connections, and of their peers.

    With `detached`, also future connections to these programs.
    """
    seen = set(family)
    searched: set[_End] = set()
    ends = {(connection.peer, connection.peer_port) for connection in connections if connection.local}
    while ends:
        searched |= ends
        programs = _processes_with(proc, ends)
        ends = set()
        for state, connection in _sockets(proc, programs - seen):
            if state == _ESTABLISHED:
                yield connection
                ends.add((connection.peer, connection.peer_port))
            elif detached:
                yield _to_port(connection.local_port)
        seen |= programs
        ends -= searched


def _clients_at(proc: str, ends: AbstractSet[_End]) -> dict[str, _End]:
    """Return the inodes of established sockets with these local ends, in all network namespaces that can be read.

    Sockets of servers are left out: a connection to a server on this host does not come from the operator.
    """
    ports = {f":{port:04X}" for _address, port in ends}
    found: dict[str, _End] = {}
    for folders in _namespaces(proc):
        established: dict[str, _End] = {}
        listening: set[_End] = set()
        for file_name in _lists_with_sockets(folders):
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


def _processes_with(proc: str, ends: AbstractSet[_End]) -> set[int]:
    """Return the processes on this host that have sockets with these local ends.

    A program may close its socket, or pass it to another process, during the search. A socket without a visible process
    is therefore searched again. Raises `SessionUnknown` if it still exists.
    """
    found: set[int] = set()
    sockets = _clients_at(proc, ends)
    unseen = sockets
    for _attempt in range(_ATTEMPTS):
        if not unseen:
            return found
        for pid in processes(proc):
            held = socket_inodes(proc, pid) & sockets.keys()  # several processes may have the same socket
            if held:
                found.add(pid)
                unseen = {inode: end for inode, end in unseen.items() if inode not in held}
        if unseen:
            present = _clients_at(proc, ends)
            unseen = {inode: end for inode, end in unseen.items() if inode in present}
    if unseen:
        raise _unknown_peer(*unseen[min(unseen)], "run as root on the host itself (become: true)")
    return found


def _namespaces(proc: str) -> list[list[str]]:
    """Return the folders of the processes in each network namespace."""
    found: dict[str, list[str]] = {}
    for pid in processes(proc):
        folder = os.path.join(proc, str(pid))
        with contextlib.suppress(OSError):
            found.setdefault(os.readlink(os.path.join(folder, "ns", "net")), []).append(folder)
    return list(found.values())


def match_connections(connections: AbstractSet[TcpConnection]) -> Term:
    """Return the term that matches the entries of these connections.

    It compares both tuples, in both directions. With destination NAT, the original tuple differs from the socket's
    addresses; with source NAT, the reply tuple does. An entry that was picked up in the middle may begin with a packet
    of this host.
    """
    tcp = InRanges(("original.protocol",), points([uapi.IPPROTO_TCP]))
    return And((tcp, Or(tuple(_either_direction(connections)))))


def _either_direction(connections: Iterable[TcpConnection]) -> Iterator[Term]:
    for local, local_port, peer, peer_port in connections:
        for direction in ("original", "reply"):
            if not local:
                # The server must be on this host. Connections that are routed to such a port do not match
                yield And((_is(f"{direction}.source_port", local_port), _answered_here(f"{direction}.source")))
                continue
            for values in ((local, local_port, peer, peer_port), (peer, peer_port, local, local_port)):
                yield And(tuple(_is(f"{direction}.{name}", value) for name, value in zip(_ENDS, values)))


def _is(key: str, value: Any) -> Term:
    return InRanges((key,), points([value]))


def _answered_here(key: str) -> Term:
    return Predicate(lambda entry: key in entry and is_local(entry[key]))


def ancestors(proc: str, pid: int) -> Iterator[int]:
    """Yield the process and its parents, up to init."""
    seen: set[int] = set()
    while pid > 0 and pid not in seen:
        yield pid
        seen.add(pid)
        try:
            # The name, in parentheses, may contain spaces and parentheses
            pid = int(read_file(proc, pid, "stat").rpartition(b")")[2].split()[1])
        except (ValueError, IndexError):
            return


def read_file(proc: str, pid: int, file_name: str) -> bytes:
    """Return the content of a file of a process, empty if it cannot be read."""
    with contextlib.suppress(OSError), open(os.path.join(proc, str(pid), file_name), "rb") as file:
        return file.read()
    return b""


def _to_servers(proc: str) -> Iterator[TcpConnection]:
    """Yield all connections to SSH servers of this host, also future ones."""
    yield _to_port(_PORT)
    servers = [pid for pid in processes(proc) if _is_server(proc, pid)]
    for state, connection in _sockets(proc, servers):
        yield connection if state == _ESTABLISHED else _to_port(connection.local_port)


def _to_port(port: int) -> TcpConnection:
    return TcpConnection(b"", port, b"", 0)


def processes(proc: str) -> list[int]:
    """Return the IDs of all processes, in ascending order. Empty if they cannot be listed."""
    try:
        return sorted(int(name) for name in os.listdir(proc) if name.isdecimal())
    except OSError:
        return []


def _is_server(proc: str, pid: int) -> bool:
    return os.fsdecode(read_file(proc, pid, "comm")).startswith(_SERVERS)


def is_local(address: bytes) -> bool:
    """Whether this host has the address, according to its routing. Nothing is sent."""
    family = AF_INET if len(address) == 4 else AF_INET6
    text = socket.inet_ntop(family, address)
    if address[:2] == _LINK_LOCAL:  # never routed
        return True
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((text, _PORT))
            return str(probe.getsockname()[0]) == text
    except OSError:
        return False


def _from_environment(proc: str, pid: int) -> list[TcpConnection]:
    for variable in read_file(proc, pid, "environ").split(b"\0"):
        name, _equals, value = variable.partition(b"=")
        if name == b"SSH_CONNECTION":
            return parse_ssh_connection(value.decode("ascii", "replace"))
    return []


def parse_ssh_connection(value: str) -> list[TcpConnection]:
    """Parse SSH_CONNECTION: client address and port, server address and port. Returns nothing if it is malformed."""
    try:
        peer, peer_port, local, local_port = value.split()
        return [TcpConnection(_address(local), int(local_port), _address(peer), int(peer_port))]
    except (OSError, ValueError):
        return []


def _address(text: str) -> bytes:
    text = text.partition("%")[0]
    return _unmapped(socket.inet_pton(AF_INET6 if ":" in text else AF_INET, text))


def _unmapped(address: bytes) -> bytes:
    """Return the IPv4 address inside an IPv4-mapped IPv6 address, as dual-stack sockets have them."""
    return address[12:] if len(address) == 16 and address.startswith(_MAPPED) else address


def _sockets(proc: str, pids: Iterable[int]) -> Iterator[tuple[str, TcpConnection]]:
    """Yield the listening and established sockets of these processes, each with its state.

    The list of a network namespace may be long. It is read once for all processes in it.
    """
    inodes: dict[str, set[str]] = {}
    folders: dict[str, list[str]] = {}
    for pid in pids:
        held = socket_inodes(proc, pid)
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
    """Yield the local end, peer, state and inode of sockets, from the first process that still exists."""
    for folder in folders:
        with contextlib.suppress(OSError), open(os.path.join(folder, "net", file_name), encoding="ascii") as lines:
            for row in map(str.split, lines):
                if len(row) > 9 and row[3] in _STATES:
                    yield row[1], row[2], row[3], row[9]
            return


def _lists_with_sockets(folders: list[str]) -> list[str]:
    """Return the names of the lists that can contain sockets, according to the kernel's counts.

    To list the sockets of one namespace, the kernel walks its hash table of the sockets of all namespaces. That takes
    a millisecond, also if it finds none, and a host of containers has hundreds of namespaces. Many kernels
    leave sockets of MPTCP out of the count of TCP over IPv6, so that list counts as empty only without any socket.
    """
    for folder in folders:
        with contextlib.suppress(OSError), open(os.path.join(folder, "net", "sockstat"), encoding="ascii") as lines:
            rows = [line.split() for line in lines]
            counts = {row[0]: row[2] for row in rows if len(row) > 2}
            sure = {"tcp": counts.get("TCP:") == "0", "tcp6": counts.get("sockets:") == "0"}
            return [name for name, empty in sure.items() if not empty]
    return ["tcp", "tcp6"]


def socket_inodes(proc: str, pid: int) -> set[str]:
    """Return the inodes of the sockets of a process, as far as they can be read."""
    folder = os.path.join(proc, str(pid), "fd")
    inodes: set[str] = set()
    with contextlib.suppress(OSError):
        for descriptor in os.listdir(folder):
            with contextlib.suppress(OSError):  # closed meanwhile
                target = os.readlink(os.path.join(folder, descriptor))
                if target.startswith("socket:["):
                    inodes.add(target[len("socket:[") : -1])
    return inodes


def _end(text: str) -> tuple[bytes, int]:
    """Parse `0100007F:0016`: the address in 32-bit words of this host's byte order, and the port."""
    address, _colon, port = text.partition(":")
    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
    return _unmapped(struct.pack(f"={len(words)}I", *words)), int(port, 16)
