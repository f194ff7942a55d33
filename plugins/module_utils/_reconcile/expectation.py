# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reconcile one expectation.

The kernel gives a new expectation the timeout of its helper. The timeout is also the only key that it can change. A
declared timeout is therefore set right after the creation, and any other change needs a replacement.
"""

from __future__ import annotations

import contextlib
from typing import Sequence

from ..client.codec.attributes import FIXED, KEY, Change
from ..client.entry.diff import check_timeout_min, timeout_changes
from ..client.entry.entry import describe as describe_entry
from ..client.entry.entry import identity
from ..client.entry.nested import Document
from ..client.entry.tuple import describe_tuple, tuple_of
from ..client.errors import ConntrackError, Exists, InvalidValue, KernelError, NotFound
from ..client.expectation import expectation
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
from .plan import ProjectedTable
from .reconciler import CannotReconcile, Plan, Policy, Reconciler, StalePlan, with_values

#: Keys that only the kernel sets. No diff shows them.
_ITS_OWN = ("helper", "id", "extra")
_KEPT = frozenset(row.key for row in EXPECTATION if row.use & (FIXED | KEY))
#: Prefixes of groups of keys. A declaration replaces all keys of a group or none.
_GROUPS = ("master.", "nat.")
#: The warning if the result names evicted expectations.
EVICTED = "A helper allows no more expectations, so the kernel removed the oldest: see evicted"


def reconcile(
    table: Table, declared: Expectation, policy: Policy, check_mode: bool, view: ProjectedTable | None = None
) -> Document:
    """Apply the declaration of one expectation and return the module's result. Raises `CannotReconcile`.

    In check mode, `view` is the table after earlier steps.
    """
    return _ExpectationReconciler(table, declared, policy, view).reconcile(check_mode)


class _ExpectationReconciler(Reconciler):
    """One declared expectation."""

    key = "expectation"
    replaced = ". The expectation that it was to replace"
    hidden = _ITS_OWN
    client = expectation
    #: Expectations that the kernel removed to make room for this one.
    evicted: Sequence[Expectation] = ()

    def __init__(self, table: Table, declared: Expectation, policy: Policy, view: ProjectedTable | None) -> None:
        super().__init__(table, declared, policy)
        self._view = view

    def find(self, resource: Expectation) -> Expectation | None:
        try:
            return expectation.get(self.table, resource)
        except NotFound:
            return None

    def report(
        self, operation: str, before: Expectation | None, after: Expectation | None, changes: Sequence[Change]
    ) -> Document:
        evicted = [to_document(one) for one in self.evicted]
        return {**super().report(operation, before, after, changes), "evicted": evicted}

    # The plan

    def plan(self) -> Plan:
        declared, policy = self.declared, self.policy
        view = self._view or ProjectedTable(self.table)
        if policy.state == "absent":
            actual = self._find_staying(view)
            return Plan("unchanged" if actual is None else "deleted", declared, actual, [])
        check_timeout_min(policy.timeout_min, declared)
        if declared.get("timeout") == 0:
            raise InvalidValue("timeout", "0 would expire immediately; write 1 or more seconds")
        wanted = expectation.creation_of(declared)
        actual = self._find_staying(view)
        if actual is None:
            return Plan("created", declared, None, [], _possible(view, wanted, None))
        fixed = differences(declared, actual)
        changes = fixed + timeout_changes(declared, actual, policy.timeout_min)
        if policy.on_existing == "keep" or not changes:
            return Plan("unchanged", declared, actual, [])
        policy.check_changes(f"the {describe(actual)}", changes)
        if not fixed:
            return Plan("updated", declared, actual, changes, {**actual, "timeout": declared["timeout"]})
        if not policy.replace:
            keys = ", ".join(change.key for change in fixed)
            raise CannotReconcile(
                f"the {describe(actual)} cannot be changed in place ({keys}), because the kernel changes only the "
                "timeout of an expectation; set replace to true to delete it and create it again"
            )
        whole = expectation.creation_of(_replacement(declared, actual))
        return Plan("replaced", declared, actual, changes, _possible(view, whole, actual))

    def _find_staying(self, view: ProjectedTable) -> Expectation | None:
        found = self.find(self.declared)
        return found if found is not None and view.keeps_expectation(found, expectation.master_of(found)) else None

    # Its application

    def create(self, plan: Plan) -> Expectation:
        wanted = plan.wanted or {}
        siblings = list(expectation.read_of_master(self.table, wanted))
        try:
            self.send_create(wanted)
        except Exists as error:
            raise StalePlan(str(error)) from error
        try:
            if "timeout" in wanted:
                self._set_timeout(wanted)
            found = expectation.get(self.table, wanted)
            self._note_evicted(wanted, siblings)
        except NotFound:
            raise _gone_again(wanted) from None
        except CannotReconcile as failure:
            with contextlib.suppress(ConntrackError):
                self._note_evicted(wanted, siblings)
                if self.evicted:
                    failure.operation = "created"  # it was deleted again, but the evicted expectations do not come back
            raise
        except ConntrackError as error:
            raise CannotReconcile(
                f"the {describe(wanted)} was created, but not read back. {error}", "created"
            ) from error
        missed = differences(plan.declared, found)
        if missed:
            keys = with_values(missed)
            raise CannotReconcile(f"the {describe(wanted)} exists, but the kernel did not set {keys}", "created")
        return found

    def _note_evicted(self, wanted: Expectation, siblings: Sequence[Expectation]) -> None:
        """Record the siblings that the kernel removed to make room, without those that expired."""
        left = {sibling.get("id") for sibling in expectation.read_of_master(self.table, wanted)}
        gone = [one for one in siblings if one.get("id") not in left and one.get("class", 0) == wanted.get("class", 0)]
        self.evicted = [one for one in gone if one.get("timeout", 0) > 1]

    def _set_timeout(self, wanted: Expectation) -> None:
        """Set the declared timeout of a new expectation.

        If that fails, delete the expectation, so that the next run creates it. The next run would not set the timeout
        of an existing expectation.
        """
        try:
            self.send_update(wanted)
            return
        except NotFound:
            raise _gone_again(wanted) from None
        except KernelError as caught:
            error = caught
        try:
            self.send_delete(wanted)
        except NotFound:
            pass
        except KernelError as second:
            raise CannotReconcile(
                f"the {describe(wanted)} was created, but its timeout was not set. {error}. Deleting it again failed. "
                f"{second}",
                "created",
            ) from error
        raise CannotReconcile(f"the {describe(wanted)} was not created: its timeout cannot be set. {error}") from error

    def update(self, plan: Plan) -> Expectation:
        wanted = plan.wanted or {}
        try:
            self.send_update(wanted)
        except NotFound as gone:
            raise StalePlan(str(gone)) from gone
        try:
            return expectation.get(self.table, wanted)
        except NotFound as gone:
            raise StalePlan(str(gone)) from gone
        except KernelError as error:
            raise CannotReconcile(
                f"the {describe(wanted)} was updated, but not read back. {error}", "updated", plan.changes
            ) from error

    def delete(self, plan: Plan) -> None:
        try:
            self.send_delete(plan.actual or {})
        except NotFound as gone:
            raise StalePlan(str(gone)) from gone

    def restore(self, old: Expectation) -> None:
        again = _replacement({}, old)
        self.send_create(again)
        self.send_update(again)


def _replacement(declared: Expectation, actual: Expectation) -> Expectation:
    """Complete a declaration with the existing values of keys that it does not contain."""
    kept = {key: value for key, value in actual.items() if key in _KEPT or key in ("family", "timeout")}
    for group in _GROUPS:
        if any(key.startswith(group) for key in declared):
            kept = {key: value for key, value in kept.items() if not key.startswith(group)}
    kept["timeout"] = max(1, kept.get("timeout", 1))
    return {**kept, **declared}


def _gone_again(wanted: Expectation) -> CannotReconcile:
    return CannotReconcile(
        f"the {describe(wanted)} was created, but no longer exists; the connection may have begun", "created"
    )


def _possible(view: ProjectedTable, wanted: Expectation, but: Expectation | None) -> Expectation:
    """Return the expectation as it will be. Raises `CannotReconcile` or `InvalidValue` if its creation must fail.

    Only the creation shows whether the helper has the class and the kernel has the function.
    """
    about = expectation.master_of(wanted)
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
    """Raise `CannotReconcile` if another expectation, except `but`, overlaps with `wanted` in the same zone."""
    about = {**wanted, "zone": 0}
    rivals = (
        found for found in expectation.read_all(view.table, wanted["family"]) if expectation.overlap(about, found)
    )
    for rival in expectation.located(view.table, rivals):
        if not expectation.overlap(wanted, rival) or (but is not None and rival.get("id") == but.get("id")):
            continue
        if view.keeps_expectation(rival, expectation.master_of(rival)):
            raise CannotReconcile(
                f"the {describe(wanted)} cannot be created: the {describe(rival)} of the connection "
                f"{describe_tuple(tuple_of(rival, 'master'))} applies to some of the same connections; delete that "
                "one first if it is stale"
            )
