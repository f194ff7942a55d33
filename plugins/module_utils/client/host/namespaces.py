# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network namespaces of a host: find them, and run work in each of them.

A namespace exists as long as a file, a process or a socket refers to it. Found are those with a file in /run/netns, and
those of processes. A thread that is in another namespace than its process is not searched for.

A namespace is identified by the device and the inode of its file, so one with several names and processes is one.

Source: namespaces(7), ip-netns(8).
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Any, Iterable, Iterator, NamedTuple, Sequence, Tuple

from .. import input_file
from ..errors import ConntrackError, InvalidValue
from . import namespace

Identity = Tuple[int, int]

#: Errors of a namespace that has ended: its file is missing, its mount is gone, or its process has exited.
GONE = (errno.ENOENT, errno.EINVAL, errno.ENXIO, errno.ESRCH)
#: The maximum number of processes to name for each namespace.
NAMED_PROCESSES = 3
_OWN = "/proc/thread-self/ns/net"


class HostNamespace(NamedTuple):
    """A network namespace of the host.

    `netns` is the value for the option `netns`: its name under /run/netns, or its path. `identity` is the
    device and inode of its files, `paths` are their paths, and `pids` the IDs of the processes in it.
    """

    netns: str
    identity: Identity
    paths: tuple[str, ...]
    pids: tuple[int, ...] = ()


class Unreadable(NamedTuple):
    """Processes whose namespaces cannot be identified. `path` is the file of the first."""

    path: str
    error: OSError
    processes: int

    def __str__(self) -> str:
        return (
            f"cannot identify the network namespaces of {self.processes} processes, such as {self.path}: "
            f"{self.error.strerror}; run as root on the host itself (become: true)"
        )


def names_in(folder: str) -> list[str]:
    """Return the sorted names of the files in a folder of namespaces. Without the folder, there are none."""
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def find_all(folder: str = namespace.FOLDER, proc: str = "/proc") -> tuple[list[HostNamespace], Unreadable | None]:
    """Return the namespaces of the host, that of this thread first, and the processes that hide theirs.

    The others follow by name, and then those without a name by their lowest process ID. Raises `ConntrackError` without
    /proc.
    """
    own = namespace.current()
    if own is None:
        raise ConntrackError("netns: all requires /proc; mount it, or list the namespaces by their names")
    names: dict[Identity, list[str]] = {}
    for name in names_in(folder):
        identity = _identity_of(os.path.join(folder, name))
        # A file of `ip netns add` is an ordinary file until the namespace is mounted on it
        if identity is not None and identity[0] == own[0]:
            names.setdefault(identity, []).append(name)
    pids, unreadable = _processes(proc)
    if own not in names and own not in pids:  # /proc is that of other processes
        pids[own] = []
    found = []
    for identity in {**names, **pids}:
        of_processes = [_path(proc, pid) for pid in pids.get(identity, ())] or [_OWN] * (identity == own)
        paths = [*(os.path.join(folder, name) for name in names.get(identity, ())), *of_processes]
        netns = names[identity][0] if identity in names else paths[0]
        found.append(HostNamespace(netns, identity, tuple(paths), tuple(pids.get(identity, ()))))

    def order(one: HostNamespace) -> tuple[bool, int, str]:
        named = one.identity in names
        return one.identity != own, 0 if named or not one.pids else one.pids[0], one.netns

    found.sort(key=order)
    return found, unreadable


