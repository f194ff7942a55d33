# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore a snapshot.

All entries are created in batches, without a plan: if the table is empty, nothing else is needed. Entries that the
kernel refuses are planned and applied as `conntrack_entries` does it, up to 256 at a time (see `entries`). This finds
existing entries, and the reason why an entry cannot be created. Entries of which a kernel may drop a part without an
error are read back.

Check mode plans the entries of the snapshot in the same way. Of earlier batches, it keeps only hashes of the tuples, to
find masters, and entries that are in the snapshot twice.
"""

from __future__ import annotations

import contextlib
import gc
from collections import deque
from itertools import chain, count, islice, repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Callable, Generator, Hashable, Iterable, Iterator, Sequence, Tuple, cast

from .._operations.flush import DeletionPlan, DeletionProgress
from .._reconcile.entries import Outcome, apply_all, plan_all
from .._reconcile.entry import settle_created
from .._reconcile.plan import ProjectedTable, found_in
from .._reconcile.purge import undeclared
from .._reconcile.reconciler import CannotReconcile, Policy
from ..client.bulk.columns import batches
from ..client.bulk.records import KEYS, Record, creations, declarations, document_of, entries
from ..client.entry.creation import creation
from ..client.entry.document import to_document
from ..client.entry.entry import Entry, describe, identity
from ..client.entry.labels import LabelMap
from ..client.entry.tuple import tuple_key
from ..client.entry.zone import any_zone, zone_of
from ..client.errors import (
    ConntrackError,
    InvalidValue,
    KernelError,
    NotFound,
    NotPermitted,
    PartialFailure,
    ResultUnknown,
    Unavailable,
)
from ..client.match.match import Match
from ..client.netlink.socket import DumpInterrupted
from ..client.table import LABELS_NEED_A_RULE, Table
from ..client.table_reader import FEW
from .file import ENTRIES, EXPECTATIONS, Snapshot
from .hash_set import Fingerprints
from .report import Report

if TYPE_CHECKING:
    from ..client.entry.nested import Document
    from ..client.host.ssh_session import TcpConnection

#: The position of a record in the snapshot, the record, and whether a kernel may drop a part of it without an error.
Placed = Tuple[int, Record, bool]

#: The number of entries that are planned or read back together.
_SOME = 256
#: Protocols that newer kernels do not track. They create an entry without ports.
_FORGOTTEN = ("dccp", "udplite")
#: Protocols whose entries lose a part without an error. For GRE, the kernel does not translate keys.
_READ_BACK = (*_FORGOTTEN, "gre")
_ENDS = ("original", "reply")
_UNCHANGED = Outcome(None, "unchanged", ())
_REPLY_KEYS = ("reply.source_key", "reply.destination_key")
#: The number of new containers after which Python looks for unreachable cycles during a restore.
_COLLECT_AFTER = 100_000


class RestoreFailed(PartialFailure):
    """The snapshot was not restored in full."""


def restore(
    table: Table,
    snapshot: Snapshot,
    match: Match,
    policy: Policy,
    labels: LabelMap,
    check_mode: bool = False,
    report_limit: int = 100,
    scope: Match | None = None,
    keep: frozenset[TcpConnection] = frozenset(),
) -> Document:
    """Restore the matching entries of a snapshot and return the module's result.

    Entries in `scope` that are not in the snapshot are deleted, except those that belong to a connection in `keep`.
    Raises `InvalidValue` before any change, and `RestoreFailed` after all other entries, or at an error that stops the
    restore.
    """
    report = Report(snapshot.header, labels, report_limit, check_mode)
    restoration = _Restoration(table, snapshot, match, policy, labels, check_mode, report)
    try:
        restoration.survey(scope)
        if scope is not None:
            restoration.purge(scope, keep)
        restoration.restore_entries()
        restoration.restore_expectations()
    except ConntrackError as error:
        restoration.break_off()
        if not report.begun:
            raise
        raise RestoreFailed(f"{error}. {report.so_far()}", report.result()) from error
    if report.failures:
        raise RestoreFailed(report.sentence(), report.result())
    return report.result()


class _Restoration:
    """The steps to restore a snapshot, or to predict the result."""

    def __init__(
        self,
        table: Table,
        snapshot: Snapshot,
        match: Match,
        policy: Policy,
        labels: LabelMap,
        check_mode: bool,
        report: Report,
    ) -> None:
        self._table = table
        self._snapshot = snapshot
        self._match = match
        self._policy = policy
        self._labels = labels
        self._check_mode = check_mode
        self._report = report
        self._declarations, self._creations = declarations(), creations()
        #: Records that were sent and have no answer yet.
        self._sent: deque[Placed] = deque()
        #: Records whose creation was refused or had a lost answer, and whether the answer was lost.
        self._refused: list[tuple[Placed, bool]] = []
        #: Records that were created and must be read back, and whether the answer was lost.
        self._fragile: list[tuple[Placed, bool]] = []
        #: The entries that existed at the start, None if they were not read.
        self._before: Fingerprints | None = None
        #: The entries in the snapshot, if a scope needs them, and the keys of matching entries that have a helper.
        self._recorded = Fingerprints(0)
        self._masters: set[Hashable] = set()
        #: In check mode, the tuples of entries that would be created, and the keys of those that have a helper.
        self._planned = Fingerprints(3 * snapshot.header.entries if check_mode else 0)
        #: In check mode, whether the purge would delete an entry.
        self._deleting: list[Callable[[Entry], bool]] = []

    # before any change

    def survey(self, scope: Match | None) -> None:
        """Check the snapshot before any change. Raises `InvalidValue`, also if the table is too small."""
        header = self._snapshot.header
        self._check_keys(ENTRIES, KEYS)
        if header.expectations:
            from ..client.expectation.expectation import EXPECTATION

            self._check_keys(EXPECTATIONS, {"family", "extra", *(row.key for row in EXPECTATION)})
        self._compare_names()
        number = header.entries
        if scope is not None or self._match.where is not None:
            number = self._read_all(scope is not None)
        statistics = self._table.statistics()
        most = statistics.get("max_entries", number)  # not reported before Linux 4.18
        if number > most:
            raise InvalidValue(
                "path",
                f"there are {number} entries to be restored and the table holds at most {most}; "
                "raise net.netfilter.nf_conntrack_max (max of conntrack_settings)",
            )
        there = statistics["entries"]
        if not self._check_mode and there <= max(_SOME, min(number, FEW)):
            self._note_present(there)

    def _note_present(self, number: int) -> None:
        """Record the existing entries. After a lost answer, an entry that is not one of them was created."""
        there = Fingerprints(2 * FEW if number else 0)
        try:
            for place, row in enumerate(self._table.rows() if number else ()):
                if place == 2 * FEW:
                    return
                there.add(identity(dict(zip(*row))))
        except (DumpInterrupted, ResultUnknown):
            return
        self._before = there

    def _check_keys(self, of: str, known: Iterable[str]) -> None:
        unknown = sorted(self._snapshot.keys[of].difference(known))
        if unknown:
            raise InvalidValue(
                "path", f"its {of} have {', '.join(unknown)}, which this version does not know; update the collection"
            )

    def _compare_names(self) -> None:
        there = LabelMap(self._snapshot.header.labels).names
        others = {
            bit: (name, self._labels.names[bit])
            for bit, name in sorted(there.items())
            if self._labels.names.get(bit, name) != name
        }
        if others:
            bit, (was, here) = next(iter(others.items()))
            self._report.warnings.append(
                f"{len(others)} label bits have other names here than where the snapshot was taken: {bit} was {was} "
                f"and is {here}. Labels are restored by their bits"
            )

    def _read_all(self, note: bool) -> int:
        """Return the number of entries of the snapshot that match. Raises `InvalidValue` for an invalid record."""
        number = 0
        self._recorded = Fingerprints(self._snapshot.header.entries if note else 0)
        for _one, entry in self._parsed():
            if note:
                self._recorded.add(identity(entry))
            if self._match(entry):
                number += 1
                if "helper" in entry:
                    self._masters.add(_master_key(entry))
        return number

    def _placed(self) -> Iterator[Placed]:
        first = 0
        for _of, keys, rows in self._snapshot.blocks(ENTRIES):
            at = keys.index("protocol") if "protocol" in keys else 0
            fragile = "labels" in keys or any(map(_READ_BACK.__contains__, map(itemgetter(at), rows)))
            yield from zip(count(first), zip(repeat(keys), rows), repeat(fragile))
            first += len(rows)

    def _parsed(self) -> Iterator[tuple[Placed, Entry]]:
        work = entries()
        for batch in batches(self._placed()):
            yield from zip(batch, work.each([record for _place, record, _fragile in batch]))

    def _wanted(self) -> Iterator[Placed]:
        """Yield the records to restore."""
        if self._match.where is None:
            return self._placed()
        return (one for one, entry in self._parsed() if self._match(entry))

    # entries in scope that are not in the snapshot

    def purge(self, scope: Match, keep: frozenset[TcpConnection]) -> None:
        """Delete entries while the table is read, or after it if the scope needs counters or timestamps."""
        foreign = DeletionPlan(self._table, undeclared(scope, self._recorded), keep, self._report.limit)
        progress = DeletionProgress(foreign)
        try:
            progress.start(self._check_mode)
            progress.finish(self._check_mode)
        finally:
            self._report.purged(foreign, progress)
        if self._check_mode:
            self._deleting.append(foreign.includes)

    # entries

    def restore_entries(self) -> None:
        if self._check_mode:
            self._predict(self._wanted())
        else:
            with _rare_collections():
                self._create(self._wanted())
            self._verify_created()
            self._reconcile_refused()
            self._verify_created()

    def _create(self, wanted: Iterator[Placed]) -> None:
        """Create all entries. Collect those that were refused or that must be read back."""
        sent = self._sent
        unreadable: list[InvalidValue] = []

        def remembered() -> Iterator[Record]:
            try:
                for one in wanted:
                    sent.append(one)
                    yield one[1]
            except InvalidValue as fault:
                unreadable.append(fault)

        while True:
            created, showing = 0, self._report.shows_more
            answers = self._table.create_made(remembered(), self._creations)
            try:
                for error in answers:
                    one = sent.popleft()
                    if error is None and not one[2]:
                        created += 1
                        if showing:
                            self._report.show(describe(self._declarations.scalar(one[1])))
                            showing = self._report.shows_more
                    elif error is None:
                        self._fragile.append((one, False))
                        if len(self._fragile) >= _SOME:
                            self._verify_created()
                    else:
                        self._refused.append((one, isinstance(error, ResultUnknown)))
                        if len(self._refused) >= _SOME:
                            self._reconcile_refused()
                break
            except InvalidValue:
                # A record that was not sent yet is invalid. Go on with the others
                left = [one for one, _entry in self._declared(list(sent))]
                sent.clear()
                wanted = chain(left, wanted)
            finally:
                cast(Generator[Any, None, None], answers).close()  # sends nothing more
                self._report.created(created)
        if unreadable:
            raise unreadable[0]

    def _declared(self, some: Sequence[Placed]) -> Iterator[tuple[Placed, Entry]]:
        """Yield records with the entries that they declare. Report invalid records as failures."""
        records = [record for _place, record, _fragile in some]
        try:
            list(self._creations.each(records))
            yield from zip(some, list(self._declarations.each(records)))
        except InvalidValue as fault:
            if len(some) > 1:
                for one in some:
                    yield from self._declared([one])
            else:
                self._report.fail(some[0][0], document_of(records[0]), fault)

    def _verify_created(self) -> None:
        """Read back created entries of which the kernel may have dropped a part."""
        fragile = self._fragile
        declared = list(self._declarations.each([record for (_place, record, _fragile), _unknown in fragile]))
        answers = list(self._table.find_by_tuples(declared))
        self._fragile = []
        for ((place, _record, _fragile), unknown), entry, answer in zip(fragile, declared, answers):
            was_there = self._was_there(entry) if unknown else False
            try:
                if not was_there:
                    self._check_whole(entry, answer, certain=not unknown)
            except CannotReconcile as lost:
                self._report.fail(place, to_document(entry, self._labels), lost, lost.operation != "unchanged")
            else:
                self._report.count_lost(entry, was_there)

    def _check_whole(self, entry: Entry, answer: Entry | KernelError, certain: bool) -> None:
        """Raise `CannotReconcile` if an entry lacks a part of what was created.

        It is deleted only if it is `certain` that this restore created it. Otherwise it may belong to live traffic.
        """
        try:
            found = found_in(answer, self._table, entry)
        except KernelError as error:
            raise CannotReconcile(f"{describe(entry)} was created, but not read back. {error}", "created") from error
        if found is None:
            return  # it has already expired
        keys = [key for key in _REPLY_KEYS if key in entry]
        if identity(found) != identity(entry) or any(found.get(key) != entry[key] for key in keys):
            settle_created(self._table, creation(entry), found, self._labels, certain)
        elif entry.get("labels", 0) & ~found.get("labels", 0):
            raise CannotReconcile(f"{describe(entry)} exists, but without its labels. {LABELS_NEED_A_RULE}", "created")

    def _reconcile_refused(self) -> None:
        """Plan and apply each refused entry as `conntrack_entries` does."""
        refused = self._refused
        declared = list(self._declarations.each([record for (_place, record, _fragile), _unknown in refused]))
        planned = self._plan(declared)
        outcomes = apply_all(self._table, planned, self._policy, self._labels)
        self._refused = []
        for (one, unknown), entry, (plan, *_more), outcome in zip(refused, declared, planned, outcomes):
            absent = plan is not None and plan.actual is None
            was_there = self._was_there(entry) if unknown and not absent else True
            as_created = ("unchanged",) if was_there is not False else ("unchanged", "updated")
            if not unknown or outcome.error is not None or outcome.operation not in as_created:
                self._report.record(one[0], entry, outcome)
                if not was_there:
                    self._report.changed = True  # it was created, or may have been
            elif one[2]:
                self._fragile.append((one, True))
            else:
                self._report.count_lost(entry, was_there)

    def _plan(self, declared: Sequence[Entry]) -> list[Outcome]:
        return plan_all(ProjectedTable(self._table, self._deleting), declared, self._policy, self._labels)

    def _was_there(self, entry: Entry) -> bool | None:
        """Return whether an entry existed at the start, None if that is unknown."""
        return None if self._before is None else identity(entry) in self._before

    def break_off(self) -> None:
        """After an error that stops the restore, count entries that were or may have been created."""
        sent = list(self._sent)
        for one, unknown in self._fragile:
            if unknown:
                sent.append(one)
            else:
                self._report.created(1)
        sent += [one for one, unknown in self._refused if unknown]
        declared = []
        for _place, record, _fragile in sent:
            with contextlib.suppress(InvalidValue):  # an invalid record was not sent
                declared.append(self._declarations.scalar(record))
        answers: Sequence[Entry | ConntrackError]
        try:
            answers = list(self._table.find_by_tuples(declared))
        except ConntrackError as unread:
            answers = [unread] * len(declared)
        for entry, answer in zip(declared, answers):
            if not isinstance(answer, ConntrackError):
                if identity(answer) == identity(entry):
                    self._report.count_lost(entry, self._was_there(entry))
            elif not isinstance(answer, NotFound):
                self._report.count_lost(entry, None)

    # entries in check mode

    def _predict(self, wanted: Iterator[Placed]) -> None:
        """Record the result that a run would have. Conflicts between entries are found only within a batch."""
        for batch in iter(lambda: list(islice(wanted, _SOME)), []):
            some: dict[Hashable, list[tuple[Placed, Entry]]] = {}
            for one, entry in self._declared(batch):
                if _tuple_in_zone(entry, "original") in self._planned:
                    self._report.record(one[0], entry, _UNCHANGED)
                else:
                    some.setdefault(identity(entry), []).append((one, entry))
            outcomes = self._plan([self._without_planned_master(same[0][1]) for same in some.values()])
            for same, outcome in zip(some.values(), outcomes):
                for one, entry in same:  # a dump may have an entry twice
                    self._report.record(one[0], entry, outcome)
                    if outcome.error is None and outcome.operation == "created":
                        self._note_planned(entry)
                        outcome = _UNCHANGED

    def _without_planned_master(self, entry: Entry) -> Entry:
        """Return an entry without its master if the master was planned in an earlier batch."""
        if "master.source" in entry and any(_tuple_in_zone(entry, end, "master") in self._planned for end in _ENDS):
            return {key: value for key, value in entry.items() if not key.startswith("master.")}
        return entry

    def _note_planned(self, entry: Entry) -> None:
        for end in _ENDS:
            self._planned.add(_tuple_in_zone(entry, end))
        if "helper" in entry:
            self._planned.add(_master_key(entry))

    # expectations

    def restore_expectations(self) -> None:
        """Restore the expectations whose masters match, one after the other: there are few."""
        first = self._snapshot.header.entries
        for _of, keys, rows in self._snapshot.blocks(EXPECTATIONS):
            for place, values in enumerate(rows, first):
                self._restore_expectation(place, document_of((keys, values)))
            first += len(rows)

    def _restore_expectation(self, place: int, document: Document) -> None:
        from .._reconcile.expectation import reconcile
        from ..client.expectation import expectation

        if document.get("timeout") == 0:
            document["timeout"] = 1
        try:
            declared = expectation.from_document(document)
            master = _master_key(expectation.master_of(declared))
            if self._match.where is not None and master not in self._masters:
                return
            if master in self._planned:
                operation = "created"
            else:
                done = reconcile(self._table, declared, self._policy, self._check_mode)
                operation = done["operation"]
                self._warn_of_evicted(done, declared)
        except (NotPermitted, Unavailable):
            raise
        except CannotReconcile as failure:
            self._warn_of_evicted(failure.result, declared)
            self._report.fail(place, document, failure, failure.operation != "unchanged", EXPECTATIONS)
        except ConntrackError as error:
            self._report.fail(place, document, error, of=EXPECTATIONS)
        else:
            self._report.expected(operation, expectation.describe(declared))

    def _warn_of_evicted(self, done: Document, declared: Document) -> None:
        from ..client.expectation import expectation

        evicted = done.get("evicted")
        if evicted:
            self._report.warnings.append(
                f"The kernel removed {len(evicted)} expectations to make room for the {expectation.describe(declared)}"
            )


@contextlib.contextmanager
def _rare_collections() -> Iterator[None]:
    """Let Python look less often for unreachable cycles, which takes a fifth of the time of a restore.

    The lists of a snapshot form no cycles. They are freed as soon as they are no longer used.
    """
    before = gc.get_threshold()
    gc.set_threshold(max(before[0], _COLLECT_AFTER) if before[0] else 0, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _master_key(entry: Entry) -> Hashable:
    """Return the zone and tuple with which an expectation refers to its master."""
    return any_zone(entry), tuple_key(entry, "original")


def _tuple_in_zone(entry: Entry, end: str, direction: str = "") -> Hashable:
    """Return a key for the tuple of a direction, or for the tuple of the `master`, in the zone of the direction."""
    return end, zone_of(entry, end), tuple_key(entry, direction or end)
