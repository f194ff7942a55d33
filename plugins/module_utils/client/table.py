# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operations on the connection tracking table of one network namespace.

What only some of them need is imported there: a target compiles every import of every task anew.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
from collections import deque
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, Mapping, TypeVar

from . import messages, namespace
from .attributes import ENTRY, Attribute
from .entry import Entry, asking, creation, describe, identity
from .errors import (
    ConntrackError,
    KernelError,
    NotFound,
    NotPermitted,
    ResultUnknown,
    TableFull,
    Unavailable,
    Unsupported,
    kernel_error,
)
from .labels import LabelMap
from .netlink import Message, Refusal, Refused, Socket, Window, parse
from .statistics import parse_expectations_per_cpu, parse_global, parse_per_cpu

if TYPE_CHECKING:
    from .columns import Bulk
    from .narrowing import Narrowing
    from .removal import Removal
    from .scan import Row, Scan, Visitor
    from .template import Request
    from .term import Term

_Thing = TypeVar("_Thing")

#: Below so many entries it costs less to read them all at once than to have the kernel walk its whole hash table,
#: which all namespaces share, once for each family.
FEW = 5000


_HELPER_STAYS = (
    "This kernel takes no helper from an entry (Linux 7.2 does not); delete the entry and create it again without one, "
    "which interrupts the connection"
)
LABELS_NEED_A_RULE = (
    "Labels are kept only where a rule in the network namespace uses them: add one, such as "
    "'ct label set' in nftables or '-m connlabel' in iptables"
)


def refused(doing: str, refusal: Refusal, rows: Iterable[Attribute] = ENTRY) -> KernelError:
    """The exception for a refusal, with the name that `rows` have for the attribute it points at."""
    number, named = refusal.attribute, None
    if number is not None:
        named = next((row.key.partition(".")[0] for row in rows if row.path[0] == number), str(number))
    error = kernel_error(doing, refusal.errno, refusal.text, named)
    if isinstance(error, NotPermitted) and "updating" in doing:
        return error.advised(f"{error.remedy}. A timeout that is fixed (status fixed_timeout) nobody can change")
    return error


def _advised(error: KernelError, entry: Mapping[str, Any]) -> KernelError:
    """What befell an update, with advice that fits what it was to change."""
    if isinstance(error, Unsupported) and entry.get("helper") == "":
        return error.advised(_HELPER_STAYS)
    if isinstance(error, TableFull) and "labels" in entry:
        return error.advised(LABELS_NEED_A_RULE)
    return error


def deleted_after_all(error: KernelError, delete: Callable[[], None]) -> KernelError | None:
    """What befell a deletion that ended with this error: None if it was carried out and only its answer was lost.

    Whether it was is asked by deleting again: what is not there any more was deleted.
    """
    if not isinstance(error, ResultUnknown):
        return error
    try:
        delete()
    except NotFound:
        return None
    except KernelError as again:
        return again
    return None


def _about(doing: str, entry: Mapping[str, Any] | None) -> str:
    return doing if entry is None else f"{doing} {describe(entry)}"


