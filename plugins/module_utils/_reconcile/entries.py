# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reconcile many entries: plan all of them, send the changes in batches, and read the results back.

Entries are looked up by tuple, many at once. The cost depends on the number of declared entries, not on the size of the
table. Only a purge reads the table, or the part of it that is in scope.

If the table changed after the plan, an answer was lost or the kernel refused a request, that entry alone is planned and
applied again by `EntryReconciler`, which handles each of these cases.
"""

from __future__ import annotations

import contextlib
from typing import Any, Hashable, Iterable, Iterator, NamedTuple, Sequence

from .._operations.flush import DeletionProgress
from ..client.codec.attributes import Change
from ..client.entry.creation import creation
from ..client.entry.diff import patch
from ..client.entry.document import to_document
from ..client.entry.entry import Entry, Identity, by_reply, describe, has_reply_alone, identity
from ..client.entry.labels import NO_LABELS, LabelMap
from ..client.entry.nested import Document
from ..client.entry.tuple import tuple_key
from ..client.entry.zone import zone_of
from ..client.errors import (
    ConntrackError,
    InvalidValue,
    KernelError,
    NotPermitted,
    PartialFailure,
    ResultUnknown,
    Unavailable,
)
from ..client.table import Table
from .entry import EntryReconciler, settle_created, settle_updated
from .plan import OF_THE_MOMENT, ProjectedTable, check, desired_entry, expected_reply, found_in, plan_of
from .purge import deletions
from .reconciler import CannotReconcile, Plan, Policy, diff_of

#: The number of entries for each result.
NO_COUNTS = dict.fromkeys(("created", "updated", "replaced", "deleted", "unchanged", "failed"), 0)


class EntriesFailed(PartialFailure):
    """Not all entries are as declared, or not all undeclared entries in scope were deleted."""


class Outcome(NamedTuple):
    """The result for one declared entry.

    `plan` is None if planning failed. `operation` is the operation that was carried out, also before an `error`.
    `changes` are the changes in force.
    """

    plan: Plan | None
    operation: str
    changes: Sequence[Change]
    error: ConntrackError | None = None


def parse_entries(
    documents: Iterable[Any], labels: LabelMap = NO_LABELS, key: str = "entries", absent: bool = False
) -> list[Entry]:
    """Parse documents that declare entries which must exist or, with `absent`, must not exist.

    Raises `InvalidValue` with the path of the first error, also if two documents declare the same entry.
    """
    from ..client.bulk.documents import parse_all

    declared: list[Entry] = []
    places: dict[Identity, int] = {}
    try:
        for entry in parse_all(documents, labels, absent):
            found_by = ("reply", *identity(by_reply(entry))) if has_reply_alone(entry) else identity(entry)
            place = places.setdefault(found_by, len(declared))
            if place < len(declared):
                raise InvalidValue("", f"declares the same entry as {key}[{place}], {describe(entry)}; write it once")
            declared.append(entry)
    except InvalidValue as fault:
        raise fault.under(f"{key}[{len(declared)}]") from None
    return declared


def reconcile_all(
    table: Table,
    declared: Sequence[Entry],
    policy: Policy,
    labels: LabelMap = NO_LABELS,
    check_mode: bool = False,
    purge: DeletionProgress | None = None,
    report_limit: int = 100,
    view: ProjectedTable | None = None,
) -> Document:
    """Apply the declarations of entries and return the module's result.

    With `purge`, also delete the entries that it finds. In check mode, `view` is the table after earlier steps. Raises
    `InvalidValue` before any change, and `EntriesFailed` after all other entries were applied.
    """
    view = ProjectedTable(table) if view is None else view
    if purge is not None:
        purge.plan.read(check_mode)
        view.deleting.append(purge.plan.includes)
    outcomes = plan_all(view, declared, policy, labels)
    if purge is not None:
        purge.finish(check_mode)
    if not check_mode:
        outcomes = apply_all(table, outcomes, policy, labels)
    return _report(declared, outcomes, labels, purge, report_limit)


# The plan


def plan_all(
    view: ProjectedTable, declared: Sequence[Entry], policy: Policy, labels: LabelMap = NO_LABELS
) -> list[Outcome]:
    """Plan each declaration for the table after those before it and their masters, and record the plans in `view`."""
    view.prefetch(declared)
    new: list[Entry] = []
    outcomes: dict[int, Outcome] = {}
    for place, entry in enumerate(declared):
        with _failures_to(outcomes, place):
            check(entry, policy)
            actual = None if policy.state == "absent" else view.get(entry)
            if actual is not None and policy.on_existing == "keep":
                outcomes[place] = Outcome(Plan("unchanged", entry, actual, []), "unchanged", ())
            elif actual is None and policy.state != "absent":
                new.append(_creation(Plan("created", entry, None, [])))
    view.prefetch([entry for entry in map(expected_reply, new) if entry is not None], "reply")
    view.prefetch([entry for entry in new if "master.source" in entry], "master")
    for place in masters_first(declared):
        if place in outcomes:
            continue
        with _failures_to(outcomes, place):
            plan = plan_of(view, declared[place], policy, labels)
            view.record(plan)
            outcomes[place] = Outcome(plan, plan.operation, plan.changes)
    return [outcomes[place] for place in range(len(declared))]


@contextlib.contextmanager
def _failures_to(outcomes: dict[int, Outcome], place: int) -> Iterator[None]:
    """Store an error that concerns one entry as its outcome, so that the others are still planned.

    Raises `InvalidValue` with the position of the entry, and `NotPermitted` and `Unavailable`, which concern all
    entries.
    """
    try:
        yield
    except InvalidValue as fault:
        raise fault.under(f"entries[{place}]") from None
    except (NotPermitted, Unavailable):
        raise
    except ConntrackError as error:
        outcomes[place] = Outcome(None, "unchanged", (), error)


def masters_first(declared: Sequence[Entry]) -> list[int]:
    """Return the positions of the entries in an order in which each entry follows its master."""
    if not any("master.source" in entry for entry in declared):
        return list(range(len(declared)))
    places = {_end(entry, "original"): place for place, entry in enumerate(declared)}
    order: dict[int, None] = {}
    for place in range(len(declared)):
        line = [place]  # an entry, its master, the master of that
        while "master.source" in declared[line[-1]]:
            master = places.get(_end(declared[line[-1]], "master"))
            if master is None or master in order or master in line:
                break
            line.append(master)
        order.update(dict.fromkeys(reversed(line)))
    return list(order)


def _end(entry: Entry, direction: str) -> Hashable:
    """Return a key for the original tuple of an entry, or of its master, which is in the same zone."""
    return zone_of(entry, "original"), tuple_key(entry, direction)


# Its application


def apply_all(table: Table, planned: Sequence[Outcome], policy: Policy, labels: LabelMap = NO_LABELS) -> list[Outcome]:
    """Carry out the plans, deletions first, and return the outcome of each.

    Replacements are not sent in batches: each one is completed at once, because it interrupts a connection.
    """
    outcomes = list(planned)
    plans = {place: one.plan for place, one in enumerate(planned) if one.plan is not None and one.error is None}
    places = list(plans)
    order = [places[at] for at in masters_first([plan.declared for plan in plans.values()])]
    to_read_back: list[int] = []
    for operation, send, request in (
        ("deleted", table.delete_all, _deletion),
        ("replaced", None, None),
        ("updated", table.update_all, _update),
        ("created", table.create_all, _creation),
    ):
        todo = [place for place in order if plans[place].operation == operation]
        if send is None or request is None:
            errors: Iterable[KernelError | None] = [None] * len(todo)
        else:
            errors = list(send(map(request, [plans[place] for place in todo])))
        for place, error in zip(todo, errors):
            if error is not None or operation == "replaced":
                outcomes[place] = _one_by_one(table, plans[place], policy, labels, error)
            elif operation != "deleted":
                to_read_back.append(place)
    answers = table.find_by_tuples(plans[place].declared for place in to_read_back)
    for place, answer in zip(to_read_back, list(answers)):
        outcomes[place] = _settled(table, plans[place], answer, labels)
    return outcomes


def _deletion(plan: Plan) -> Entry:
    return plan.actual or {}


def _update(plan: Plan) -> Entry:
    return patch(plan.changes, plan.declared, plan.actual or {})


def _creation(plan: Plan) -> Entry:
    return creation(desired_entry(plan))


def _one_by_one(table: Table, plan: Plan, policy: Policy, labels: LabelMap, error: KernelError | None) -> Outcome:
    """Plan and apply one entry again, after an `error` if there was one, and return its outcome."""
    unknown = isinstance(error, ResultUnknown)
    try:
        new, _entry = EntryReconciler(table, plan.declared, policy, labels).plan_and_apply()
    except CannotReconcile as failure:
        if unknown and failure.operation == "unchanged":
            return Outcome(plan, plan.operation, plan.changes, failure)
        return Outcome(plan, failure.operation, failure.done, failure)
    if unknown and (not new.changed or plan.operation == "created"):
        return Outcome(plan, plan.operation, plan.changes)  # carried out before, only the answer was lost
    return Outcome(new, new.operation, new.changes)


def _settled(table: Table, plan: Plan, answer: Entry | KernelError, labels: LabelMap) -> Outcome:
    """Return the outcome of an entry that the kernel accepted, from the answer to reading it back."""
    try:
        try:
            found = found_in(answer, table, plan.declared)
        except KernelError as unread:
            done = f"{describe(plan.declared)} was {plan.operation}"
            raise CannotReconcile(f"{done}, but not read back. {unread}", plan.operation, plan.changes) from unread
        if plan.operation == "created":
            settle_created(table, desired_entry(plan), found, labels)
        else:
            there = found is not None and identity(found) == identity(plan.declared)
            settle_updated(plan, found if there else None, labels)
    except CannotReconcile as failure:
        return Outcome(plan, failure.operation, failure.done, failure)
    return Outcome(plan, plan.operation, plan.changes)


# The report


def _report(
    declared: Sequence[Entry],
    outcomes: Sequence[Outcome],
    labels: LabelMap,
    purge: DeletionProgress | None,
    report_limit: int,
) -> Document:
    counts = {**NO_COUNTS}
    changes: list[Document] = []
    failed: list[Document] = []
    before: Document = {}
    after: Document = {}
    changed = purge is not None and purge.changed
    for place, (entry, outcome) in enumerate(zip(declared, outcomes)):
        if outcome.plan is not None:
            entry = outcome.plan.declared  # with the original tuple, also if only the reply tuple was declared
        counts[outcome.operation if outcome.error is None else "failed"] += 1
        if outcome.error is not None and len(failed) < max(1, report_limit):
            failed.append({"index": place, "entry": to_document(entry, labels), "msg": str(outcome.error)})
        if outcome.operation == "unchanged":
            continue
        changed = True
        if len(changes) >= report_limit:
            continue
        changes.append(
            {
                "index": place,
                "operation": outcome.operation,
                "entry": to_document(entry, labels),
                "changes": [change.as_document() for change in outcome.changes],
            }
        )
        if outcome.error is None and outcome.plan is not None:
            diff = diff_of(outcome.plan, lambda one: to_document(one, labels), OF_THE_MOMENT)
            before[describe(entry)], after[describe(entry)] = diff["before"], diff["after"]
    if purge is not None:
        counts["deleted"] += purge.deleted
        counts["failed"] += purge.failed
        changes += deletions(purge.plan, labels)
        before.update((describe(entry), to_document(patch((), {}, entry))) for entry in purge.plan.shown)
        if purge.failed:
            failed.append(
                {"index": None, "entry": {}, "msg": f"{purge.failed} in scope stay{purge.doubt}. {purge.failure}"}
            )
    result = {
        "changed": changed,
        "counts": counts,
        "kept": 0 if purge is None else purge.plan.kept,
        "changes": changes[:report_limit],
        "failed_entries": failed[:report_limit],
        "diff": {"before": dict(sorted(before.items())), "after": dict(sorted(after.items()))},
    }
    if failed:
        first = "" if failed[0]["index"] is None else f"entries[{failed[0]['index']}]: "
        others = "The others are; see" if counts["failed"] < sum(counts.values()) else "See"
        raise EntriesFailed(
            f"{counts['failed']} of {sum(counts.values())} entries are not as declared, the first because: "
            f"{first}{failed[0]['msg']}. {others} failed_entries",
            result,
        )
    return result
