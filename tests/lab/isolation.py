# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Namespaces by system calls, see namespaces(7). The module os has these calls since Python 3.12."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator

CLONE_NEWNET = 0x40000000
CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


class Forbidden(RuntimeError):
    """This user may not create namespaces on this machine. The text of the error gives the remedy."""


def new_network() -> int:
    """Create an empty network namespace, and return its file descriptor.

    The namespace exists as long as the descriptor, or a socket or process in it. It needs no name, no mount and no
    process. The kernel removes it in whatever way this process ends.

    :raises Forbidden: without CAP_SYS_ADMIN.
    """
    here = _current_network()
    try:
        _check(_libc.unshare(CLONE_NEWNET))
        try:
            return _current_network()
        finally:
            _check(_libc.setns(here, CLONE_NEWNET))
    except OSError as error:
        raise Forbidden("this process may not make network namespaces: run as root") from error
    finally:
        os.close(here)


@contextlib.contextmanager
def entered(network: int) -> Iterator[None]:
    """Run the block with the calling thread in the namespace.

    Sockets, threads and processes that the block starts stay in the namespace.
    """
    here = _current_network()
    try:
        _check(_libc.setns(network, CLONE_NEWNET))
        try:
            yield
        finally:
            _check(_libc.setns(here, CLONE_NEWNET))
    finally:
        os.close(here)


def become_root() -> None:
    """Make this process root in a new user namespace, as `unshare -Urn` does. A process of root stays as it is.

    Call this function early: the kernel allows it only while the process has a single thread.

    :raises Forbidden: if the machine does not let users create user namespaces.
    """
    with contextlib.suppress(Forbidden):
        os.close(new_network())
        return
    user, group = os.geteuid(), os.getegid()
    try:
        _check(_libc.unshare(CLONE_NEWUSER | CLONE_NEWNET))
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"0 {user} 1")
        _write("/proc/self/gid_map", f"0 {group} 1")
    except OSError as error:
        raise Forbidden(
            "this machine does not let users make namespaces of their own: run as root, or allow it with "
            "'sysctl user.max_user_namespaces=10000' and, on Ubuntu, "
            "'sysctl kernel.apparmor_restrict_unprivileged_userns=0'"
        ) from error


def end_with_parent() -> None:
    """Let the kernel kill this process when the thread that started it ends."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL))


def _current_network() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
