# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The errors of the client.

`ConntrackError` is the base class. `InvalidValue` is a wrong argument, found before anything is sent. `KernelError` is
an error that the kernel returned, or a failure to receive its answer; its subclasses stand for one errno or a few, and
`ResultUnknown` means that the kernel may have made the change. `PartialFailure` is raised after the work is done, if
some of many changes failed.

Source: errno(3); the errors of net/netfilter/nf_conntrack_netlink.c; NETLINK_EXT_ACK in netlink(7).
"""

from __future__ import annotations

import errno
import os
from typing import Any, Callable, Sequence, TypeVar

_Error = TypeVar("_Error", bound="KernelError")
_Thing = TypeVar("_Thing")

#: Characters of a message. Callers may add context, up to 2,000 characters in all.
LONGEST_MESSAGE = 1900
#: The problem of a document with more levels than Python can process.
TOO_DEEP = "is nested too deeply"


def readable(text: str, longest: int = LONGEST_MESSAGE) -> str:
    """Shorten a text in its middle, and escape characters that a terminal or JSON cannot show.

    Values in messages come from other systems. They may have any length, and contain control sequences or lone
    surrogates.
    """
    text = _shortened(text, longest)
    if text.isprintable():
        return text
    return _shortened("".join(c if c.isprintable() else repr(c)[1:-1] for c in text), longest)


def _shortened(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    end = longest // 3
    start = longest - end - len(_LEFT_OUT.format(len(text)))
    return f"{text[:start]}{_LEFT_OUT.format(len(text) - start - end)}{text[-end:]}"


_LEFT_OUT = " [... {} characters left out ...] "
#: Replaces an integer that Python does not print.
TOO_LONG = "an integer of thousands of digits"


def quoted(value: object) -> str:
    """Return the `repr` of a value for a message, or a description if Python refuses to make it."""
    try:
        return repr(value)
    except ValueError:
        return TOO_LONG
    except RecursionError:
        return "a value of too many levels"


class ConntrackError(Exception):
    """Base class of all errors of this library. `str()` returns at most `LONGEST_MESSAGE` characters."""

    def __str__(self) -> str:
        return readable(super().__str__())


class InvalidValue(ConntrackError, ValueError):
    """A wrong value in a document, a match or an argument. Nothing was sent.

    `key` is its path in the document (`original.source_port`). `problem` is what is wrong, and what to write instead.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}" if key else problem)
        self.key = key
        self.problem = problem

    def under(self, parent: str) -> InvalidValue:
        """Return the same error with its path below `parent`."""
        return InvalidValue(f"{parent}.{self.key}" if self.key else parent, self.problem)


class InvalidDocument(InvalidValue):
    """A document with several errors; `str()` of it has a line for each."""

    def __init__(self, lines: str) -> None:
        super().__init__("", lines)

    def __str__(self) -> str:
        return "\n".join(readable(line) for line in self.problem.split("\n"))


def nothing_changed(sentence: str) -> str:
    """The message of a failure that changed nothing; below a list of errors, that is a line of its own."""
    return f"{sentence}\nNothing was changed." if "\n" in sentence else f"{sentence}. Nothing was changed."


def errno_name(code: int) -> str:
    """The name of an errno as netlink's documentation writes it."""
    return "EOPNOTSUPP" if code == errno.EOPNOTSUPP else errno.errorcode.get(code, str(code))


