# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove what matches, and nothing else.

The table is read and every entry, or expectation, asked; those that match are deleted one by one, each by its
tuple, zone and id, so that one that took another's place meanwhile is left alone. Without a limit, what has
been found is deleted while the rest is still being read. The kernel's own flush is never used: that way is no
faster, and what it deletes nobody has seen.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Callable, Iterator, NamedTuple

from .client.codec import Values
from .client.errors import ConntrackError, KernelError, NotFound
from .client.labels import LabelMap
from .client.match import Match
from .client.scan import Action, Visitor
from .client.table import Table, deleted_after_all
from .client.term import NEVER, Term
from .failure import Failed
from .kinds import ENTRIES, EXPECTATIONS, Kind

if TYPE_CHECKING:
    from .client.document import Document
    from .client.layout import Layout
    from .client.session import Endpoints

METHOD = "delete"
#: No table can hold more: a limit that is none.
UNLIMITED = 0xFFFFFFFF


class FlushFailed(Failed):
    """Not all that matches was removed."""


class Selection:
    """What is to be removed: how many, the first `report_limit` of them, and how many are kept.

    Beyond `most`, nothing will be removed.
    """

    def __init__(self, table: Table, keep: frozenset[Endpoints], report_limit: int, most: int) -> None:
        self.count = self.kept = 0
        self.shown: list[Values] = []
        self.table = table
        self.report_limit = report_limit
        self.most = most

    def total(self) -> int:
        """How many there are, whether or not they match."""
        raise NotImplementedError

    def read(self, match: Match) -> Iterator[None]:
        """Read all that matches, and come back from time to time."""
        raise NotImplementedError

    def remove(self, last: bool = False) -> Iterator[KernelError | None]:
        """Remove what was read since the last time, with `last` to its end: for each None or what befell it."""
        raise NotImplementedError


class Entries(Selection, Visitor):
    """Entries. Of each only the request for its deletion is kept, for there may be a million."""

    def __init__(self, table: Table, keep: frozenset[Endpoints], report_limit: int, most: int) -> None:
        super().__init__(table, keep, report_limit, most)
        self._carried = _carried(keep)
        #: Whether an entry carries one of the connections to keep.
        self.is_kept = self._carried.compile()
        self._removal = table.removal()

    def total(self) -> int:
        return self.table.count()

    def read(self, match: Match) -> Iterator[None]:
        return self.table.scan(self, match.where)

    def on(self, layout: Layout) -> Action:
        from .client.wire import sieve

        carried, condemn = sieve(self._carried, layout), self._removal.on(layout)

        def act(datagram: bytes, start: int, message: int) -> None:
            if not carried.never and carried.holds(layout, datagram, start, message):
                self.kept += 1
                return
            self.count += 1
            if self.count <= self.report_limit:
                self.shown.append(layout.entry(datagram, start))
            if self.count <= self.most:
                condemn(datagram, start, message)

        return act

    def add(self, entry: Values) -> None:
        if self.is_kept(entry):
            self.kept += 1
            return
        self.count += 1
        if self.count <= self.report_limit:
            self.shown.append(entry)
        if self.count <= self.most:
            self._removal.add(entry)

    def remove(self, last: bool = False) -> Iterator[KernelError | None]:
        return self.table.remove(self._removal.take(last))


def _carried(connections: frozenset[Endpoints]) -> Term:
    """The term for the entries of these connections."""
    if not connections:
        return NEVER
    from .client.session import carried_by

    return carried_by(connections)


class Expectations(Selection):
    """Expectations. There are few of them."""

    def __init__(self, table: Table, keep: frozenset[Endpoints], report_limit: int, most: int) -> None:
        super().__init__(table, keep, report_limit, most)
        self._doomed: list[Values] = []

    def total(self) -> int:
        from .client import expectation

        return sum(1 for _one in expectation.read_all(self.table))

    def read(self, match: Match) -> Iterator[None]:
        from .client import expectation

        matches = EXPECTATIONS.ask(match)
        for found in expectation.located(self.table, expectation.read_all(self.table)):
            if matches(found):
                self.count += 1
                self._doomed.append(found)
        self.shown = self._doomed[: self.report_limit]
        yield

    def remove(self, last: bool = False) -> Iterator[KernelError | None]:
        from .client import expectation

        doomed, self._doomed = self._doomed, []
        for one in doomed:
            delete = functools.partial(expectation.delete, self.table, one)
            try:
                delete()
            except KernelError as error:
                yield deleted_after_all(error, delete)
            else:
                yield None


class Target(NamedTuple):
    """What can be flushed."""

    kind: Kind
    select: Callable[[Table, frozenset[Endpoints], int, int], Selection]


#: What can be flushed, by the name of the option.
TARGETS: dict[str, Target] = {
    "conntrack": Target(ENTRIES, Entries),
    "expect": Target(EXPECTATIONS, Expectations),
}


def flush(
    table: Table,
    match: Match,
    keep: frozenset[Endpoints],
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
    flushing = Flushing(target.select(table, keep, report_limit, 0 if check_mode else limit))
    selection, noun = flushing.selection, target.kind.noun
    counted = 0

    def result(**more: Any) -> Document:
        shown = [target.kind.present(thing, labels) for thing in selection.shown]
        flushed = flushing.flushed
        return {
            "changed": flushed > 0,
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
            if limit >= UNLIMITED and not check_mode:
                flushing.go_on()
    except ConntrackError as error:
        if not (flushing.flushed or flushing.failed):
            raise
        refused = f", {flushing.failed} not, the first because: {flushing.failure}" if flushing.failed else ""
        raise FlushFailed(
            f"{error}. {flushing.flushed} {noun} had been removed until then{refused}", result()
        ) from error
    if selection.count > limit:
        raise FlushFailed(
            f"{selection.count} {noun} match, more than the limit of {limit}. Nothing was removed: "
            "narrow the match or raise the limit",
            result(),
        )
    if check_mode:
        flushing.flushed = selection.count
    else:
        flushing.go_on(last=True)
    if flushing.failed:
        raise FlushFailed(
            f"{flushing.failed} of {selection.count} {noun} were not removed, the first because: {flushing.failure}",
            result(),
        )
    before = "".join(sorted(target.kind.describe(thing) + "\n" for thing in selection.shown))
    return result(diff={"before": before, "after": ""})


class Flushing:
    """What became of a selection so far."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.flushed = self.gone = self.failed = 0
        #: Of those that failed the first: there may be a million.
        self.failure: KernelError | None = None

    def go_on(self, last: bool = False) -> None:
        for error in self.selection.remove(last):
            if error is None:
                self.flushed += 1
            elif isinstance(error, NotFound):
                self.gone += 1
            else:
                self.failed += 1
                self.failure = self.failure or error
