# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read and change the connection tracking table of one network namespace.

An operation imports what only it needs, because the target compiles every import again in each task.
"""

from __future__ import annotations

import errno
import itertools
from collections import deque
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, Mapping

from .ctnetlink import messages
from .entry.creation import TCP_FLAGS, creation
from .entry.entry import Entry, describe, identity, lookup_key
from .entry.labels import LabelMap
from .errors import KernelError, NotFound, ResultUnknown, TableFull, Unsupported
from .netlink.error import ErrorReply, RequestRejected
from .netlink.message import Message, RequestBatch, parse
from .table_reader import TableReader, parse_answer, to_kernel_error

if TYPE_CHECKING:
    from .bulk.columns import ColumnTransform
    from .ctnetlink.requests import Request
    from .dump.deletions import DeleteRequests
    from .match.expression import Term


@lru_cache(maxsize=None)
def _requests() -> Any:
    """Import the requests about single entries. Tasks that only read tables do not need them."""
    from .ctnetlink import requests

    return requests


_HELPER_STAYS = (
    "This kernel cannot remove the helper of an entry (as Linux 7.2); delete the entry and create it again without a "
    "helper, which interrupts the connection"
)
LABELS_NEED_A_RULE = (
    "Labels are kept only where a rule in the network namespace uses them: add one, such as "
    "'ct label set' in nftables or '-m connlabel' in iptables"
)


def _advised(error: KernelError, entry: Mapping[str, Any]) -> KernelError:
    """Add a hint to the error of an update."""
    if isinstance(error, Unsupported) and entry.get("helper") == "":
        return error.with_hint(_HELPER_STAYS)
    if isinstance(error, TableFull) and "labels" in entry:
        return error.with_hint(LABELS_NEED_A_RULE)
    return error


def retry_lost_delete(error: KernelError, delete: Callable[[], None]) -> KernelError | None:
    """Return the error of a deletion, None if only its answer was lost.

    If the answer was lost, call `delete` again: an entry that no longer exists was deleted.
    """
    if not isinstance(error, ResultUnknown):
        return error
    try:
        delete()
    except NotFound:
        return None
    except KernelError as again:
        return error.with_hint(f"{error.hint}. Deleting it again failed. {again}")
    return None


class Table(TableReader):
    """The table of the network namespace in which the object is created. Close it after use.

    Every operation raises `NotPermitted` without CAP_NET_ADMIN and `Unavailable` without ctnetlink. Operations on many
    entries yield None or the error of each entry, in order, and continue after an error.
    """

    @classmethod
    def sharing(cls, reader: TableReader) -> Table:
        """Return a table with the sockets of a reader. Closing either of them closes both."""
        table = cls.__new__(cls)
        table.__dict__ = reader.__dict__
        return table

    # one entry

    def create(self, entry: Mapping[str, Any]) -> None:
        """Create an entry. Raises `Exists` if either of its tuples is taken."""
        self._request("creating", _requests().CREATE.message(creation(entry)), entry)

    def create_or_update(self, entry: Mapping[str, Any]) -> None:
        """Create an entry, or update the existing one.

        An entry with `nat` can only be created: the kernel refuses NAT on an update.
        """
        whole = creation(entry)
        assumed = [key for key in TCP_FLAGS if key in whole and key not in entry]
        with self._doing("creating or updating", entry):
            if assumed:
                # These defaults are for a new entry only: an existing entry keeps its flags
                try:
                    self._socket.request(_requests().CREATE.message(whole))
                    return
                except RequestRejected as error:
                    if error.refusal.errno != errno.EEXIST:
                        raise
                for key in assumed:
                    del whole[key]
            self._socket.request(_requests().PUT.message(whole))

    def update(self, entry: Mapping[str, Any]) -> None:
        """Change the keys of an entry that `entry` has besides its original tuple and zone, which identify it.

        The kernel applies helper, timeout, status, protocol state, mark, sequence adjustment, synproxy and labels in
        this order. If it refuses one of them, the changes before it stay. Raises `NotFound`, `Busy`, `Unsupported`.
        """
        try:
            self._request("updating", _requests().UPDATE.message(entry), entry)
        except (TableFull, Unsupported) as error:
            raise _advised(error, entry) from None

    def get(self, entry: Mapping[str, Any]) -> Entry:
        """Return the entry with the zone and original tuple of `entry`. Raises `NotFound`.

        The kernel looks in both directions. An entry that has the tuple as its reply tuple counts as not found.
        """
        found = self.find_by_tuple(entry)
        if identity(found) != identity(entry):
            raise NotFound(f"reading {describe(entry)}", errno.ENOENT)
        return found

    def find_by_tuple(self, entry: Mapping[str, Any], direction: str = "original") -> Entry:
        """Return the entry that has this tuple of `entry` in either direction. Raises `NotFound`."""
        about = entry if direction == "original" else lookup_key(entry, direction)
        answers = self._request("reading", _requests().GET.message(about), entry)
        if not answers:
            raise NotFound(f"reading {describe(entry)}", errno.ENOENT)
        return parse_answer("reading", messages.parse_entry, answers[0], entry)

    def delete(self, entry: Mapping[str, Any]) -> None:
        """Delete an entry. With `id`, delete it only if it is still the entry that was read.

        Raises `NotFound`, also if an entry with another id has replaced it.
        """
        self._request("deleting", _requests().DELETE.message(entry), entry)

    # many entries

    def create_all(self, entries: Iterable[Mapping[str, Any]]) -> Iterator[KernelError | None]:
        """Create complete entries (see `entry.creation`). Reads some thousand entries ahead."""
        return self._all("creating", _requests().CREATE, entries)

    def create_declared(
        self, documents: Iterable[Mapping[str, Any]], labels: LabelMap | None = None
    ) -> Iterator[KernelError | None]:
        """Create the entries that documents declare (see `document.from_document`). Reads some thousand ahead.

        Raises `InvalidValue` for the first invalid document, after the entries before it.
        """
        from .bulk.documents import completion_transform

        return self._all("creating", _requests().CREATE, documents, completion_transform(labels or LabelMap()))

    def create_made(self, things: Iterable[Any], bulk: ColumnTransform) -> Iterator[KernelError | None]:
        """Create entries from things that `bulk` converts to complete entries, as `create_declared` does."""
        return self._all("creating", _requests().CREATE, things, bulk)

    def update_all(self, entries: Iterable[Mapping[str, Any]]) -> Iterator[KernelError | None]:
        """Change entries in place, as `update` does. Reads some thousand entries ahead."""

        def recover(request: Message, error: KernelError) -> KernelError:
            return _advised(error, messages.parse_entry(request))

        return self._all("updating", _requests().UPDATE, entries, recover=recover)

    def delete_all(self, entries: Iterable[Mapping[str, Any]]) -> Iterator[KernelError | None]:
        """Delete entries, as `delete` does. Reads some thousand entries ahead."""
        return self._all("deleting", _requests().DELETE, entries)

    def _all(
        self,
        doing: str,
        request: Request,
        things: Iterable[Any],
        bulk: ColumnTransform | None = None,
        recover: Callable[[Message, KernelError], KernelError | None] | None = None,
    ) -> Iterator[KernelError | None]:
        size = self._socket.max_batch_size()
        bulk = bulk or _requests().PREPARED
        batches = _requests().request_batches(things, request, self._socket.reserve_sequence, size, bulk)
        return self.send_batches(doing, batches, recover)

    def send_all(self, doing: str, requests: Iterable[Message]) -> Iterator[KernelError | None]:
        """Send encoded requests, each about one entry."""
        return self.send_batches(doing, self._socket.in_batches(requests))

    def send_batches(
        self,
        doing: str,
        batches: Iterable[RequestBatch],
        recover: Callable[[Message, KernelError], KernelError | None] | None = None,
    ) -> Iterator[KernelError | None]:
        """Send batches of requests, each about one entry. `recover` may replace an error, or remove it with None."""
        for batch, refusals in self._socket.send_batches(batches):
            if not refusals:
                yield from itertools.repeat(None, batch.count)
                continue
            for position, (_number, request) in enumerate(parse(batch.frames)):
                refusal = refusals.get(position)
                if refusal is None:
                    yield None
                    continue
                error = to_kernel_error(f"{doing} {describe(messages.parse_entry(request))}", refusal)
                yield error if recover is None else recover(request, error)

    def delete_requests(self) -> DeleteRequests:
        """Return a visitor that builds the requests to delete the entries of a `scan`."""
        from .dump.deletions import DeleteRequests

        return DeleteRequests(self._socket.reserve_sequence, self._socket.max_batch_size())

    def delete_batches(self, batches: Iterable[RequestBatch]) -> Iterator[KernelError | None]:
        """Send the batches of a `DeleteRequests`. A deletion whose answer was lost is repeated."""

        def recover(request: Message, error: KernelError) -> KernelError | None:
            return retry_lost_delete(error, lambda: self.delete(messages.parse_entry(request)))

        return self.send_batches("deleting", batches, recover)

    def flush(self, where: Term) -> None:
        """Let the kernel delete every entry for which the term holds. It does not return their number.

        Raises `InvalidValue` for a term that the kernel's filter cannot express in full, or that some kernel would
        treat as a flush of the whole table. Raises `Unsupported` on kernels before 6.12, which refuse the request. A
        term may take two requests, one for IPv4 and one for IPv6. If the second fails, the error shows that the
        first was carried out.
        """
        from .match.kernel_filter import narrow_all

        requests = [messages.flush(kernel_filter) for kernel_filter in narrow_all(where)]
        for position, request in enumerate(requests):
            done = "the matching IPv4 entries were deleted" if position else "nothing was deleted"
            try:
                self._request("flushing by a filter", request)
            except KernelError as error:
                if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise Unsupported(
                        error.request,
                        errno.EOPNOTSUPP,
                        hint=f"This requires Linux 6.12; {done}. Delete the entries that a scan finds instead",
                    ) from error
                if not position:
                    raise
                raise error.with_hint(". ".join(filter(None, (error.hint, f"Before that, {done}")))) from error

    def zero_all(self, entries: Iterable[Mapping[str, Any]]) -> Iterator[Entry | KernelError]:
        """Reset the counters of entries. Yield each entry with the counters before the reset, or its error.

        The kernel reads and resets a counter in one step, so no count is lost. It finds an entry by tuple and zone, not
        by id: an entry that has replaced the given one is reset and yielded instead.
        """
        return self._ask_all("zeroing the counters of", entries, zero=True)

    def find_by_tuples(self, entries: Iterable[Mapping[str, Any]]) -> Iterator[Entry | KernelError]:
        """Yield for each entry, in order, the one with its original tuple in either direction, or the error.

        This is `find_by_tuple` with several requests per message. A tuple with an `original.zone` is looked for in it.
        """
        return self._ask_all("reading", entries)

    def _ask_all(
        self, doing: str, entries: Iterable[Mapping[str, Any]], zero: bool = False
    ) -> Iterator[Entry | KernelError]:
        sent: deque[Mapping[str, Any]] = deque()
        request = _requests().ZERO if zero else _requests().GET

        def remembered() -> Iterator[Message]:
            for entry in entries:
                sent.append(entry)
                yield request.message(entry)

        for answer in self._socket.request_many(remembered()):
            about = sent.popleft()
            if isinstance(answer, ErrorReply):
                yield to_kernel_error(f"{doing} {describe(about)}", answer)
            elif answer:
                try:
                    yield parse_answer(doing, messages.parse_entry, answer[0], about)
                except ResultUnknown as error:
                    yield error
            else:
                yield NotFound(f"{doing} {describe(about)}", errno.ENOENT)
