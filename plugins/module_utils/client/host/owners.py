# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes, users, systemd units and containers that own the flows of entries.

A flow has an owner if one of its ends is a socket on this host. The sockets of the network namespace of this thread are
searched first. A flow that is routed to another network namespace, such as that of a container, is searched in all
namespaces that have processes and can be entered. Loopback and link-local addresses, which every namespace has, are
searched only in that of this thread.

Source: proc(5) on PID/fd, PID/status and PID/cgroup; cgroups(7); https://systemd.io/CGROUP_DELEGATION.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any, Mapping, NamedTuple, Sequence

from .. import uapi
from ..errors import ConntrackError
from . import namespace, namespaces
from .sockets import Ends, LocalSocket, ends_of, open_socket, receiving, without_peer
from .ssh_session import is_local, processes, read_file, socket_inodes

_INIT = 1
#: The first bytes of addresses that every network namespace can have.
_EVERYWHERE = {4: (b"\x7f", b"\xa9\xfe"), 16: (bytes(15) + b"\x01", b"\xfe\x80")}
#: The names of cgroups that systemd uses for processes of a unit.
_UNIT = re.compile(r"[^/]+\.(?:service|scope|socket|mount|swap)")
#: The names of cgroups of Docker, Podman, containerd and CRI-O; of LXC; of systemd-nspawn.
_CONTAINER = re.compile(
    r"(?:^|[/:-])([0-9a-f]{64})(?=[./]|$)|/lxc(?:\.payload\.|/)([^/]+)|/systemd-nspawn@([^/]+)\.service"
)


class Owner(NamedTuple):
    """The owner of a socket. A value is None if it is unknown, or if there is none.

    `process` and `pid` are the name and ID of a process, `user` is a name or a number. `unit` is a unit of the system
    manager, and `container` the ID or name of a container, both by the cgroup.
    """

    process: str | None
    pid: int | None
    user: str | None
    unit: str | None
    container: str | None


def find_owners(entries: Sequence[Mapping[str, Any]], proc: str = "/proc") -> list[Owner | None]:
    """Return the owner of each entry (a flat mapping), in order.

    The owner is None if this host has no socket of the entry. Raises `KernelError` if the sockets of the host cannot be
    read.
    """
    found: dict[int, LocalSocket] = {}
    left: dict[int, list[Ends]] = {}
    here = _Namespace()
    for place, entry in enumerate(entries):
        ends = list(ends_of(entry))
        one = here.find(ends)
        if one is not None:
            found[place] = one
        else:
            routed = [each for each in ends if not (each[1].startswith(_EVERYWHERE[len(each[1])]) or here.has(each[1]))]
            if routed:
                left[place] = routed
    if left:
        found.update(namespace.run_in_thread(lambda: _find_elsewhere(left, proc)))
    pids = _processes_of({str(one.inode) for one in found.values() if one.inode}, proc)
    owners = {place: _owner(one, pids.get(str(one.inode)), proc) for place, one in found.items()}
    return [owners.get(place) for place in range(len(entries))]


class _Namespace:
    """The sockets and addresses of the network namespace of this thread."""

    def __init__(self) -> None:
        with open_socket() as netlink:
            self._sockets = receiving(netlink)
        self._addresses: dict[bytes, bool] = {}

    def has(self, address: bytes) -> bool:
        """Return whether the namespace has an address."""
        if address not in self._addresses:
            self._addresses[address] = is_local(address)
        return self._addresses[address]

    def find(self, possible: Sequence[Ends]) -> LocalSocket | None:
        """Return the socket with these ends, or the one without a peer that receives the packets of the flow."""
        for ends in possible:
            for each in (ends, *without_peer(ends)) if ends[0] == uapi.IPPROTO_UDP else (ends,):
                sockets = self._sockets.get(each)
                # Packets that are routed to others do not reach a socket without address and peer
                if sockets and (each[1] == ends[1] or self.has(ends[1])):
                    return sockets[0]
        return None


def _find_elsewhere(wanted: Mapping[int, Sequence[Ends]], proc: str) -> dict[int, LocalSocket]:
    """Return the sockets with the wanted ends in the other network namespaces. The calling thread enters them.

    Searched are those that have processes and can be entered.
    """
    found: dict[int, LocalSocket] = {}
    with contextlib.suppress(ConntrackError):  # no /proc, or this thread cannot enter namespaces
        others = [one for one in namespaces.find_all(proc=proc)[0][1:] if one.pids]
        for _entered, error in namespaces.visit(others):
            left = {place: ends for place, ends in wanted.items() if place not in found}
            if not left:
                break
            if error is None:
                with contextlib.suppress(OSError, ConntrackError):
                    there = _Namespace()
                    each = ((place, there.find(ends)) for place, ends in left.items())
                    found.update((place, one) for place, one in each if one is not None)
    return found


def _processes_of(inodes: set[str], proc: str) -> dict[str, int]:
    """Return the process that has each socket, the one that started first.

    systemd keeps the sockets that it passes to services, so init counts only if no other process has the socket.
    """
    found: dict[str, int] = {}
    pids = sorted(processes(proc), key=lambda pid: (pid == _INIT, _started(proc, pid), pid)) if inodes else ()
    for pid in pids:
        held = socket_inodes(proc, pid) & inodes
        found.update(dict.fromkeys(held, pid))
        inodes = inodes - held
        if not inodes:
            break
    return found


def _started(proc: str, pid: int) -> int:
    """Return when a process started, in clock ticks since boot. IDs are used again, so they do not show it."""
    fields = read_file(proc, pid, "stat").rpartition(b")")[2].split()
    return int(fields[19]) if len(fields) > 19 else 0


def _owner(one: LocalSocket, pid: int | None, proc: str) -> Owner:
    if pid is None:
        # A socket without inode belongs to no process any more, or not yet
        return Owner(None, None, user_name(one.user) if one.inode else None, None, None)
    cgroup = read_file(proc, pid, "cgroup").decode("utf-8", "replace")
    name = read_file(proc, pid, "comm").decode("utf-8", "replace").rstrip("\n")
    user = re.search(rb"^Uid:\s+\d+\s+(\d+)", read_file(proc, pid, "status"), re.MULTILINE)
    return Owner(
        name or None,
        pid,
        user_name(int(user[1]) if user else one.user),
        unit_of(cgroup),
        container_of(cgroup),
    )


def user_name(number: int) -> str:
    """Return the name of a user on this host, or the number if it has no name."""
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except (KeyError, OverflowError):
        return str(number)


def unit_of(cgroup: str) -> str | None:
    """Return the systemd unit in the content of /proc/PID/cgroup, None if there is none.

    It is the first one in the path: that of the system manager, also for units of a user or of a container.
    """
    for line in cgroup.splitlines():
        _number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers in ("", "name=systemd"):
            found = _UNIT.search(path)
            if found:
                return found[0]
    return None


def container_of(cgroup: str) -> str | None:
    """Return the ID or name of the container in the content of /proc/PID/cgroup, None if there is none."""
    found = _CONTAINER.search(cgroup)
    return found and next(filter(None, found.groups()))
