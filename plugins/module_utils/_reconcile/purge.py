# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Delete the entries in scope that are not declared, as a flush does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Container, Iterable

from .._operations.flush import DeletionPlan, DeletionProgress
from ..client.entry.document import to_document
from ..client.entry.entry import Entry, Identity, identity
from ..client.entry.labels import LabelMap
from ..client.match.expression import And, Predicate
from ..client.match.match import Match
from ..client.table import Table

if TYPE_CHECKING:
    from ..client.entry.nested import Document
    from ..client.host.ssh_session import TcpConnection


def undeclared(scope: Match, declared: Container[Identity]) -> Match:
    """Return a match for the entries in scope that have none of the declared identities."""
    return Match(And((scope.term, Predicate(lambda entry: identity(entry) not in declared))), scope.needs)


def purge_of(
    table: Table,
    scope: Match,
    declared: Iterable[Entry],
    keep: frozenset[TcpConnection] = frozenset(),
    report_limit: int = 100,
) -> DeletionProgress:
    """Plan the deletion of entries in scope that are not declared and do not belong to a connection in `keep`."""
    match = undeclared(scope, {identity(entry) for entry in declared})
    return DeletionProgress(DeletionPlan(table, match, keep, report_limit))


def deletions(plan: DeletionPlan, labels: LabelMap) -> list[Document]:
    """Return the first deletions as `changes` of a module's result."""
    return [
        {"index": None, "operation": "deleted", "entry": to_document(entry, labels), "changes": []}
        for entry in plan.shown
    ]
