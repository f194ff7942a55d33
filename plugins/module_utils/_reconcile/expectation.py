# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One expectation, declared against actual: a plan, its application, and a look at what came of it.

The kernel gives a new expectation the timeout of its helper and changes nothing else of one than that; so
a declared timeout is set right after the creation, and all else takes a replacement.
"""

from __future__ import annotations

import contextlib
import copy
from typing import Any, Iterable, Mapping, NamedTuple

from .._signals import held
from ..client.codec.attributes import FIXED, KEY
from ..client.entry.diff import Change
from ..client.entry.entry import describe as describe_entry
from ..client.entry.entry import identity
from ..client.entry.nested import Document, likewise, put
from ..client.entry.tuple import describe_tuple, tuple_of
from ..client.errors import ConntrackError, Exists, InvalidValue, KernelError, NotFound, ResultUnknown, retry_if_unknown
from ..client.expectation import expectation as client
from ..client.expectation.expectation import (
    EXPECTATION,
    NO_HELPER,
    NO_MASTER,
    Expectation,
    describe,
    differences,
    to_document,
)
from ..client.table import Table
from .apply import StalePlan
from .plan import CannotReconcile, Policy, ProjectedTable, check_refreshment

#: Keys that are the kernel's own; no diff shows them.
_ITS_OWN = ("helper", "id", "extra")
_KEPT = frozenset(row.key for row in EXPECTATION if row.use & (FIXED | KEY))
#: Keys of which a declaration replaces all or none.
_GROUPS = ("master.", "nat.")
_ATTEMPTS = 3


class Plan(NamedTuple):
    """What is to be done: `operation` is created, updated, replaced, deleted or unchanged.

    `wanted` is the expectation as it will be, None for none.
    """

    operation: str
    declared: Expectation
    actual: Expectation | None
    wanted: Expectation | None
    changes: list[Change]


class Outcome(NamedTuple):
    """What is there after a plan was carried out, and what the kernel forgot to make room for it."""

    expectation: Expectation | None
    evicted: list[Expectation]


def reconcile(
    table: Table, declared: Expectation, policy: Policy, check_mode: bool, view: ProjectedTable | None = None
) -> Document:
    """Make one expectation be as declared and return what was done, in the form of a module's result.

    In check mode, `view` is the table after earlier steps. Raises `CannotReconcile`, with what was done all the same
    as its `result`.
    """
    tried: Plan | None = None
    try:
        for attempts_left in reversed(range(_ATTEMPTS)):
            tried = None
            tried = plan = _plan(view or ProjectedTable(table), declared, policy)
            try:
                outcome = Outcome(plan.wanted, []) if check_mode else _apply(table, plan)
                break
            except StalePlan:
                if not attempts_left:
                    raise
    except ConntrackError as error:
        raise _failure(error, table, declared, tried) from error
    return {
        "changed": plan.operation != "unchanged",
        "operation": plan.operation,
        "before": _shown(plan.actual),
        "expectation": _shown(outcome.expectation),
        "changes": [change.as_document() for change in plan.changes],
        "evicted": [to_document(evicted) for evicted in outcome.evicted],
        "diff": _diff(plan),
    }


def _failure(error: ConntrackError, table: Table, declared: Expectation, plan: Plan | None) -> CannotReconcile:
    """The error with what was done all the same; where that is unknown, with what was tried."""
    operation, done = "unchanged", []
    if isinstance(error, CannotReconcile):
        operation, done = error.operation, error.done
    elif isinstance(error, ResultUnknown) and plan is not None:
        operation, done = plan.operation, plan.changes
    result: Document = {
        "changed": operation != "unchanged",
        "operation": operation,
        "changes": [change.as_document() for change in done],
    }
    with contextlib.suppress(ConntrackError):
        result["expectation"] = _shown(_find(table, declared))
    result["before"] = result.get("expectation", {}) if plan is None else _shown(plan.actual)
    return CannotReconcile(str(error), operation, done, {**result, **getattr(error, "result", {})})


def _find(table: Table, declared: Expectation) -> Expectation | None:
    try:
        return client.get(table, declared)
    except NotFound:
        return None


# The plan


def _plan(view: ProjectedTable, declared: Expectation, policy: Policy) -> Plan:
    if policy.state == "absent":
        actual = _find_staying(view, declared)
        return Plan("unchanged" if actual is None else "deleted", declared, actual, None, [])
    check_refreshment(declared, policy)
    if declared.get("timeout") == 0:
        raise InvalidValue("timeout", "0 would be gone at once; write 1 or more seconds")
    wanted = client.creation_of(declared)
    actual = _find_staying(view, declared)
    if actual is None:
        return Plan("created", declared, None, _possible(view, wanted, None), [])
    if policy.on_existing == "keep":
        return Plan("unchanged", declared, actual, actual, [])
    fixed = differences(declared, actual)
    changes = fixed + _refreshment(declared, actual, policy)
    if not changes:
        return Plan("unchanged", declared, actual, actual, [])
    if policy.on_existing == "fail":
        keys = ", ".join(change.key for change in changes)
        raise CannotReconcile(
            f"the {describe(actual)} is there already and differs in {keys}; set on_existing to update to change it"
        )
    if not fixed:
        return Plan("updated", declared, actual, {**actual, "timeout": declared["timeout"]}, changes)
    if not policy.replace:
        keys = ", ".join(change.key for change in fixed)
        raise CannotReconcile(
            f"the {describe(actual)} cannot be changed in place ({keys}): but for its timeout it stays as it was "
            "created; set replace to true to delete it and create it again"
        )
    whole = client.creation_of(_replacement(declared, actual))
    return Plan("replaced", declared, actual, _possible(view, whole, actual), changes)


def _find_staying(view: ProjectedTable, declared: Expectation) -> Expectation | None:
    found = _find(view.table, declared)
    return found if found is not None and view.keeps_expectation(found, client.master_of(found)) else None


def _replacement(declared: Expectation, actual: Expectation) -> Expectation:
    """The declaration, and for what it leaves open, what is there."""
    kept = {key: value for key, value in actual.items() if key in _KEPT or key in ("family", "timeout")}
    for group in _GROUPS:
        if any(key.startswith(group) for key in declared):
            kept = {key: value for key, value in kept.items() if not key.startswith(group)}
    kept["timeout"] = max(1, kept.get("timeout", 1))
    return {**kept, **declared}


def _refreshment(declared: Expectation, actual: Expectation, policy: Policy) -> list[Change]:
    """A new countdown, where one is declared and fewer seconds remain than `timeout_min`."""
    remaining = actual.get("timeout", 0)
    if "timeout" not in declared or remaining >= policy.timeout_min:
        return []
    return [Change("timeout", remaining, declared["timeout"])]


def _possible(view: ProjectedTable, wanted: Expectation, but: Expectation | None) -> Expectation:
    """The expectation as it will be, if nothing that can be known now is against it.

    Whether the helper has the class, and the kernel the function, only the creation tells.
    """
    about = client.master_of(wanted)
    shown = f"its master, {describe_entry(about)}"
    master = view.find_by_tuple(about)
    if master is None:
        raise CannotReconcile(f"the {describe(wanted)} cannot be created without {shown}. {NO_MASTER}")
    if identity(master)[3:] != identity(about)[3:]:
        original = describe_tuple(tuple_of(master, "original"))
        raise InvalidValue("master", f"is the reply tuple of a connection; write its original tuple, {original}")
    if "helper" not in master:
        raise CannotReconcile(f"the {describe(wanted)} cannot be created for {shown}. {NO_HELPER}")
    _check_room(view, wanted, but)
    own = {key: value for key, value in wanted.items() if key not in _ITS_OWN}
    return {"class": 0, "flags": 0, **own, "helper": master["helper"]}


def _check_room(view: ProjectedTable, wanted: Expectation, but: Expectation | None) -> None:
    """No other may be for some of the same connections in the same zone; `but` is about to go."""
    about = {**wanted, "zone": 0}
    rivals = (found for found in client.read_all(view.table, wanted["family"]) if client.overlap(about, found))
    for rival in client.located(view.table, rivals):
        if not client.overlap(wanted, rival) or (but is not None and rival.get("id") == but.get("id")):
            continue
        if view.keeps_expectation(rival, client.master_of(rival)):
            raise CannotReconcile(
                f"the {describe(wanted)} cannot be created: the {describe(rival)} of the connection "
                f"{describe_tuple(tuple_of(rival, 'master'))} is for some of the same connections; delete that "
                "one first if it is stale"
            )


# Its application


def _apply(table: Table, plan: Plan) -> Outcome:
    actual, wanted = plan.actual or {}, plan.wanted or {}
    if plan.operation == "created":
        with held():  # its timeout takes a second request
            return _create(table, plan, wanted)
    if plan.operation == "updated":
        return Outcome(_update(table, plan, wanted), [])
    if plan.operation == "replaced":
        with held():
            return _replace(table, plan, actual, wanted)
    if plan.operation == "deleted":
        _delete(table, plan, actual)
        return Outcome(None, [])
    return Outcome(plan.actual, [])


def _create(table: Table, plan: Plan, wanted: Expectation) -> Outcome:
    siblings = list(client.read_of_master(table, wanted))
    try:
        retry_if_unknown(lambda: client.create(table, wanted), lambda: _find(table, wanted) is not None)
    except Exists as error:
        raise StalePlan(str(error)) from error
    try:
        if "timeout" in wanted:
            _set_timeout(table, wanted)
        found = client.get(table, wanted)
        evicted = _evicted(table, wanted, siblings)
    except NotFound:
        raise _gone_again(wanted) from None
    except CannotReconcile as failure:
        with contextlib.suppress(ConntrackError):
            evicted = _evicted(table, wanted, siblings)
            if evicted:
                failure.operation = "created"  # and deleted again, but what it evicted does not come back
                failure.result["evicted"] = [to_document(one) for one in evicted]
        raise
    except ConntrackError as error:
        raise CannotReconcile(f"the {describe(wanted)} was created, but not read back. {error}", "created") from error
    missed = differences(plan.declared, found)
    if missed:
        keys = ", ".join(f"{change.key} (it is {change.before!r})" for change in missed)
        raise CannotReconcile(
            f"the {describe(wanted)} is there, but the kernel did not take {keys}",
            "created",
            result={"evicted": [to_document(one) for one in evicted]},
        )
    return Outcome(found, evicted)


def _evicted(table: Table, wanted: Expectation, siblings: Iterable[Expectation]) -> list[Expectation]:
    """Those of the siblings that the kernel removed to make room; not those that expired."""
    left = {sibling.get("id") for sibling in client.read_of_master(table, wanted)}
    gone = [one for one in siblings if one.get("id") not in left and one.get("class", 0) == wanted.get("class", 0)]
    return [one for one in gone if one.get("timeout", 0) > 1]


def _set_timeout(table: Table, wanted: Expectation) -> None:
    """Give a new expectation the timeout that is wanted. If that fails, delete it, so that another run creates it.

    Another run would not set the timeout of one that is there.
    """
    try:
        retry_if_unknown(lambda: client.update(table, wanted), lambda: False)  # made twice it is the same
        return
    except NotFound:
        raise _gone_again(wanted) from None
    except KernelError as caught:
        error = caught
    try:
        retry_if_unknown(lambda: client.delete(table, wanted), lambda: _find(table, wanted) is None)
    except NotFound:
        pass
    except KernelError as second:
        raise CannotReconcile(
            f"the {describe(wanted)} was created, but its timeout was not set. {error}. Deleting it again failed. "
            f"{second}",
            "created",
        ) from error
    raise CannotReconcile(f"the {describe(wanted)} was not created: its timeout cannot be set. {error}") from error


def _gone_again(wanted: Expectation) -> CannotReconcile:
    return CannotReconcile(
        f"the {describe(wanted)} was created and is gone again already; the connection may have come", "created"
    )


def _update(table: Table, plan: Plan, wanted: Expectation) -> Expectation:
    try:
        retry_if_unknown(lambda: client.update(table, wanted), lambda: False)
    except NotFound as gone:
        raise StalePlan(str(gone)) from gone
    try:
        return client.get(table, wanted)
    except NotFound as gone:
        raise StalePlan(str(gone)) from gone
    except KernelError as error:
        raise CannotReconcile(
            f"the {describe(wanted)} was updated, but not read back. {error}", "updated", plan.changes
        ) from error


def _delete(table: Table, plan: Plan, actual: Expectation) -> None:
    def is_gone() -> bool:
        there = _find(table, actual)
        return there is None or there.get("id") != actual.get("id")

    try:
        retry_if_unknown(lambda: client.delete(table, actual), is_gone)
    except NotFound as gone:
        raise StalePlan(str(gone)) from gone


def _replace(table: Table, plan: Plan, actual: Expectation, wanted: Expectation) -> Outcome:
    _delete(table, plan, actual)
    try:
        return _create(table, plan, wanted)
    except ConntrackError as error:
        if isinstance(error, CannotReconcile) and error.operation == "created":
            raise CannotReconcile(str(error), "replaced", plan.changes, error.result) from error
        try:
            old = _replacement({}, actual)
            retry_if_unknown(lambda: client.create(table, old), lambda: _find(table, old) is not None)
            retry_if_unknown(lambda: client.update(table, old), lambda: False)
        except KernelError as second:
            raise CannotReconcile(
                f"{error}. The expectation that it was to replace is deleted and could not be restored: {second}",
                "deleted",
            ) from error
        raise CannotReconcile(
            f"{error}. The expectation that it was to replace was deleted and restored", "replaced"
        ) from error


# The report


def _shown(expectation: Mapping[str, Any] | None) -> Document:
    return {} if expectation is None else to_document(expectation)


def _diff(plan: Plan) -> Document:
    """`{"before": …, "after": …}` with the declared keys alone, and no countdowns."""
    declared = to_document(plan.declared)
    for key in _ITS_OWN:
        declared.pop(key, None)
    if plan.actual is None:
        return {"before": {}, "after": declared if plan.operation == "created" else {}}
    if not any(change.key == "timeout" for change in plan.changes):
        declared.pop("timeout", None)
    before = likewise(to_document(plan.actual), declared)
    if plan.operation == "deleted":
        return {"before": before, "after": {}}
    after = copy.deepcopy(before)
    for change in plan.changes:
        put(after, change.key, change.after)
    return {"before": before, "after": after}
