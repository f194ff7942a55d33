# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A table as it will be, for those whose plan depends on what others are going to do before them.

An expectation needs its master, which may have to be created yet, and goes with it; an entry finds room where another
leaves. Nothing is changed here, and what is read is the table that there is.
"""

from __future__ import annotations

import errno
from typing import Any, Callable, Generator, Iterable, Iterator, Mapping, Sequence

from ..client.dump.scan import Visitor
from ..client.entry.entry import Entry, Identity, describe, identity, lookup_key
from ..client.entry.labels import LabelMap
from ..client.errors import KernelError, NotFound
from ..client.match.expression import NEVER, And, Not, Term
from ..client.match.match import Match
from ..client.netlink.message import Message
from ..client.netlink.socket import NetlinkSocket
from ..client.table import Table
from .entries import plan_all
from .reconciler import Policy

NOTHING = Match(NEVER)


class ProjectedTable(Table):
    """The table without the entries that `deleted` matches and the expectations of the ids in `dropped_expectations`.

    An entry that is `created`, by its identity, is there already.
    """

    def __init__(self, connect: Callable[[], NetlinkSocket] = NetlinkSocket, deleted: Match = NOTHING) -> None:
        super().__init__(connect)
        self.deleted = deleted
        self.created: dict[Identity, Entry] = {}
        self.dropped_expectations: set[int] = set()

    # entries

    def find_by_tuple(self, entry: Mapping[str, Any], direction: str = "original") -> Entry:
        coming = self.created.get(identity(entry if direction == "original" else lookup_key(entry, direction)))
        if coming is not None:
            return coming
        found = super().find_by_tuple(entry, direction)
        if self.deleted(found):
            raise NotFound(f"reading {describe(entry)}", errno.ENOENT)
        return found

    def find_by_tuples(self, entries: Iterable[Mapping[str, Any]]) -> Iterator[Entry | KernelError]:
        for answer in super().find_by_tuples(entries):
            if not isinstance(answer, KernelError) and self.deleted(answer):
                yield NotFound(f"reading {describe(answer)}", errno.ENOENT)
            else:
                yield answer

    def _scan(self, visitor: Visitor, where: Term | None, family: int, zero: bool) -> Generator[None, None, None]:
        staying = Not(self.deleted.term)
        return super()._scan(visitor, staying if where is None else And((where, staying)), family, zero)

    # expectations

    def ask(self, doing: str, message: Message, rows: Iterable[Any] = ()) -> list[Message]:
        # Those of a dump too, one by one, to find their zones
        from ..client.expectation.expectation import EXPECTATION, parse_expectation

        answers = super().ask(doing, message, rows)
        if rows is EXPECTATION and any(
            parse_expectation(answer).get("id") in self.dropped_expectations for answer in answers
        ):
            raise NotFound(doing, errno.ENOENT)
        return answers

    def foresee(
        self,
        table: Table,
        expectations: Iterable[Mapping[str, Any]],
        declared: Sequence[Entry],
        policy: Policy,
        labels: LabelMap,
    ) -> None:
        """Count on what the declaration of entries will do to the masters of expectations, and so to these.

        `expectations` are those that are declared, too; those that are there are read from the `table` as it is.
        """
        from ..client.expectation.expectation import located, master_of, read_all

        there = list(located(table, read_all(table)))
        masters = {identity(master_of(one)) for one in (*there, *expectations) if "master.source" in one}
        concerned = [entry for entry in declared if identity(entry) in masters]
        interrupted = set()
        for outcome in plan_all(self, concerned, policy, labels):
            plan = outcome.plan
            if plan is None or not plan.changed:
                continue
            coming = plan.foreseen()
            if coming is not None:
                self.created[identity(plan.declared)] = coming
            if plan.operation == "replaced" or any(change.key == "helper" for change in plan.changes):
                interrupted.add(identity(plan.declared))
        for one in there:
            master = master_of(one)
            if identity(master) in interrupted or not self._stays(table, master):
                self.dropped_expectations.add(one["id"])

    def _stays(self, table: Table, master: Entry) -> bool:
        try:
            return not self.deleted(table.find_by_tuple(master))
        except NotFound:
            return False