class Table:
    """The table of the network namespace in which this was made; close it after use.

    Every operation raises `NotPermitted` without CAP_NET_ADMIN and `Unavailable` without
    ctnetlink. Operations on many entries give, for each in order, None or the error that befell
    it, and go on after an error.
    """

    def __init__(self, connect: Callable[[], Socket] = Socket) -> None:
        self._connect = connect
        self._namespace = namespace.current()
        self._socket = connect()

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    # one entry

    def create(self, entry: Mapping[str, Any]) -> None:
        """Create an entry. Raises `Exists` if either of its tuples is taken."""
        with self._doing("creating", entry):
            self._socket.request(messages.create(creation(entry)))

    def put(self, entry: Mapping[str, Any]) -> None:
        """Create an entry or update the one that is there.

        An entry with `nat` can be put only once: the kernel refuses NAT on an update.
        """
        with self._doing("creating or updating", entry):
            self._socket.request(messages.create(creation(entry), exclusive=False))

    def update(self, entry: Mapping[str, Any]) -> None:
        """Change an entry in place to what `entry` has besides its original tuple and zone.

        The kernel applies helper, timeout, status, protocol state, mark, sequence adjustment,
        synproxy and labels in this order; what came before a refusal stays. Raises `NotFound`,
        `Busy`, `Unsupported`.
        """
        try:
            with self._doing("updating", entry):
                self._socket.request(messages.update(entry))
        except (TableFull, Unsupported) as error:
            raise _advised(error, entry) from None

    def get(self, entry: Mapping[str, Any]) -> Entry:
        """The entry with the zone and original tuple of `entry`. Raises `NotFound`.

        The kernel looks in both directions; an entry that has the tuple as its reply is not
        this one.
        """
        found = self.holder(entry)
        if identity(found) != identity(entry):
            raise NotFound(f"reading {describe(entry)}", errno.ENOENT)
        return found

    def holder(self, entry: Mapping[str, Any], direction: str = "original") -> Entry:
        """The entry that has this tuple of `entry` in either direction. Raises `NotFound`."""
        about = entry if direction == "original" else asking(entry, direction)
        with self._doing("reading", entry):
            answers = self._socket.request(messages.get(about))
        if not answers:
            raise NotFound(f"reading {describe(entry)}", errno.ENOENT)
        return messages.parse_entry(answers[0])

    def delete(self, entry: Mapping[str, Any]) -> None:
        """Delete an entry, with `id` only if it is still the one that was read.

        Raises `NotFound`, also where another entry has taken its place.
        """
        with self._doing("deleting", entry):
            self._socket.request(messages.delete(entry))

    # many entries

    def create_all(self, entries: Iterable[Mapping[str, Any]]) -> Iterator[KernelError | None]:
        """Create entries that are complete (see `entry.creation`). Reads some thousand entries ahead."""
        return self._all("creating", messages.request("create"), entries)

    def create_declared(
        self, documents: Iterable[Mapping[str, Any]], labels: LabelMap | None = None
    ) -> Iterator[KernelError | None]:
        """Create what documents declare (see `shape.parse`). Reads some thousand ahead.

        Raises `InvalidValue` for the first that declares nothing that can be, after those before it.
        """
        from .bulk import declared

        return self._all("creating", messages.request("create"), documents, declared(labels or LabelMap()))

    def create_made(self, things: Iterable[Any], bulk: Bulk) -> Iterator[KernelError | None]:
        """Create what `bulk` makes complete entries of, as `create_declared` does."""
        return self._all("creating", messages.request("create"), things, bulk)

    def update_all(self, entries: Iterable[Mapping[str, Any]]) -> Iterator[KernelError | None]:
        """Change entries in place, as `update` does. Reads some thousand entries ahead."""

        def recover(request: Message, error: KernelError) -> KernelError:
            return _advised(error, messages.parse_entry(request))

        return self._all("updating", messages.request("update"), entries, recover=recover)

    def delete_all(self, entries: Iterable[Mapping[str, Any]]) -> Iterator[KernelError | None]:
        """Delete the entries named, as `delete` does. Reads some thousand entries ahead."""
        return self._all("deleting", messages.request("delete"), entries)

    def _all(
        self,
        doing: str,
        request: Request,
        things: Iterable[Any],
        bulk: Bulk | None = None,
        recover: Callable[[Message, KernelError], KernelError | None] | None = None,
    ) -> Iterator[KernelError | None]:
        from .template import PREPARED, windows

        size = self._socket.wide_window()
        return self.carry_out(doing, windows(things, request, self._socket.numbers, size, bulk or PREPARED), recover)

    def send_all(self, doing: str, requests: Iterable[Message]) -> Iterator[KernelError | None]:
        """Send requests that are built already, each about one entry."""
        return self.carry_out(doing, self._socket.in_windows(requests))

    def carry_out(
        self,
        doing: str,
        windows: Iterable[Window],
        recover: Callable[[Message, KernelError], KernelError | None] | None = None,
    ) -> Iterator[KernelError | None]:
        """Send windows of requests, each request about one entry; `recover` may make something of an error."""
        for window, refusals in self._socket.carry_out(windows):
            if not refusals:
                yield from itertools.repeat(None, window.count)
                continue
            for position, (_number, request) in enumerate(parse(window.frames)):
                refusal = refusals.get(position)
                if refusal is None:
                    yield None
                    continue
                error = refused(f"{doing} {describe(messages.parse_entry(request))}", refusal)
                yield error if recover is None else recover(request, error)

    def removal(self) -> Removal:
        """What makes the requests for `remove` of entries that a `scan` finds."""
        from .removal import Removal

        return Removal(self._socket.numbers, self._socket.wide_window())

    def remove(self, windows: Iterable[Window]) -> Iterator[KernelError | None]:
        """Delete the entries that the windows of a `Removal` are about.

        A deletion whose answer was lost is repeated (see `deleted_after_all`).
        """

        def recover(request: Message, error: KernelError) -> KernelError | None:
            return deleted_after_all(error, lambda: self.delete(messages.parse_entry(request)))

        return self.carry_out("deleting", windows, recover)

    def flush(self, where: Term) -> None:
        """Have the kernel delete every entry for which the term holds, and not say how many they were.

        Raises `InvalidValue` for a term that is not wholly a filter of the kernel's, or one that some kernel
        would take for a flush of everything; `Unsupported` on kernels before 6.12, which refuse the request.
        A term may take two requests, one for IPv4 and one for IPv6: if the second fails, the error says that
        the first was carried out.
        """
        from .narrowing import narrow_all

        requests = [messages.flush(narrowing) for narrowing in narrow_all(where)]
        for position, request in enumerate(requests):
            done = "what it matched of IPv4 was deleted" if position else "nothing was deleted"
            try:
                with self._doing("flushing by a filter"):
                    self._socket.request(request)
            except KernelError as error:
                if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise Unsupported(
                        error.request,
                        errno.EOPNOTSUPP,
                        remedy=f"This takes Linux 6.12; {done}. Remove what a scan finds instead",
                    ) from error
                if not position:
                    raise
                raise error.advised(". ".join(filter(None, (error.remedy, f"Before that, {done}")))) from error

    def zero_all(self, entries: Iterable[Mapping[str, Any]]) -> Iterator[Entry | KernelError]:
        """Reset the counters of the entries named and give each as it was, with what they had counted.

        The kernel reads and resets a counter at once, so what is given is what was reset. It looks
        by the tuple alone: an entry that took the place of the one named is reset and given, too.
        """
        return self._ask_all("zeroing the counters of", entries, zero=True)

    def holders(self, entries: Iterable[Mapping[str, Any]]) -> Iterator[Entry | KernelError]:
        """For each, in order, the entry that has its original tuple in either direction, or `NotFound`.

        What `holder` says of one; several are asked for at once. A tuple in an `original.zone` is looked for there.
        """
        return self._ask_all("reading", entries)

    def _ask_all(
        self, doing: str, entries: Iterable[Mapping[str, Any]], zero: bool = False
    ) -> Iterator[Entry | KernelError]:
        sent: deque[Mapping[str, Any]] = deque()

        def noted() -> Iterator[Message]:
            for entry in entries:
                sent.append(entry)
                yield messages.get(entry, zero)

        for answer in self._socket.ask_all(noted()):
            about = sent.popleft()
            if isinstance(answer, Refusal):
                yield refused(f"{doing} {describe(about)}", answer)
            elif answer:
                yield messages.parse_entry(answer[0])
            else:
                yield NotFound(f"{doing} {describe(about)}", errno.ENOENT)

    # reading

    def dump(self, family: int = 0, zero: bool = False, where: Term | None = None) -> Iterator[Entry]:
        """Every entry, or every one for which a term holds, of one family (AF_INET, AF_INET6) or of both.

        `zero` resets the counters of all that is read, whether or not it matches. The kernel promises
        that an entry that is there from beginning to end comes once; others may come or not.
        """
        from .scan import Entries

        entries = Entries()
        for _datagram in self.scan(entries, where, family, zero):
            yield from entries.found
            entries.found.clear()

    def rows(self, where: Term | None = None, family: int = 0) -> Iterator[Row]:
        """The same as `dump`, with the keys of an entry and their values instead of a mapping.

        `dict(zip(*row))` is the entry. It costs a third of one.
        """
        from .scan import Rows

        rows = Rows()
        for _datagram in self.scan(rows, where, family):
            yield from rows.found
            rows.found.clear()

    def scan(self, visitor: Visitor, where: Term | None = None, family: int = 0, zero: bool = False) -> Iterator[None]:
        """Show the visitor every entry, or those for which a term holds, and come back after each datagram of them.

        The kernel leaves out what it can, where it can; whether the term holds is asked here, of all that comes.
        """
        from .scan import Scan

        scan = Scan(visitor, where)
        if where is None or family or zero or self._has_few():
            return self._scan(scan, messages.dump(family, zero))
        from .narrowing import narrow_all

        return itertools.chain.from_iterable(self._scan_narrowed(scan, narrowing) for narrowing in narrow_all(where))

    def _has_few(self) -> bool:
        try:
            return self.count() < FEW
        except ResultUnknown:
            return False

    def _scan(self, scan: Scan, request: Message) -> Iterator[None]:
        with self._reading() as reader:
            yield from reader.scan(request, scan.feed)

    def _scan_narrowed(self, scan: Scan, narrowing: Narrowing) -> Iterator[None]:
        try:
            yield from self._scan(scan, messages.dump(narrowing=narrowing))
        except KernelError as error:
            if not narrowing.attributes or error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
            yield from self._scan(scan, messages.dump(narrowing.family))  # this kernel does not know the filter

    def dying(self) -> Iterator[Entry]:
        """Entries that are gone but whose destroy event could not be delivered yet."""
        return self.read(messages.dump_dying(), messages.parse_entry)

    def unconfirmed(self) -> Iterator[Entry]:
        """Entries of packets still on their way; always empty since Linux 5.19."""
        return self.read(messages.dump_unconfirmed(), messages.parse_entry)

    def read(self, message: Message, parse: Callable[[Message], _Thing]) -> Iterator[_Thing]:
        """Everything that answers a dump request, each through `parse`."""
        with self._reading() as reader:
            for answer in reader.dump(message):
                yield parse(answer)

    def statistics(self) -> dict[str, int]:
        """`{"entries": …, "max_entries": …}`."""
        with self._doing("reading the table"):
            answers = self._socket.request(messages.statistics())
        return parse_global(answers[0])

    def count(self) -> int:
        """How many entries there are."""
        return self.statistics()["entries"]

    def statistics_per_cpu(self) -> dict[int, dict[str, int]]:
        """The kernel's counters by CPU: `{0: {"found": …, "invalid": …, …}}`."""
        return dict(self.read(messages.dump_statistics_per_cpu(), parse_per_cpu))

    def expectation_statistics_per_cpu(self) -> dict[int, dict[str, int]]:
        """The kernel's counters of expectations by CPU: `{0: {"new": …, "create": …, "delete": …}}`."""
        return dict(self.read(messages.dump_expectation_statistics_per_cpu(), parse_expectations_per_cpu))

    def ask(self, doing: str, message: Message, rows: Iterable[Attribute] = ()) -> list[Message]:
        """The messages that answer a request.

        Should it be refused, `doing` says what it is about and `rows` name the attributes that it may have.
        """
        with self._doing(doing, rows=rows):
            return self._socket.request(message)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Socket]:
        """A socket of its own: a reader that stops early leaves a dump behind that would block the next one,
        and changes can be made while the dump goes on."""
        if namespace.current() != self._namespace:
            raise ConntrackError(
                "this table was opened in another network namespace than the thread is in now; "
                "open a table of its own here"
            )
        with self._doing("reading the table"), contextlib.closing(self._connect()) as reader:
            yield reader

    @contextlib.contextmanager
    def _doing(
        self, what: str, entry: Mapping[str, Any] | None = None, rows: Iterable[Attribute] = ENTRY
    ) -> Iterator[None]:
        """Errors on the way as the exceptions that stand for them, with what they were about."""
        try:
            yield
        except Refused as error:
            if error.refusal.errno == errno.EINVAL and not self._answered():
                raise Unavailable(_about(what, entry), errno.EINVAL) from None
            raise refused(_about(what, entry), error.refusal, rows) from None
        except KernelError as error:  # of the transport, which does not know what it was about
            raise kernel_error(_about(what, entry), error.errno) from error

    def _answered(self) -> bool:
        """Whether anything in the kernel answers: without ctnetlink, every request is invalid."""
        try:
            self._socket.request(messages.statistics())
        except Refused as error:
            return error.refusal.errno != errno.EINVAL
        return True
