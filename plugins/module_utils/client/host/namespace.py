# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network namespace of this thread: identify it, enter another one, create a new one.

Python has setns and unshare since 3.12. Before, they are called in the C library by ctypes, which is a package of its
own on OpenWrt.

Source: namespaces(7), setns(2), unshare(2).
"""

from __future__ import annotations

import os
from typing import Callable, TypeVar

from ..errors import ConntrackError, InvalidValue

_Result = TypeVar("_Result")

CLONE_NEWNET = 0x40000000
#: The directory of the files of named namespaces.
FOLDER = "/run/netns"


def current() -> tuple[int, int] | None:
    """Return the device and inode that identify the network namespace of this thread, or None without /proc."""
    try:
        found = os.stat("/proc/thread-self/ns/net")
    except OSError:
        return None
    return found.st_dev, found.st_ino


def path_of(name: str) -> str:
    """Return the file of a namespace: a path as it is, or a name under /run/netns."""
    return name if "/" in name else os.path.join(FOLDER, name)


def enter(path: str) -> None:
    """Move this thread into the network namespace of the file `path`.

    Raises `OSError`, and `ConntrackError` if this Python cannot do it.
    """
    from .. import input_file  # only for tasks with the option netns

    descriptor = input_file.descriptor(path)
    try:
        enter_descriptor(descriptor)
    finally:
        os.close(descriptor)


def enter_descriptor(descriptor: int) -> None:
    """Move this thread into the network namespace of an open file. Raises the same errors as `enter`."""
    _call("setns", descriptor, CLONE_NEWNET)


def enter_named(name: str, cure: str = "run as root") -> None:
    """Move this thread into the network namespace that the option `netns` has, by its name or its path.

    Raises `ConntrackError`, whose sentence ends with the `cure`.
    """
    if not name:
        raise InvalidValue("netns", "is empty; name a namespace, or leave it out for that of the task")
    path = path_of(name)
    try:
        enter(path)
    except OSError as error:
        raise ConntrackError(
            f"netns: cannot enter {path}: {error.strerror}; name a namespace under /run/netns or a path such as "
            f"/proc/PID/ns/net, and {cure}"
        ) from error


def leave_for_a_new_one() -> None:
    """Move this thread into a new network namespace. Raises the same errors as `enter`."""
    _call("unshare", CLONE_NEWNET)


def run_in_thread(work: Callable[[], _Result]) -> _Result:
    """Call `work` in a new thread, which may move into other namespaces. Return its result, or raise its exception."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(work).result()


def _call(function: str, *arguments: int) -> None:
    known = getattr(os, function, None)
    if known is not None:
        known(*arguments)
        return
    try:
        import ctypes
    except ImportError:
        raise ConntrackError(
            f"netns: this Python cannot change network namespaces: it has neither os.{function} (Python 3.12) nor "
            "ctypes; install ctypes for it (the package python3-ctypes on OpenWrt), or leave netns out"
        ) from None
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
