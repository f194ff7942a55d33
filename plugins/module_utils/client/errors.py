# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong, by name.

Two families: the caller asked for something that cannot be (`InvalidValue`, found before
anything is sent), and the kernel or the transport answered with an error (`KernelError`).
"""

from __future__ import annotations

import errno
import os


class ConntrackError(Exception):
    """Anything this library raises on purpose; `str()` of it is a sentence for a human."""


class InvalidValue(ConntrackError, ValueError):
    """A declared value that cannot be.

    `key` is the path in the caller's document (`original.source_port`), `problem` says what is
    wrong with it and what to write instead.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}" if key else problem)
        self.key = key
        self.problem = problem

    def under(self, parent: str) -> InvalidValue:
        """The same fault, seen from the document that holds this one under `parent`."""
        return InvalidValue(f"{parent}.{self.key}" if self.key else parent, self.problem)


def errno_name(code: int) -> str:
    """The name of an errno as netlink's documentation writes it."""
    return "EOPNOTSUPP" if code == errno.EOPNOTSUPP else errno.errorcode.get(code, str(code))


class KernelError(ConntrackError):
    """The kernel refused a request.

    `request` names the operation, `errno` is positive, `attribute` is the key the kernel pointed
    at (if it did), `text` is the kernel's own extended message (if it sent one), `remedy` a
    sentence on what to do.
    """

    remedy = ""

    def __init__(
        self,
        request: str,
        code: int,
        text: str | None = None,
        attribute: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.request = request
        self.errno = code
        self.text = text
        self.attribute = attribute
        if remedy is not None:
            self.remedy = remedy
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        name = errno_name(self.errno)
        sentence = f"{self.request}: {os.strerror(self.errno)} ({name})"
        if self.attribute:
            sentence += f" at {self.attribute}"
        if self.text:
            sentence += f"; the kernel says: {self.text}"
        if self.remedy:
            sentence += f". {self.remedy}"
        return sentence

    def advised(self, remedy: str) -> KernelError:
        """The same error with advice that fits where it happened."""
        return type(self)(self.request, self.errno, self.text, self.attribute, remedy)


class NotPermitted(KernelError):
    """EPERM: CAP_NET_ADMIN is missing, or on an update, the entry's timeout is fixed."""

    remedy = (
        "This needs CAP_NET_ADMIN in the user namespace that owns the network namespace: run as root (become: true)"
    )


class NotFound(KernelError):
    """ENOENT: no such entry (or master, or zone of an entry)."""


class Exists(KernelError):
    """EEXIST: an entry with one of these tuples, in either direction, is there already."""


class Busy(KernelError):
    """EBUSY: the kernel does not let this be changed in place."""


class Unsupported(KernelError):
    """EOPNOTSUPP: this kernel, or this entry, cannot do that."""


class TableFull(KernelError):
    """ENOMEM or ENOSPC: no room for another entry, or for the labels of this one."""

    remedy = (
        "Compare nf_conntrack_count with nf_conntrack_max; an entry has room for labels only "
        "where a rule in its network namespace uses them"
    )


class Unavailable(KernelError):
    """There is no ctnetlink to talk to: not Linux, or the module is not loaded."""

    remedy = "Load the kernel module nf_conntrack_netlink (modprobe nf_conntrack_netlink)"


class ResultUnknown(KernelError):
    """An acknowledgement was lost or did not come in time; the change may have been made."""

    remedy = "Whether the kernel carried it out is unknown: read the entry again"


class Overrun(ResultUnknown):
    """ENOBUFS: the receive buffer overran and messages were lost."""

    remedy = "Messages were lost because the receive buffer overran: read again"


_BY_ERRNO: dict[int, type[KernelError]] = {
    errno.EPERM: NotPermitted,
    errno.ENOENT: NotFound,
    errno.EEXIST: Exists,
    errno.EBUSY: Busy,
    errno.EOPNOTSUPP: Unsupported,
    errno.ENOMEM: TableFull,
    errno.ENOSPC: TableFull,
    errno.EPROTONOSUPPORT: Unavailable,
    errno.EAFNOSUPPORT: Unavailable,
    errno.ENOBUFS: Overrun,
    errno.ETIMEDOUT: ResultUnknown,
    errno.EMSGSIZE: ResultUnknown,  # an answer that did not fit
}


def kernel_error(request: str, code: int, text: str | None = None, attribute: str | None = None) -> KernelError:
    """The exception that stands for `code` (a positive errno)."""
    return _BY_ERRNO.get(code, KernelError)(request, code, text, attribute)
