# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Namespaces by the kernel's own calls, namespaces(7); Python itself has them only from 3.12 on."""

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
    """This user may not make namespaces here; the text says what to do."""


def new_network() -> int:
    """A new, empty network namespace as a file descriptor, and nothing but it.

    The namespace lives as long as the descriptor, or a socket or process inside: it needs no name, no mount and no
    process of its own, and the kernel removes it however this process ends.

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
    """The calling thread is inside the namespace for the length of the block.

    Sockets opened, threads and processes started in the block stay inside for good.
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
    """Make this process root over a network of its own, as unshare(1) does with -Urn; root stays as it is.

    To be called early: the kernel allows it only while the process has a single thread.

    :raises Forbidden: where the machine does not let users make user namespaces.
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
    """Let the kernel kill this process as soon as the thread that started it is gone."""
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
