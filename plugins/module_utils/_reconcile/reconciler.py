# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reconcile one resource: plan, apply, read back and report.

`Reconciler` is the common part of entries, expectations and timeout policies. It plans again if the table changed after
the plan, handles lost answers, and undoes a replacement that fails. A subclass for each kind of resource defines its
plan and its requests.
"""

from __future__ import annotations

import contextlib
import copy
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Callable, Collection, Mapping, NamedTuple, Sequence

from ..client.codec.attributes import Change
from ..client.codec.codec import Values
from ..client.errors import ConntrackError, InvalidValue, PartialFailure, ResultUnknown, quoted, retry_if_unknown
from ..client.table import Table

if TYPE_CHECKING:
    from ..client.entry.nested import Document

#: The maximum number of plans if other processes change the table between plan and change.
ATTEMPTS = 3


class StalePlan(ConntrackError):
    """The table changed after the plan, and nothing was done. Plan again."""


class CannotReconcile(PartialFailure):
    """The declaration cannot be applied.

    `operation` is the operation that was carried out before the error, and `done` are the changes in force. `result`
    contains both as a module's result. `plan` is the plan that failed, if there was one.
    """

    def __init__(
        self, sentence: str, operation: str = "unchanged", done: Sequence[Change] = (), plan: Plan | None = None
    ) -> None:
        super().__init__(sentence)
        self.plan = plan
        self.operation = operation
        self.done = list(done)


class Policy(NamedTuple):
    """Whether a resource must exist, and what to do if it exists already and differs."""

    state: str = "present"
    on_existing: str = "update"
    replace: bool = False
    timeout_min: int = 0

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Policy:
        """Return the policy that the options of a module declare."""
        return cls(*(options[name] for name in cls._fields))

    def check_purge(self, scope: object | None) -> None:
        """Raise `InvalidValue` for a purge if the declared entries must be absent."""
        if scope is not None and self.state == "absent":
            raise InvalidValue("purge", "needs state: present; write that, or leave purge out")

    def check_changes(self, existing: str, changes: Sequence[Change]) -> None:
        """Raise `CannotReconcile` for changes of an existing resource that this policy does not allow."""
        if self.on_existing == "fail":
            keys = ", ".join(change.key for change in changes)
            raise CannotReconcile(
                f"{existing} exists already and differs in {keys}; set on_existing to update to change it"
            )


class Plan(NamedTuple):
    """The operation for one resource: created, updated, replaced, deleted or unchanged.

    `actual` is the resource that was read. `changes` are the declared keys that differ from it. `wanted` is the
    resource after a change.
    """

    operation: str
    declared: Values
    actual: Values | None
    changes: list[Change]
    wanted: Values | None = None

    @property
    def changed(self) -> bool:
        return self.operation != "unchanged"

    def predicted(self) -> Values | None:
        """Return the resource after the plan is applied, None if there is none."""
        return self.wanted if self.changed else self.actual


class Reconciler(ABC):
    """One declared resource in a table."""

    #: The key of the result that contains the resource after the task.
    key: str
    #: The text for the old resource in the message of a failed replacement, which follows the error.
    replaced: str
    #: The operation that a failed replacement reports after the old resource was restored.
    restored = "replaced"
    #: Operations that consist of several requests, which no signal may interrupt.
    held: Collection[str] = ("created", "replaced")
    #: Keys that no diff shows.
    hidden: tuple[str, ...] = ()
    #: Contains the functions `create`, `update` and `delete` of a table and a resource, and `to_document`.
    client: Any

    def __init__(self, table: Table, declared: Values, policy: Policy) -> None:
        self.table = table
        self.declared = declared
        self.policy = policy

    @abstractmethod
    def find(self, resource: Values) -> Values | None:
        """Read the resource with the identity of `resource`, None if there is none."""

    @abstractmethod
    def plan(self) -> Plan:
        """Compare the declared with the existing resource. Raises `CannotReconcile` if no change is possible."""

    @abstractmethod
    def create(self, plan: Plan) -> Values | None:
        """Create the planned resource, also for a replacement, and read it back.

        Raises `CannotReconcile` with the operation that was carried out if the new resource exists after an error.
        """

    @abstractmethod
    def update(self, plan: Plan) -> Values | None:
        """Change the existing resource, and read it back."""

    @abstractmethod
    def delete(self, plan: Plan) -> Values | None:
        """Delete the existing resource, also for a replacement, and return None."""

    @abstractmethod
    def restore(self, old: Values) -> None:
        """Create the resource again that was deleted for a replacement."""

    # Requests

    def send_create(self, wanted: Values) -> bool:
        """Create a resource. Return False if the answer was lost: another process may have created the resource."""
        return retry_if_unknown(lambda: self.client.create(self.table, wanted), lambda: self.find(wanted) is not None)

    def send_update(self, update: Values) -> None:
        retry_if_unknown(lambda: self.client.update(self.table, update))

    def send_delete(self, actual: Values) -> None:
        """Delete a resource. Raises `NotFound` if it is gone or, given an id, if another resource replaced it."""

        def is_gone() -> bool:
            there = self.find(actual)
            return there is None or there.get("id") != actual.get("id", there.get("id"))

        retry_if_unknown(lambda: self.client.delete(self.table, actual), is_gone)

    # Plan and apply

    def reconcile(self, check_mode: bool) -> Document:
        """Apply the declaration and return the module's result.

        Raises `CannotReconcile` with the module's result of what was done before the error, and `InvalidValue` for a
        declaration that cannot be planned.
        """
        try:
            plan, after = self.plan_and_apply(check_mode)
        except CannotReconcile as failure:
            if isinstance(failure.__cause__, InvalidValue) and failure.operation == "unchanged":
                raise failure.__cause__ from None
            failure.result = self._result_of(failure)
            raise
        return {**self.report(plan.operation, plan.actual, after, plan.changes), "diff": self.diff(plan)}

    def plan_and_apply(self, check_mode: bool = False) -> tuple[Plan, Values | None]:
        """Apply the declaration and return the plan and the resource afterwards.

        Raises `CannotReconcile` with what was done before the error, or with the plan if that is unknown.
        """
        tried: Plan | None = None
        attempts_left = ATTEMPTS
        try:
            while True:
                tried = None
                tried = self.plan()
                attempts_left -= 1
                try:
                    return tried, tried.predicted() if check_mode else self.apply(tried)
                except StalePlan:
                    if not attempts_left:
                        raise
        except ConntrackError as error:
            operation, done = "unchanged", []
            if isinstance(error, CannotReconcile):
                operation, done = error.operation, error.done
            elif isinstance(error, ResultUnknown) and tried is not None:
                operation, done = tried.operation, tried.changes
            raise CannotReconcile(str(error), operation, done, tried) from error

    def apply(self, plan: Plan) -> Values | None:
        """Carry out a plan and return the resource as it then is, None if it is gone.

        Raises `StalePlan`; `CannotReconcile` if the kernel accepted less than declared or if that is unknown;
        `ResultUnknown` if the answer to a second attempt is lost, too; and any other `KernelError` if nothing was done.
        """
        if not plan.changed:
            return plan.actual
        steps = {"created": self.create, "updated": self.update, "replaced": self._replace, "deleted": self.delete}
        step: Callable[[Plan], Values | None] = steps[plan.operation]
        if plan.operation not in self.held:
            return step(plan)
        from .._signals import held  # imported here because most tasks change nothing

        with held():
            return step(plan)

    def _replace(self, plan: Plan) -> Values | None:
        self.delete(plan)
        try:
            return self.create(plan)
        except ConntrackError as error:
            if isinstance(error, CannotReconcile) and error.operation != "unchanged":
                raise CannotReconcile(str(error), "replaced", plan.changes) from error
            try:
                self.restore(plan.actual or {})
            except ConntrackError as second:
                raise CannotReconcile(
                    f"{error}{self.replaced} was deleted and could not be restored: {second}", "deleted"
                ) from error
            raise CannotReconcile(f"{error}{self.replaced} was deleted and restored", self.restored) from error

    # The report

    def to_document(self, resource: Values) -> Document:
        """Return a resource as a document."""
        document: Document = self.client.to_document(resource)
        return document

    def diff(self, plan: Plan) -> Document:
        """Return `{"before": …, "after": …}` with only the declared keys."""
        return diff_of(plan, self.to_document, self.hidden)

    def report(
        self, operation: str, before: Values | None, after: Values | None, changes: Sequence[Change]
    ) -> Document:
        """Return the module's result without the diff."""
        return {
            "changed": operation != "unchanged",
            "operation": operation,
            "before": {} if before is None else self.to_document(before),
            self.key: {} if after is None else self.to_document(after),
            "changes": [change.as_document() for change in changes],
        }

    def _result_of(self, failure: CannotReconcile) -> Document:
        plan = failure.plan
        before = None if plan is None else plan.actual
        after = None if failure.operation != "unchanged" else before
        with contextlib.suppress(ConntrackError):
            after = self.find(self.declared if plan is None else plan.declared)
        return self.report(failure.operation, after if plan is None else before, after, failure.done)


def with_values(missed: Sequence[Change]) -> str:
    """Return the keys that the kernel did not set, each with the value that it has instead."""
    return ", ".join(
        f"{change.key} (it has {'none' if change.before in (None, []) else quoted(change.before)})" for change in missed
    )


def diff_of(plan: Plan, to_document: Callable[[Values], Document], hidden: Collection[str]) -> Document:
    """Return `{"before": …, "after": …}` with only the declared keys, without `hidden` keys.

    The timeout is included only if it changes.
    """
    from ..client.entry.nested import likewise, put  # timeout policies have their own diff

    declared = {key: value for key, value in to_document(plan.declared).items() if key not in hidden}
    if plan.actual is None:
        return {"before": {}, "after": declared if plan.changed else {}}
    if not any(change.key == "timeout" for change in plan.changes):
        declared.pop("timeout", None)
    before = likewise(to_document(plan.actual), declared)
    if plan.operation == "deleted":
        return {"before": before, "after": {}}
    after = copy.deepcopy(before)
    for change in plan.changes:
        if change.before is not None:  # for a mark with a mask, only the declared bits
            put(before, change.key, change.before)
        put(after, change.key, change.after)
    return {"before": before, "after": after}
