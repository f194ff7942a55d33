# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove what matches, and nothing else.

The table is read and every entry, or expectation, asked; those that match are deleted one by one, each by its
tuple, zone and id, so that one that took another's place meanwhile is left alone. Without a limit, what has
been found is deleted while the rest is still being read, unless the match needs counters or timestamps, which
a later entry may lack. The kernel's own flush is never used: that way is no faster, and what it deletes nobody
has seen.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Callable, Iterator, NamedTuple

from ..client.codec.codec import Values
from ..client.dump.scan import Action, Visitor
from ..client.entry.labels import LabelMap
from ..client.errors import NAMED, ConntrackError, KernelError, NotFound, PartialFailure, ResultUnknown, named
from ..client.match.expression import NEVER, Term, prepared
from ..client.match.match import Match
from ..client.table import Table, retry_lost_delete
from .resource import ENTRIES, EXPECTATIONS, Resource

if TYPE_CHECKING:
    from ..client.codec.layout import MessageLayout
    from ..client.entry.nested import Document
    from ..client.host.ssh_session import TcpConnection

METHOD = "delete"
#: No table can hold more: a limit that is none.
UNLIMITED = 0xFFFFFFFF


class FlushFailed(PartialFailure):
    """Not all that matches was removed."""


class DeletionPlan:
    """What is to be removed: how many, the first `report_limit` of them, and how many are kept.

    Beyond `delete_limit`, nothing will be removed.
    """

    def __init__(self, table: Table, keep: frozenset[TcpConnection], report_limit: int, delete_limit: int) -> None:
        self.count = self.kept = 0
        self.shown: list[Values] = []
        self.table = table
        self.report_limit = report_limit
        self.delete_limit = delete_limit

    def total(self) -> int:
        """How many there are, whether or not they match."""
        raise NotImplementedError

    def read(self, match: Match) -> Iterator[None]:
        """Read all that matches, and come back from time to time."""
        raise NotImplementedError

    def remove(self, last: bool = False) -> Iterator[KernelError | None]:
        """Remove what was read since the last time, with `last` to its end: for each None or what befell it."""
        raise NotImplementedError


class Entries(DeletionPlan, Visitor):
    """Entries. Of each only the request for its deletion is kept, for there may be a million."""

    def __init__(self, table: Table, keep: frozenset[TcpConnection], report_limit: int, delete_limit: int) -> None:
        super().__init__(table, keep, report_limit, delete_limit)
        self._carried = _carried(keep)
        #: Whether an entry carries one of the connections to keep.
        self.is_kept = self._carried.compile()
        self._removal = table.removal()

    def total(self) -> int:
        return self.table.count()

    def read(self, match: Match) -> Iterator[None]:
        return self.table.scan(self, match.where)

    def on(self, layout: MessageLayout) -> Action:
        from ..client.match.message_filter import compile_for_layout

        carried, queue_delete = compile_for_layout(self._carried, layout), self._removal.on(layout)

        def act(datagram: bytes, start: int, message: int) -> None:
            if not carried.never and carried.holds(layout, datagram, start, message):
                self.kept += 1
                return
            self.count += 1
            if self.count <= self.report_limit:
                self.shown.append(layout.entry(datagram, start))
            if self.count <= self.delete_limit:
                queue_delete(datagram, start, message)

        return act

    def add(self, entry: Values) -> None:
        if self.is_kept(entry):
            self.kept += 1
            return
        self.count += 1
        if self.count <= self.report_limit:
            self.shown.append(entry)
        if self.count <= self.delete_limit:
            self._removal.add(entry)

    def remove(self, last: bool = False) -> Iterator[KernelError | None]:
        return self.table.remove(self._removal.drain(last))


def _carried(connections: frozenset[TcpConnection]) -> Term:
    """The term for the entries of these connections."""
    if not connections:
        return NEVER
    from ..client.host.ssh_session import match_connections

    return prepared(match_connections(connections))


