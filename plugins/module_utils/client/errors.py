# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong, by name.

Two families: the caller asked for something that cannot be (`InvalidValue`, found before
anything is sent), and the kernel or the transport answered with an error (`KernelError`).
"""

from __future__ import annotations

import errno
import os
from typing import Any, Callable, Sequence, TypeVar

_Error = TypeVar("_Error", bound="KernelError")

#: Characters of a message; what a caller puts around it has room in 2,000.
LONGEST = 1900
#: The fault of a document that has more levels than Python can follow.
TOO_DEEP = "is nested too deeply"


def readable(text: str, longest: int = LONGEST) -> str:
    """The text without the middle if it is longer, and with escapes for what a terminal or JSON cannot show.

    Values in messages come from others: they may have any length, and contain control sequences or half surrogates.
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
#: What a message has in place of an integer that Python does not print.
TOO_LONG = "an integer of thousands of digits"


def quoted(value: object) -> str:
    """A value as a message quotes it: its `repr`, which Python refuses for integers of thousands of digits."""
    try:
        return repr(value)
    except ValueError:
        return TOO_LONG
    except RecursionError:
        return "a value of too many levels"


class ConntrackError(Exception):
    """Anything this library raises on purpose; `str()` of it is a readable sentence of at most `LONGEST` characters."""

    def __str__(self) -> str:
        return readable(super().__str__())


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
    """The kernel refused a request.

    `request` names the operation, `errno` is positive, `attribute` is the key the kernel pointed
    at (if it did), `text` is the kernel's own extended message (if it sent one), `hint` a
    sentence on what to do.
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
            sentence += f"; the kernel says: {self.text}"
        if self.hint:
            sentence += f". {self.hint}"
        return sentence

    def with_hint(self: _Error, hint: str) -> _Error:
        """The same error with advice that fits where it happened."""
        return type(self)(self.request, self.errno, self.text, self.attribute, hint)

    def about(self: _Error, request: str) -> _Error:
        """The same error of another operation."""
        return type(self)(request, self.errno, self.text, self.attribute, self.hint)


class NotPermitted(KernelError):
    """EPERM: CAP_NET_ADMIN is missing, or on an update, the entry's timeout is fixed."""

    hint = "This needs CAP_NET_ADMIN in the user namespace that owns the network namespace: run as root (become: true)"


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

    hint = (
        "Compare nf_conntrack_count with nf_conntrack_max; an entry has room for labels only "
        "where a rule in its network namespace uses them"
    )


class Unavailable(KernelError):
    """There is no ctnetlink to talk to: not Linux, or the module is not loaded."""

    hint = "Load the kernel module nf_conntrack_netlink (modprobe nf_conntrack_netlink)"


class ResultUnknown(KernelError):
    """An acknowledgement was lost or did not come in time; the change may have been made."""

    hint = "Whether the kernel carried it out is unknown: read the entry again"


class Overrun(ResultUnknown):
    """ENOBUFS: the receive buffer overran and messages were lost."""

    hint = "Messages were lost because the receive buffer overran: read again"


#: What to do about EACCES: ctnetlink never answers with it.
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
    errno.EMSGSIZE: ResultUnknown,  # an answer that did not fit
    errno.EBADMSG: ResultUnknown,  # an answer that cannot be read
}


def kernel_error(request: str, code: int, text: str | None = None, attribute: str | None = None) -> KernelError:
    """The exception that stands for `code` (a positive errno)."""
    error = _BY_ERRNO.get(code, KernelError)(request, code, text, attribute)
    return error.with_hint(FORBIDDEN) if code == errno.EACCES else error


def answer_lost(request: str, code: int) -> ResultUnknown:
    """The exception for a request that was sent and whose answer was not received, because of `code`.

    Whatever the reason is, the kernel may have carried out the request.
    """
    kind = _BY_ERRNO.get(code, ResultUnknown)
    lost = (kind if issubclass(kind, ResultUnknown) else ResultUnknown)(request, code)
    return lost.with_hint(f"{lost.hint}. {FORBIDDEN}") if code == errno.EACCES else lost


class MalformedMessage(ConntrackError):
    """Bytes that are not netlink messages or attributes; the text says what cannot be read."""


#: How many of many things a message names.
NAMED = 3


def named(names: Sequence[str], count: int) -> str:
    """The first of `count` things by their names, for a message: `: a, b, c, 497 more`, or nothing if none has one."""
    shown = list(names[:NAMED])
    if not shown:
        return ""
    if count > len(shown):
        shown.append(f"{count - len(shown)} more")
    return f": {', '.join(shown)}"


class PartialFailure(ConntrackError):
    """Not all was done; `result` says what was, in the form of a module's result."""

    def __init__(self, sentence: str, result: dict[str, Any] | None = None) -> None:
        super().__init__(sentence)
        self.result: dict[str, Any] = result or {}


def retry_if_unknown(change: Callable[[], object], carried_out: Callable[[], bool] = lambda: False) -> bool:
    """Make a change. If the answer gets lost, look whether it was made, and if not try once more.

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


def _looked(carried_out: Callable[[], bool], lost: ResultUnknown) -> bool:
    try:
        return carried_out()
    except KernelError as unread:
        raise lost.with_hint(f"{lost.hint}. {unread}") from unread
