# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One entry, declared against actual: a plan, its application, and a report."""

from __future__ import annotations

from ..client.entry.entry import Entry
from ..client.entry.labels import LabelMap
from ..client.entry.nested import Document
from ..client.errors import ConntrackError, ResultUnknown
from ..client.table import Table
from .apply import StalePlan, apply
from .plan import CannotReconcile, Plan, Policy, ProjectedTable, diff_of, plan_of, present_or_empty

#: How often to plan anew where the table was changed by others.
_ATTEMPTS = 3


def reconcile(table: Table, declared: Entry, policy: Policy, labels: LabelMap, check_mode: bool) -> Document:
    """Make one entry be as declared and return what was done, in the form of a module's result.

    Raises `CannotReconcile`, with what was done all the same as its `result`.
    """
    try:
        plan, entry = carry_out(table, declared, policy, labels, check_mode)
    except CannotReconcile as failure:
        failure.result = _result_of(failure, table, declared, labels)
        raise
    return {
        "changed": plan.changed,
        "operation": plan.operation,
        "before": present_or_empty(plan.actual, labels),
        "entry": present_or_empty(entry, labels),
        "changes": [change.as_document() for change in plan.changes],
        "diff": diff_of(plan, labels),
    }


def carry_out(
    table: Table, declared: Entry, policy: Policy, labels: LabelMap, check_mode: bool = False
) -> tuple[Plan, Entry | None]:
    """Make one entry be as declared and return what was planned for that, and the entry as it then is.

    Raises `CannotReconcile`, with what was done all the same; where that is unknown, with what was tried.
    """
    tried: Plan | None = None
    try:
        for attempts_left in reversed(range(_ATTEMPTS)):
            tried = None
            tried = plan = plan_of(ProjectedTable(table), declared, policy, labels)
            try:
                return plan, plan.foreseen() if check_mode else apply(table, plan, labels)
            except StalePlan:
                if not attempts_left:
                    raise
    except ConntrackError as error:
        operation, done = "unchanged", []
        if isinstance(error, CannotReconcile):
            operation, done = error.operation, error.done
        elif isinstance(error, ResultUnknown) and tried is not None:
            operation, done = tried.operation, tried.changes
        raise CannotReconcile(str(error), operation, done, plan=tried) from error
    raise CannotReconcile("the table is changed by others all the time")  # never: the last attempt returns or raises


def _result_of(failure: CannotReconcile, table: Table, declared: Entry, labels: LabelMap) -> Document:
    result: Document = {
        "changed": failure.operation != "unchanged",
        "operation": failure.operation,
        "changes": [change.as_document() for change in failure.done],
    }
    if failure.plan is not None:
        declared = failure.plan.declared
    try:
        result["entry"] = present_or_empty(ProjectedTable(table).get(declared), labels)
    except ConntrackError:
        if failure.plan is None:
            return result
    before = result["entry"] if failure.plan is None else present_or_empty(failure.plan.actual, labels)
    return {"before": before, **result}
