# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Without the kernel's support or without the capability, the error is one sentence with the remedy."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import (
    ConntrackError,
    KernelError,
    NotPermitted,
    Unavailable,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from tests import samples
from tests.lab import Namespace

pytestmark = pytest.mark.every_kernel

LINUX_CAPABILITY_VERSION_3 = 0x20080522
CLONE_NEWUSER = 0x10000000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO = 0x7FFF0000, 0x00050000
AF_NETLINK = 16
SOCKET_CALL = {"x86_64": 41, "aarch64": 198}

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def drop_capabilities() -> None:
    """Drop all capabilities, as a user other than root."""
    header = struct.pack("=Ii", LINUX_CAPABILITY_VERSION_3, 0)
    check(libc.capset(header, bytes(24)))


def become_root_of_a_user_namespace() -> None:
    """Keep every capability, but in a user namespace that does not own the network namespace."""
    check(libc.unshare(CLONE_NEWUSER))


def forbid_netlink() -> None:
    """Answer socket(AF_NETLINK, …) as a kernel without netlink does, and as systemd's RestrictAddressFamilies= does."""
    load, equal, answer = 0x20, 0x15, 0x06  # BPF: ld [k], jeq k, ret k
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (load, 0, 0, 0),  # seccomp_data.nr
            (equal, 0, 3, SOCKET_CALL[platform.machine()]),
            (load, 0, 0, 16),  # seccomp_data.args[0], the lower half
            (equal, 0, 1, AF_NETLINK),
            (answer, 0, 0, SECCOMP_RET_ERRNO | errno.EAFNOSUPPORT),
            (answer, 0, 0, SECCOMP_RET_ALLOW),
        )
    )
    code = ctypes.create_string_buffer(program, len(program))
    filter_ = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(code)))
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter_, 0, 0))


def failure_of(prepare: Callable[[], None], operation: Callable[[Table], Any]) -> tuple[str, int, str]:
    """Return the name, errno and text of the error with which an operation fails. Call this in a child process."""
    prepare()
    try:
        with Table() as table:
            operation(table)
    except KernelError as error:
        return type(error).__name__, error.errno, str(error)
    return "none", 0, ""


def raise_first(results: Iterable[KernelError | None]) -> None:
    for error in results:
        if error is not None:
            raise error


ENTRY = from_document(samples.flow("ipv4", "udp", 1, 53))

OPERATIONS: dict[str, Callable[[Table], Any]] = {
    "create": lambda table: table.create(ENTRY),
    "put": lambda table: table.create_or_update(ENTRY),
    "update": lambda table: table.update(ENTRY),
    "get": lambda table: table.get(ENTRY),
    "delete": lambda table: table.delete(ENTRY),
    "dump": lambda table: list(table.dump()),
    "dying": lambda table: list(table.dying()),
    "count": lambda table: table.count(),
    "statistics_per_cpu": lambda table: table.statistics_per_cpu(),
    "create_all": lambda table: raise_first(table.create_all([ENTRY])),
    "delete_all": lambda table: raise_first(table.delete_all([ENTRY])),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("prepare", [drop_capabilities, become_root_of_a_user_namespace])
def test_without_the_capability(namespace: Namespace, prepare: Callable[[], None], operation: str) -> None:
    with namespace.entered(), Table() as table:
        table.create(ENTRY)
    try:
        name, code, text = namespace.call(failure_of, prepare, OPERATIONS[operation])
    except PermissionError:
        pytest.skip("this machine does not let users make user namespaces")
    assert (name, code) == (NotPermitted.__name__, errno.EPERM)
    assert "CAP_NET_ADMIN" in text
    assert "become: true" in text
    assert "\n" not in text
    assert namespace.count() == 1


def test_operation_succeeds_with_the_capability(namespace: Namespace) -> None:
    assert namespace.call(failure_of, lambda: None, OPERATIONS["create"]) == ("none", 0, "")
    assert namespace.count() == 1


@pytest.mark.skipif(platform.machine() not in SOCKET_CALL, reason="the number of socket(2) is not known here")
def test_without_netlink(namespace: Namespace) -> None:
    name, code, text = namespace.call(failure_of, forbid_netlink, OPERATIONS["count"])
    assert (name, code) == (Unavailable.__name__, errno.EAFNOSUPPORT)
    assert "modprobe nf_conntrack_netlink" in text
    assert "\n" not in text


def test_a_table_is_not_read_from_another_namespace(namespace: Namespace) -> None:
    """Otherwise, the client could read entries in one namespace and delete them in another one."""
    with namespace.entered():
        table = Table()
    with table, pytest.raises(ConntrackError, match="moved to another network namespace"):
        list(table.dump())