class Expectations(DeletionPlan):
    """Expectations. There are few of them."""

    def __init__(self, table: Table, keep: frozenset[TcpConnection], report_limit: int, delete_limit: int) -> None:
        super().__init__(table, keep, report_limit, delete_limit)
        self._pending: list[Values] = []

    def total(self) -> int:
        from ..client.expectation import expectation

        return sum(1 for _one in expectation.read_all(self.table))

    def read(self, match: Match) -> Iterator[None]:
        from ..client.expectation import expectation

        matches = EXPECTATIONS.ask(match)
        for found in expectation.located(self.table, expectation.read_all(self.table)):
            if matches(found):
                self.count += 1
                self._pending.append(found)
        self.shown = self._pending[: self.report_limit]
        yield

    def remove(self, last: bool = False) -> Iterator[KernelError | None]:
        from ..client.expectation import expectation

        doomed, self._pending = self._pending, []
        for one in doomed:
            delete = functools.partial(expectation.delete, self.table, one)
            try:
                delete()
            except KernelError as error:
                yield retry_lost_delete(error, delete)
            else:
                yield None


class Target(NamedTuple):
    """What can be flushed."""

    kind: Resource
    select: Callable[[Table, frozenset[TcpConnection], int, int], DeletionPlan]


#: What can be flushed, by the name of the option.
TARGETS: dict[str, Target] = {
    "conntrack": Target(ENTRIES, Entries),
    "expect": Target(EXPECTATIONS, Expectations),
}


def flush(
    table: Table,
    match: Match,
    keep: frozenset[TcpConnection],
    limit: int,
    report_limit: int,
    labels: LabelMap,
    check_mode: bool,
    target: Target = TARGETS["conntrack"],
) -> Document:
    """Remove what matches and return what was done, in the form of a module's result.

    Flows that carry one of the connections in `keep` stay. Raises `FlushFailed` where more than `limit` match,
    before anything is removed; where the kernel refused a deletion, after all others; and where the table
    could not be read to its end.
    """
    flushing = DeletionProgress(target.select(table, keep, report_limit, 0 if check_mode else limit))
    selection, noun = flushing.selection, target.kind.noun
    counted = 0
    most_shown = report_limit

    def result(**more: Any) -> Document:
        shown = [target.kind.to_document(thing, labels) for thing in selection.shown[:most_shown]]
        flushed = flushing.flushed
        return {
            "changed": flushed > 0 or flushing.unknown > 0,
            "flushed": flushed,
            "kept": selection.kept,
            "gone": flushing.gone,
            # Those that came after the counting are of the table, too
            "total": max(counted, selection.count + selection.kept),
            "entries": shown,
            "method": METHOD,
            **more,
        }

    try:
        counted = selection.total()
        for _read in selection.read(match):
            if limit >= UNLIMITED and not check_mode and not match.needs:
                flushing.delete_pending()
    except ConntrackError as error:
        if not (flushing.flushed or flushing.failed):
            raise
        refused = ""
        if flushing.failed:
            refused = f", {flushing.failed} not{flushing.doubt}, the first because: {flushing.failure}"
        raise FlushFailed(
            f"{error}. {flushing.flushed} {noun} had been removed until then{refused}", result()
        ) from error
    if selection.count > limit:
        most_shown = min(report_limit, NAMED)
        names = [target.kind.describe(thing) for thing in selection.shown[:NAMED]]
        raise FlushFailed(
            f"{selection.count} {noun} match, more than the limit of {limit}{named(names, selection.count)}. "
            "Nothing was removed: narrow the match or raise the limit",
            result(),
        )
    if check_mode:
        flushing.flushed = selection.count
    else:
        flushing.delete_pending(last=True)
    if flushing.failed:
        raise FlushFailed(
            f"{flushing.failed} of {selection.count} {noun} were not removed{flushing.doubt}, the first because: "
            f"{flushing.failure}",
            result(),
        )
    before = "".join(sorted(target.kind.describe(thing) + "\n" for thing in selection.shown))
    return result(diff={"before": before, "after": ""})


class DeletionProgress:
    """What became of a selection so far."""

    def __init__(self, selection: DeletionPlan) -> None:
        self.selection = selection
        self.flushed = self.gone = self.failed = 0
        #: How many of those that failed may be deleted, because the answer was lost.
        self.unknown = 0
        #: Of those that failed the first: there may be a million.
        self.failure: KernelError | None = None

    def delete_pending(self, last: bool = False) -> None:
        for error in self.selection.remove(last):
            if error is None:
                self.flushed += 1
            elif isinstance(error, NotFound):
                self.gone += 1
            else:
                self.failed += 1
                self.unknown += isinstance(error, ResultUnknown)
                self.failure = self.failure or error

    @property
    def doubt(self) -> str:
        """What to add to the number of those that failed."""
        return (
            f" (the answers for {self.unknown} of them were lost: they may have been removed)" if self.unknown else ""
        )
