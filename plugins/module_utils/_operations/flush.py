# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Delete the entries, or the expectations, that match, and nothing else.

The table is read, and each matching entry is deleted by its tuple, zone and id. A new entry with the same tuple is
therefore kept. Without a limit, entries are deleted while the rest of the table is still being read, unless the match
needs counters or timestamps, which a later entry may lack. The kernel's own flush is never used: it is not faster, and
it does not return the deleted entries.

With sockets to end, all entries are read before the first deletion: see `end_sockets.py`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Callable, Iterator

from ..client import uapi
from ..client.codec.codec import Values
from ..client.codec.types import TCP_STATES
from ..client.dump.scan import Action, Visitor
from ..client.entry.labels import NO_LABELS, LabelMap
from ..client.errors import NAMED, ConntrackError, KernelError, NotFound, PartialFailure, ResultUnknown, named
from ..client.host.ssh_session import TcpConnection, match_connections
from ..client.match.expression import prepared
from ..client.match.match import Match
from ..client.table_reader import UNLIMITED, TableReader
from .resource import Resource, resource_of

if TYPE_CHECKING:
    from ..client.codec.layout import MessageLayout
    from ..client.dump.deletions import DeleteRequests
    from ..client.entry.nested import Document
    from ..client.table import Table

METHOD = "delete"

#: The TCP states, as bytes of a dump, in which the next packet can have ACK without SYN, FIN and RST. From this packet,
#: the kernel creates an established entry if nf_conntrack_tcp_loose is on (tcp_new in nf_conntrack_proto_tcp.c).
RETURNING = bytes(TCP_STATES[name] for name in ("syn_recv", "established", "fin_wait", "close_wait", "last_ack"))


class FlushFailed(PartialFailure):
    """Not all matching entries were deleted."""


def can_return(entry: Values) -> bool:
    """Return whether the flow of a TCP entry can return with its next packet. An offloaded entry has no state."""
    return entry.get("tcp.state", RETURNING[0]) in RETURNING


class ReturningFlows:
    """Counts the TCP entries that `can_return`."""

    def __init__(self) -> None:
        self.count = 0

    def on(self, layout: MessageLayout) -> Action | None:
        """Return the action for messages of a layout, None if it is not of TCP."""
        if layout.constants.get("original.protocol") != uapi.IPPROTO_TCP:
            return None
        size, column = layout.size, layout.column("tcp.state")

        def act(data: bytes) -> None:
            count = len(data) // size
            if column is not None:
                states = data[column.start :: size]
                count -= len(states.translate(None, RETURNING))
            self.count += count

        return act

    def add(self, entry: Values) -> None:
        """Count an entry that is already decoded."""
        self.count += entry.get("original.protocol") == uapi.IPPROTO_TCP and can_return(entry)


class LocalSockets(Visitor):
    """The sockets that are ended with the visited entries. `end_sockets.py`, which few tasks need, implements it.

    `returning` is the number of visited entries with such a socket that `can_return`. After `end`, also if it failed,
    `ended` is the number of sockets that have ended, and `may_have_ended` is whether there may be more.
    """

    returning = 0
    ended = 0
    may_have_ended = False

    def __len__(self) -> int:
        raise NotImplementedError

    def end(self) -> None:
        """Destroy the sockets. Raises `ConntrackError`."""
        raise NotImplementedError


