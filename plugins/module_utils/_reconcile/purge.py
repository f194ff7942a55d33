# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in a scope and not declared, found by one reading of the table and removed as a flush removes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Container, Iterable

from .._operations.flush import UNLIMITED, DeletionProgress, Entries
from ..client.codec.layout import MessageLayout
from ..client.dump.scan import Action
from ..client.entry.document import to_document
from ..client.entry.entry import Entry, Identity, identity
from ..client.entry.labels import LabelMap
from ..client.match.match import Match
from ..client.table import Table

if TYPE_CHECKING:
    from ..client.entry.nested import Document
    from ..client.host.ssh_session import TcpConnection


class Undeclared(Entries):
    """Entries of which no declaration has the identity, and which carry none of the connections to keep."""

    def __init__(
        self,
        table: Table,
        declared: Container[Identity],
        keep: frozenset[TcpConnection],
        report_limit: int,
        delete_limit: int = UNLIMITED,
    ) -> None:
        super().__init__(table, keep, report_limit, delete_limit)
        self._declared = declared

    def on(self, layout: MessageLayout) -> Action:
        entry, declared, queue_delete = layout.entry, self._declared, super().on(layout)

        def act(datagram: bytes, start: int, message: int) -> None:
            if identity(entry(datagram, start)) not in declared:
                queue_delete(datagram, start, message)

        return act

    def add(self, entry: Entry) -> None:
        if identity(entry) not in self._declared:
            super().add(entry)

    def concerns(self, entry: Entry, scope: Match) -> bool:
        """Whether an entry is one of those that a reading of this scope finds."""
        return identity(entry) not in self._declared and scope(entry) and not self.is_kept(entry)


class Purge:
    """The removal of what is in scope and not declared, but for the flows that carry a connection in `keep`.

    `read` first; then `carry_out`, which may be left out to see what it would do.
    """

    def __init__(
        self,
        table: Table,
        scope: Match,
        declared: Iterable[Entry],
        keep: frozenset[TcpConnection] = frozenset(),
        report_limit: int = 100,
    ) -> None:
        self._scope = scope
        self._selection = Undeclared(table, {identity(entry) for entry in declared}, keep, report_limit)
        self._flushing: DeletionProgress | None = None

    def read(self) -> None:
        """Find what goes; of each only the request for its deletion is kept."""
        self._selection.read(self._scope)

    def concerns(self, entry: Entry) -> bool:
        """Whether an entry is one of those that go."""
        return self._selection.concerns(entry, self._scope)

    def carry_out(self) -> None:
        """Delete what was found, each only if it is still the one that was read."""
        self._flushing = DeletionProgress(self._selection)
        self._flushing.delete_pending(last=True)

    @property
    def deleted(self) -> int:
        """How many went, or would go."""
        return self._selection.count if self._flushing is None else self._flushing.flushed

    @property
    def changed(self) -> bool:
        """Whether any went or would go, also where that is not known."""
        return self.deleted > 0 or (self._flushing is not None and self._flushing.unknown > 0)

    @property
    def kept(self) -> int:
        """How many stay because they carry a connection to keep."""
        return self._selection.kept

    @property
    def failed(self) -> int:
        """How many could not be deleted."""
        return 0 if self._flushing is None else self._flushing.failed

    @property
    def doubt(self) -> str:
        """What to add to that number, if some of them may be deleted."""
        return "" if self._flushing is None else self._flushing.doubt

    @property
    def failure(self) -> str:
        """Why the first of these could not."""
        return "" if self._flushing is None else str(self._flushing.failure)

    @property
    def shown(self) -> list[Entry]:
        """The first of those that go."""
        return self._selection.shown

    def changes(self, labels: LabelMap) -> list[Document]:
        """The same, in the form of a module's result."""
        return [
            {"index": None, "operation": "deleted", "entry": to_document(entry, labels), "changes": []}
            for entry in self.shown
        ]
