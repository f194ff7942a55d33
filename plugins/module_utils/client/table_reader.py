# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the connection tracking table of one network namespace.

Tasks that read a table do not import what changes one: `table.Table` adds that.
"""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING, Any, Callable, Generator, Iterable, Iterator, Mapping, NoReturn, TypeVar

from .codec.attributes import ENTRY, Attribute
from .ctnetlink import messages
from .entry.entry import Entry, describe
from .errors import (
    ConntrackError,
    KernelError,
    MalformedMessage,
    NotPermitted,
    ResultUnknown,
    Unavailable,
    Unsupported,
    answer_lost,
    kernel_error,
)
from .host import namespace
from .netlink.error import ErrorReply, RequestRejected
from .netlink.message import Message
from .netlink.socket import Closing, NetlinkSocket

if TYPE_CHECKING:
    from .dump.scan import Row, Visitor
    from .match.expression import Term

_Thing = TypeVar("_Thing")

#: Tables with fewer entries are read in one dump without a filter. With a filter, the kernel would walk its whole hash
#: table, which all namespaces share, once per family, which takes longer.
FEW = 5000
#: A limit that no table exceeds.
UNLIMITED = 0xFFFFFFFF


def to_kernel_error(doing: str, refusal: ErrorReply, rows: Iterable[Attribute] = ENTRY) -> KernelError:
    """Return the exception for an error reply, with the name of its attribute according to `rows`."""
    number, named = refusal.attribute, None
    if number is not None:
        named = next((row.key.partition(".")[0] for row in rows if row.path[0] == number), str(number))
    if refusal.lost:
        return answer_lost(doing, refusal.errno)
    error = kernel_error(doing, refusal.errno, refusal.text, named)
    if isinstance(error, NotPermitted) and "updating" in doing:
        return error.with_hint(f"{error.hint}. A fixed timeout (status fixed_timeout) cannot be changed")
    return error


def _about(doing: str, entry: Mapping[str, Any] | None) -> str:
    return doing if entry is None else f"{doing} {describe(entry)}"


def parse_answer(
    doing: str, parse: Callable[[Message], _Thing], answer: Message, entry: Mapping[str, Any] | None = None
) -> _Thing:
    """Parse an answer. Raises `ResultUnknown`, with the entry if there is one, if it is malformed."""
    try:
        return parse(answer)
    except MalformedMessage as error:
        raise answer_lost(_about(doing, entry), errno.EBADMSG).with_hint(
            f"The answer cannot be read: {error}"
        ) from error


class TableReader(Closing):
    """Reads the table of the network namespace in which the object is created. Close it after use.

    Every operation raises `NotPermitted` without CAP_NET_ADMIN and `Unavailable` without ctnetlink.
    """

    def __init__(self, connect: Callable[[], NetlinkSocket] = NetlinkSocket) -> None:
        self._connect = connect
        self._namespace = namespace.current()
        self._socket = connect()
        #: The sockets of dumps in progress.
        self._readers: list[NetlinkSocket] = []

    def close(self) -> None:
        """Close the table. Unfinished iterators then raise `ConntrackError`."""
        for reader in (*self._readers, self._socket):
            reader.close()

    def dump(self, family: int = 0, zero: bool = False, where: Term | None = None) -> Iterator[Entry]:
        """Yield every entry, or every entry for which a term holds, of one family (AF_INET, AF_INET6) or of both.

        `zero` resets the counters of every entry that is read, whether or not it matches. An entry that exists during
        the whole dump is included. Under load the kernel may return it twice: if the entry at which the dump paused
        ends meanwhile, the kernel reads its bucket again. Entries that are created or end meanwhile may be missing.
        """
        from .dump.scan import Entries

        return self.scan_each(Entries(), where, family, zero)

    def rows(self, where: Term | None = None, family: int = 0) -> Iterator[Row]:
        """Do the same as `dump`, but yield the keys and the values of an entry instead of a mapping.

        `dict(zip(*row))` is the entry. It takes a third of the time.
        """
        from .dump.scan import Rows

        return self.scan_each(Rows(), where, family)

    def scan_each(
        self, visitor: Any, where: Term | None = None, family: int = 0, zero: bool = False
    ) -> Generator[Any, None, None]:
        """Yield what a visitor collects in its list `found`, which is emptied after each datagram."""
        for _datagram in self._scan(visitor, where, family, zero):
            yield from visitor.found
            visitor.found.clear()

    def scan(
        self,
        visitor: Visitor,
        where: Term | None = None,
        family: int = 0,
        zero: bool = False,
        between: Callable[[], object] | None = None,
    ) -> None:
        """Pass every entry, or those for which a term holds, to the visitor. Call `between` after each datagram.

        An exception in one of them ends the dump.
        """
        with contextlib.closing(self._scan(visitor, where, family, zero)) as datagrams:
            for _datagram in datagrams:
                if between is not None:
                    between()

    def _scan(self, visitor: Visitor, where: Term | None, family: int, zero: bool) -> Generator[None, None, None]:
        """Do the same, and yield after each datagram. The kernel filters if it can, and the term is always checked."""
        from .dump.scan import DumpDecoder

        feed = DumpDecoder(visitor, where).feed
        if where is None or family or zero or self._has_few():
            yield from self._read_dump(messages.dump(family, zero), feed)
            return
        from .match.kernel_filter import narrow_all

        for kernel_filter in narrow_all(where):
            try:
                yield from self._read_dump(messages.dump(kernel_filter=kernel_filter), feed)
            except KernelError as error:
                if not kernel_filter.attributes or error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise
                yield from self._read_dump(messages.dump(kernel_filter.family), feed)  # without the unsupported filter

    def _has_few(self) -> bool:
        try:
            return self.count() < FEW
        except ResultUnknown:
            return False

    def _read_dump(self, request: Message, feed: Callable[[bytes], Iterable[Message]]) -> Iterator[None]:
        with self._reading() as reader:
            yield from reader.scan(request, feed)

    def dying(self) -> Iterator[Entry]:
        """Yield the entries that were removed but whose destroy event is not delivered yet."""
        return self.read(messages.DUMP_DYING, messages.parse_entry)

    def unconfirmed(self) -> Iterator[Entry]:
        """Yield the unconfirmed entries. There are none since Linux 5.19."""
        return self.read(messages.DUMP_UNCONFIRMED, messages.parse_entry)

    def read(self, message: Message, parse: Callable[[Message], _Thing]) -> Iterator[_Thing]:
        """Yield the parsed answers to a dump request."""
        with self._reading() as reader:
            for answer in reader.dump(message):
                yield parse(answer)

    def statistics(self) -> dict[str, int]:
        """Return `{"entries": …, "max_entries": …}`; `max_entries` only since Linux 4.18."""
        from .statistics import parse_global

        return parse_global(self._global_statistics())

    def count(self) -> int:
        """Return the number of entries."""
        return messages.parse_count(self._global_statistics())

    def _global_statistics(self) -> Message:
        answers = self._request("reading the table", messages.STATISTICS)
        if not answers:
            raise Unsupported("reading the number of entries", errno.EOPNOTSUPP)
        return answers[0]

    def statistics_per_cpu(self) -> dict[int, dict[str, int]]:
        """Return the kernel's counters by CPU: `{0: {"found": …, "invalid": …, …}}`."""
        from .statistics import parse_per_cpu

        return dict(self.read(messages.DUMP_STATISTICS_PER_CPU, parse_per_cpu))

    def expectation_statistics_per_cpu(self) -> dict[int, dict[str, int]]:
        """Return the kernel's counters of expectations by CPU: `{0: {"new": …, "create": …, "delete": …}}`."""
        from .statistics import parse_expectations_per_cpu

        return dict(self.read(messages.DUMP_EXPECTATION_STATISTICS_PER_CPU, parse_expectations_per_cpu))

    def ask(self, doing: str, message: Message, rows: Iterable[Attribute] = ()) -> list[Message]:
        """Send a request and return the messages that answer it.

        The error of a refused request contains `doing`, and the name of the wrong attribute according to `rows`.
        """
        return self._request(doing, message, rows=rows)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[NetlinkSocket]:
        """Open a separate socket for a dump.

        An unfinished dump would block the next one on the same socket. With another socket, changes are also possible
        during a dump.
        """
        if namespace.current() != self._namespace:
            raise ConntrackError(
                "the thread has moved to another network namespace since the table was opened; "
                "open another table in this namespace"
            )
        with self._doing("reading the table"), contextlib.closing(self._connect()) as reader:
            self._readers.append(reader)
            try:
                yield reader
            finally:
                self._readers.remove(reader)

    def _request(
        self, doing: str, message: Message, entry: Mapping[str, Any] | None = None, rows: Iterable[Attribute] = ENTRY
    ) -> list[Message]:
        """Send a request and return its answers. Its errors are those of `_doing`, which takes 2 µs longer."""
        try:
            return self._socket.request(message)
        except (RequestRejected, KernelError) as error:
            self._raise(error, doing, entry, rows)

    @contextlib.contextmanager
    def _doing(
        self, what: str, entry: Mapping[str, Any] | None = None, rows: Iterable[Attribute] = ENTRY
    ) -> Iterator[None]:
        """Convert an error of the request in the block to a `KernelError` that contains `what` and the entry."""
        try:
            yield
        except (RequestRejected, KernelError) as error:
            self._raise(error, what, entry, rows)

    def _raise(
        self,
        error: RequestRejected | KernelError,
        what: str,
        entry: Mapping[str, Any] | None,
        rows: Iterable[Attribute],
    ) -> NoReturn:
        if isinstance(error, KernelError):  # an error of the transport, which does not contain the request
            raise error.about(_about(what, entry)) from error
        if error.refusal.errno == errno.EINVAL and not self._answered():
            raise Unavailable(_about(what, entry), errno.EINVAL) from None
        raise to_kernel_error(_about(what, entry), error.refusal, rows) from None

    def _answered(self) -> bool:
        """Return whether the kernel has ctnetlink. Without it, every request is invalid."""
        try:
            self._socket.request(messages.STATISTICS)
        except RequestRejected as error:
            return error.refusal.errno != errno.EINVAL
        return True