class DeletionPlan(Visitor):
    """The entries to delete: those that match and do not belong to a connection in `keep`.

    `count` is their number, and `shown` contains the first `report_limit` of them. `kept` is the number of matching
    entries that are not deleted. No more than `limit` entries are deleted. With `sockets`, these are ended before.
    """

    #: The value of the option `table`.
    table_name = "conntrack"

    def __init__(
        self,
        table: TableReader,
        match: Match,
        keep: frozenset[TcpConnection] = frozenset(),
        report_limit: int = 100,
        limit: int = UNLIMITED,
        sockets: LocalSockets | None = None,
    ) -> None:
        self.count = self.kept = 0
        self.sockets = sockets
        self._returning = ReturningFlows()
        self.shown: list[Values] = []
        self.match = match
        self.report_limit = report_limit
        self.limit = limit
        self._table = table
        self._built: DeleteRequests | None = None
        self._kept = prepared(match_connections(keep))
        self._is_kept = self._kept.compile()

    def resource(self) -> Resource:
        """Return how to name and to show the entries."""
        return resource_of(self.table_name)

    def results(self) -> Document:
        """Return the results that only this kind of plan has."""
        return {}

    def will_return(self, deleted: int) -> int | None:
        """Return how many of the deleted entries are of TCP flows that can return, None if the setting is unreadable.

        Flows whose sockets end do not return.
        """
        ended = self.sockets.returning if self.sockets is not None else 0
        count = min(self._returning.count - ended, deleted)
        if not count:
            return 0
        from ..client.host import sysctl

        loose = sysctl.read("tcp_loose")
        return loose and count

    def total(self) -> int:
        """Return the number of entries in the table, whether or not they match."""
        return self._table.count()

    def read(self, check_mode: bool = False, between: Callable[[], object] | None = None) -> None:
        """Find the entries, and call `between` after each datagram. In check mode, build no requests."""
        self._most = 0 if check_mode else self.limit
        self._built = None
        self._table.scan(self, self.match.where, between=between)

    @property
    def _requests(self) -> DeleteRequests:
        """The requests to delete the entries. A task that finds nothing to delete does not import them."""
        if self._built is None:
            self._built = self._writable().delete_requests()
        return self._built

    def _writable(self) -> Table:
        from ..client.table import Table

        return Table.sharing(self._table)

    def delete_pending(self, last: bool = False) -> Iterator[KernelError | None]:
        """Delete the entries of full batches, with `last` all that are left. Yield None or the error of each."""
        return iter(()) if self._built is None else self._writable().delete_batches(self._built.drain(last))

    def includes(self, entry: Values) -> bool:
        """Return whether the plan deletes an entry."""
        return self.match(entry) and not self._is_kept(entry)

    def on(self, layout: MessageLayout) -> Action:
        size = layout.size
        queue_delete: Action | None = None
        count_returning = self._returning.on(layout)
        choose_sockets = None if self.sockets is None else self.sockets.on(layout)

        def act(data: bytes) -> None:
            nonlocal queue_delete
            if count_returning is not None:
                count_returning(data)
            if choose_sockets is not None:
                choose_sockets(data)
            self.shown += layout.entries(data[: size * max(self.report_limit - len(self.shown), 0)])
            deleted = data[: size * max(self._most - self.count, 0)]
            self.count += len(data) // size
            if deleted:
                queue_delete = queue_delete or self._requests.on(layout)
                queue_delete(deleted)

        return self._unless_kept(layout, act)

    def _unless_kept(self, layout: MessageLayout, act: Action) -> Action:
        """Return an action that counts the entries to keep, and passes all others to another action."""
        from ..client.match.message_filter import compile_for_layout

        kept = compile_for_layout(self._kept, layout)
        if kept.never:
            return act

        def act_on_others(data: bytes) -> None:
            flags = kept.flags(data)
            self.kept += flags.count(1)
            others = layout.choose(data, bytes(not flag for flag in flags))
            if others:
                act(others)

        return act_on_others

    def add(self, entry: Values) -> None:
        if self._is_kept(entry):
            self.kept += 1
        else:
            self.select(entry)

    def select(self, entry: Values) -> None:
        """Add an entry that is not kept to the plan."""
        self.count += 1
        self._returning.add(entry)
        if self.sockets is not None:
            self.sockets.add(entry)
        if self.count <= self.report_limit:
            self.shown.append(entry)
        if self.count <= self._most:
            self._requests.add(entry)


class ExpectationDeletionPlan(DeletionPlan):
    """The expectations to delete. There are few of them, so all are read first."""

    table_name = "expect"

    def total(self) -> int:
        from ..client.expectation.expectation import read_all

        return sum(1 for _one in read_all(self._table))

    def read(self, check_mode: bool = False, between: Callable[[], object] | None = None) -> None:
        from ..client.expectation.expectation import dump

        self._found = list(dump(self._table, self.match))
        self.count, self.shown = len(self._found), self._found[: self.report_limit]

    def delete_pending(self, last: bool = False) -> Iterator[KernelError | None]:
        from ..client.expectation import expectation
        from ..client.table import retry_lost_delete

        for one in self._found:
            delete = functools.partial(expectation.delete, self._writable(), one)
            try:
                delete()
            except KernelError as error:
                yield retry_lost_delete(error, delete)
            else:
                yield None


#: The plans by the value of the option `table`.
PLANS: dict[str, type[DeletionPlan]] = {plan.table_name: plan for plan in (DeletionPlan, ExpectationDeletionPlan)}