def find(wanted: Sequence[str], proc: str = "/proc") -> list[HostNamespace]:
    """Return the namespaces with these names or paths, each once. Raises `InvalidValue` if one does not exist."""
    paths: dict[Identity, list[str]] = {}
    netns: dict[Identity, str] = {}
    own = namespace.current()
    for name in wanted:
        path = namespace.path_of(name)
        try:
            found = os.stat(path)
        except OSError as error:
            raise InvalidValue("netns", cannot_enter(path, error.strerror)) from error
        except ValueError as error:
            raise InvalidValue("netns", cannot_enter(path, "no path can contain such characters")) from error
        identity = found.st_dev, found.st_ino
        if own is not None and identity[0] != own[0]:
            raise InvalidValue("netns", cannot_enter(path, "it is not a network namespace"))
        paths.setdefault(identity, []).append(path)
        netns.setdefault(identity, name)
    pids, _unreadable = _processes(proc)
    return [
        HostNamespace(netns[identity], identity, tuple(files), tuple(pids.get(identity, ())))
        for identity, files in paths.items()
    ]


def cannot_enter(path: str, reason: str | None) -> str:
    """Return the sentence about a namespace that cannot be entered."""
    return (
        f"cannot enter {path}: {reason}; name a namespace under {namespace.FOLDER} or a path such as "
        "/proc/PID/ns/net, and run as root (become: true)"
    )


def processes_of(one: HostNamespace, proc: str = "/proc") -> list[dict[str, Any]]:
    """Return the first processes of a namespace: `[{"pid": 812, "name": "nginx"}, …]`."""
    found = []
    for pid in one.pids:
        try:
            with open(os.path.join(proc, str(pid), "comm"), "rb") as file:
                found.append({"pid": pid, "name": file.read().rstrip(b"\n").decode("utf-8", "backslashreplace")})
        except OSError:  # it has ended
            continue
        if len(found) == NAMED_PROCESSES:
            break
    return found


def visit(namespaces: Iterable[HostNamespace]) -> Iterator[tuple[HostNamespace, OSError | None]]:
    """Move this thread into each namespace in turn, and back to its own at the end.

    Yields each namespace while the thread is in it, or with the error if it cannot be entered. A namespace that has
    ended is left out.
    """
    try:
        home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ConntrackError(
            f"netns: several namespaces require /proc ({error.strerror}); mount it, or name one namespace"
        ) from error
    try:
        for one in namespaces:
            try:
                entered = _enter(one)
            except OSError as error:
                yield one, error
            else:
                if entered:
                    yield one, None
    finally:
        # A process that may enter other namespaces but not its own stays in the last one. Results must not be lost
        with contextlib.suppress(OSError):
            namespace.enter_descriptor(home)
        os.close(home)


def still_exists(one: HostNamespace) -> bool:
    """Return whether a file of a namespace still refers to it."""
    return any(_identity_of(path) == one.identity for path in one.paths)


def _enter(one: HostNamespace) -> bool:
    """Enter a namespace by the first of its files that still refers to it. False if there is none any more."""
    for path in one.paths:
        try:
            descriptor = input_file.descriptor(path)
        except OSError as error:
            if error.errno in GONE:
                continue
            raise
        try:
            there = os.fstat(descriptor)
            if (there.st_dev, there.st_ino) == one.identity:
                namespace.enter_descriptor(descriptor)
                return True
        finally:
            os.close(descriptor)
    return False


def _path(proc: str, pid: int) -> str:
    return os.path.join(proc, str(pid), "ns", "net")


def _identity_of(path: str) -> Identity | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _processes(proc: str) -> tuple[dict[Identity, list[int]], Unreadable | None]:
    """Return the process IDs in each namespace, and the processes whose namespaces cannot be identified."""
    pids: dict[Identity, list[int]] = {}
    unreadable: Unreadable | None = None
    try:
        listed = sorted(int(name) for name in os.listdir(proc) if name.isdecimal())
    except OSError:
        listed = []
    for pid in listed:
        path = _path(proc, pid)
        try:
            found = os.stat(path)
        except PermissionError as error:
            unreadable = Unreadable(*(unreadable or (path, error))[:2], (unreadable.processes if unreadable else 0) + 1)
        except OSError:  # it has ended
            continue
        else:
            pids.setdefault((found.st_dev, found.st_ino), []).append(pid)
    return pids, unreadable