class KernelError(ConntrackError):
    """The kernel returned an error.

    `request` names the operation (`creating tcp …`). `errno` is positive. `attribute` is the key that the kernel names,
    and `text` its extended message; both are None if it sent none. `hint` is a sentence on what to do, or empty.
    """

    hint = ""

    def __init__(
        self,
        request: str,
        code: int,
        text: str | None = None,
        attribute: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.request = request
        self.errno = code
        self.text = text
        self.attribute = attribute
        if hint is not None:
            self.hint = hint
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        name = errno_name(self.errno)
        sentence = f"{self.request}: {os.strerror(self.errno)} ({name})"
        if self.attribute:
            sentence += f" at {self.attribute}"
        if self.text:
            sentence += f"; the kernel reports: {self.text}"
        if self.hint:
            sentence += f". {self.hint}"
        return sentence

    def with_hint(self: _Error, hint: str) -> _Error:
        """Return the same error with another hint."""
        return type(self)(self.request, self.errno, self.text, self.attribute, hint)

    def about(self: _Error, request: str) -> _Error:
        """Return the same error with another operation."""
        return type(self)(request, self.errno, self.text, self.attribute, self.hint)


class NotPermitted(KernelError):
    """EPERM: CAP_NET_ADMIN is missing, or an update changes a timeout that is fixed (status `fixed_timeout`)."""

    hint = "This needs CAP_NET_ADMIN in the user namespace that owns the network namespace: run as root (become: true)"


class NotFound(KernelError):
    """ENOENT: there is no such entry, master, expectation or timeout policy."""


class Exists(KernelError):
    """EEXIST: an entry with one of the tuples, in either direction, already exists."""


class Busy(KernelError):
    """EBUSY: the kernel does not change this in place."""


class Unsupported(KernelError):
    """EOPNOTSUPP: the kernel does not support the operation, in general or for this entry."""


class TableFull(KernelError):
    """ENOMEM or ENOSPC: there is no room for another entry, or for labels of this entry."""

    hint = (
        "Compare nf_conntrack_count with nf_conntrack_max; an entry has room for labels only "
        "where a rule in its network namespace uses them"
    )


class Unavailable(KernelError):
    """EPROTONOSUPPORT and others: the kernel lacks ctnetlink, or its module is not loaded."""

    hint = "Load the kernel module nf_conntrack_netlink (modprobe nf_conntrack_netlink)"


class ResultUnknown(KernelError):
    """The answer was lost, unreadable or late. The kernel may have made the change."""

    hint = "Whether the kernel carried it out is unknown: read the entry again"


class Overrun(ResultUnknown):
    """ENOBUFS: the receive buffer was full, and the kernel dropped messages. See also `events/overrun.py`."""

    hint = "Messages were lost because the receive buffer overran: read again"


#: The hint for EACCES, which ctnetlink itself never returns.
FORBIDDEN = "A security policy such as SELinux forbids it; look for the denial in the audit log (ausearch -m avc)"

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
    errno.EMSGSIZE: ResultUnknown,  # the answer did not fit
    errno.EBADMSG: ResultUnknown,  # the answer cannot be parsed
}


def kernel_error(request: str, code: int, text: str | None = None, attribute: str | None = None) -> KernelError:
    """Return the error for `code`, a positive errno."""
    error = _BY_ERRNO.get(code, KernelError)(request, code, text, attribute)
    return error.with_hint(FORBIDDEN) if code == errno.EACCES else error


def answer_lost(request: str, code: int) -> ResultUnknown:
    """Return the error for a request that was sent and whose answer was not received because of `code`.

    The kernel may have carried out the request.
    """
    kind = _BY_ERRNO.get(code, ResultUnknown)
    lost = (kind if issubclass(kind, ResultUnknown) else ResultUnknown)(request, code)
    return lost.with_hint(f"{lost.hint}. {FORBIDDEN}") if code == errno.EACCES else lost


class MalformedMessage(ConntrackError):
    """Bytes that are not netlink messages or attributes."""


#: The number of things that a message names if there are many.
NAMED = 3


def named(names: Sequence[str], count: int) -> str:
    """Return the first names of `count` things for a message: `: a, b, c, 497 more`. Empty without names."""
    shown = list(names[:NAMED])
    if not shown:
        return ""
    if count > len(shown):
        shown.append(f"{count - len(shown)} more")
    return f": {', '.join(shown)}"


class PartialFailure(ConntrackError):
    """Some of many changes failed. `result` has the numbers of changes made and failed, as a module returns them."""

    def __init__(self, sentence: str, result: dict[str, Any] | None = None) -> None:
        super().__init__(sentence)
        self.result: dict[str, Any] = result or {}


def retry_if_unknown(change: Callable[[], object], carried_out: Callable[[], bool] = lambda: False) -> bool:
    """Make a change. If the answer is lost, check with `carried_out`, and if it was not made, try once more.

    Without `carried_out`, the change is always made again: for one that is the same when it is made twice. Returns
    whether the kernel confirmed the change. Raises `ResultUnknown` if that cannot be determined.
    """
    try:
        change()
    except ResultUnknown as lost:
        if _looked(carried_out, lost):
            return False
        try:
            change()
        except ResultUnknown as again:
            if not _looked(carried_out, again):
                raise
            return False
    return True


def read_again_if_lost(read: Callable[[], _Thing]) -> _Thing | None:
    """Return what `read` returns, or None if it raises `NotFound`. If the answer is lost, read once more."""
    try:
        try:
            return read()
        except ResultUnknown:
            return read()
    except NotFound:
        return None


def _looked(carried_out: Callable[[], bool], lost: ResultUnknown) -> bool:
    try:
        return carried_out()
    except KernelError as unread:
        raise lost.with_hint(f"{lost.hint}. {unread}") from unread