class DeletionProgress:
    """The results of a plan's deletions so far."""

    def __init__(self, plan: DeletionPlan) -> None:
        self.plan = plan
        self.deleted = self.gone = self.failed = self.ended_sockets = 0
        #: The number of failed deletions that may have been carried out, because the answer was lost.
        self.unknown = 0
        self.sockets_unknown = False
        #: The first error of a failed deletion: there can be a million.
        self.failure: KernelError | None = None

    def start(self, check_mode: bool) -> None:
        """Find the entries and, if possible, delete them while the rest is being read."""
        plan = self.plan
        at_once = plan.limit >= UNLIMITED and not (check_mode or plan.match.needs or plan.sockets is not None)
        plan.read(check_mode, self._delete_pending if at_once else None)

    def finish(self, check_mode: bool) -> None:
        """Delete the rest, or in check mode, count all as deleted."""
        if check_mode:
            self.deleted = self.plan.count
        else:
            self._delete_pending(last=True)

    def end_sockets(self, check_mode: bool) -> None:
        """End the sockets of the plan, if it has any. In check mode, count all as ended. Raises `ConntrackError`."""
        sockets = self.plan.sockets
        if sockets is None:
            return
        if check_mode:
            self.ended_sockets = len(sockets)
            return
        try:
            sockets.end()
        finally:
            self.ended_sockets = sockets.ended
            self.sockets_unknown = sockets.may_have_ended

    def _delete_pending(self, last: bool = False) -> None:
        for error in self.plan.delete_pending(last):
            if error is None:
                self.deleted += 1
            elif isinstance(error, NotFound):
                self.gone += 1
            else:
                self.failed += 1
                self.unknown += isinstance(error, ResultUnknown)
                self.failure = self.failure or error

    @property
    def changed(self) -> bool:
        """Whether an entry was deleted, or may have been, or a socket was ended."""
        return self.deleted > 0 or self.unknown > 0 or self.ended_sockets > 0 or self.sockets_unknown

    @property
    def doubt(self) -> str:
        """The clause about lost answers that follows the number of failed deletions, "" if no answer was lost."""
        return (
            f" (the answers for {self.unknown} of them were lost: they may have been removed)" if self.unknown else ""
        )


def flush(plan: DeletionPlan, labels: LabelMap = NO_LABELS, check_mode: bool = False) -> Document:
    """Delete the entries of a plan and return the module's result.

    Raises `FlushFailed` if more entries than the limit match, before any deletion; if the kernel refused a deletion,
    after all others; if reading the table fails after the first deletion or refusal; and if sockets could not be ended,
    before any deletion.
    """
    progress, resource, counted = DeletionProgress(plan), plan.resource(), 0

    def result(**more: Any) -> Document:
        return {
            "changed": progress.changed,
            "flushed": progress.deleted,
            "kept": plan.kept,
            "gone": progress.gone,
            # Entries that were created after the count are included
            "total": max(counted, plan.count + plan.kept),
            "entries": resource.to_documents(plan.shown, labels),
            "method": METHOD,
            "will_return": plan.will_return(progress.deleted),
            **({} if plan.sockets is None else {"ended_sockets": progress.ended_sockets}),
            **plan.results(),
            **more,
        }

    try:
        counted = plan.total()
        progress.start(check_mode)
    except ConntrackError as error:
        if not (progress.deleted or progress.failed):
            raise
        refused = ""
        if progress.failed:
            refused = f", {progress.failed} not{progress.doubt}, the first because: {progress.failure}"
        raise FlushFailed(
            f"{error}. {progress.deleted} {resource.noun} had been removed until then{refused}", result()
        ) from error
    if plan.count > plan.limit:
        del plan.shown[NAMED:]
        names = [resource.describe(thing) for thing in plan.shown]
        raise FlushFailed(
            f"{plan.count} {resource.noun} match, more than the limit of {plan.limit}{named(names, plan.count)}. "
            "Nothing was removed: narrow the match or raise the limit",
            result(),
        )
    try:
        progress.end_sockets(check_mode)
    except ConntrackError as error:
        raise FlushFailed(f"{error}. No entry was removed", result()) from error
    progress.finish(check_mode)
    if progress.failed:
        raise FlushFailed(
            f"{progress.failed} of {plan.count} {resource.noun} were not removed{progress.doubt}, the first because: "
            f"{progress.failure}",
            result(),
        )
    before = "".join(sorted(resource.describe(thing) + "\n" for thing in plan.shown))
    return result(diff={"before": before, "after": ""})
