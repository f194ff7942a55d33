# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reconcile timeout policies and the default timeouts of protocols."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Iterator, Mapping

from ..client import timeout_policy, uapi
from ..client.codec import types
from ..client.codec.attributes import Change
from ..client.errors import Busy, InvalidValue, KernelError, NotFound, quoted, retry_if_unknown
from ..client.table import Table
from ..client.timeout_policy import describe, from_document, to_document
from .reconciler import CannotReconcile, Plan, Policy, Reconciler

if TYPE_CHECKING:
    from ..client.entry.nested import Document

_IN_USE = "a rule uses it; remove that rule first (such as -j CT --timeout in the table raw of iptables)"


def declared_policy(params: Mapping[str, Any]) -> timeout_policy.Policy:
    """Return the policy that a module's parameters declare. Raises `InvalidValue` for the first error."""
    declared, problems = examined(params)
    if problems:
        raise problems[0]
    return declared


def examined(params: Mapping[str, Any]) -> tuple[timeout_policy.Policy, list[InvalidValue]]:
    """Return the valid part of the policy that a module's parameters declare, and all errors."""
    problems: list[InvalidValue] = []
    if params["default"] and params["name"] is not None:
        problems.append(InvalidValue("default", "name is set, too; write one of them"))
    if not params["default"] and params["name"] is None:
        problems.append(
            InvalidValue("name", "is missing; write the name of a policy, or default: true for a protocol's defaults")
        )
    declared: timeout_policy.Policy = {}
    for key in ("name", "protocol", "family"):
        with _collect(problems):
            declared.update(from_document({key: params[key]}))
    timeouts = params["timeouts"] or {}
    if not isinstance(timeouts, Mapping):
        problem = f"{quoted(timeouts)} is not a dictionary; write states and their seconds"
        problems.append(InvalidValue("timeouts", problem))
    for state, seconds in timeouts.items() if isinstance(timeouts, Mapping) else ():
        with _collect(problems):
            if "protocol" in declared:
                declared.update(from_document({"protocol": params["protocol"], "timeouts": {state: seconds}}))
            else:  # the valid states depend on the protocol
                timeout_policy.SECONDS.parse(seconds, f"timeouts.{state}")
    if params["state"] == "absent":
        if params["name"] is None and params["default"]:
            problems.append(
                InvalidValue(
                    "state", "the default timeouts of a protocol cannot be removed; declare the timeouts to set"
                )
            )
        return {"name": declared.get("name")}, problems
    if params["protocol"] is None:
        problems.append(
            InvalidValue("protocol", "is missing; write the protocol that the timeouts are for, such as tcp")
        )
    elif not timeouts:
        problems.append(InvalidValue("timeouts", "names no state; write at least one and its seconds"))
    if params["name"] is None:
        declared.pop("family", None)  # the defaults apply to both families
    elif params["family"] is None:
        problems.append(InvalidValue("family", "is missing; write ipv4 or ipv6, a policy applies to one of them"))
    elif "family" in declared and "protocol" in declared:
        problems += _family_of_other(declared)
    return declared, problems


@contextlib.contextmanager
def _collect(problems: list[InvalidValue]) -> Iterator[None]:
    """Add the `InvalidValue` that the block raises to `problems`, unless there is one for the same key."""
    try:
        yield
    except InvalidValue as problem:
        if problem.key not in [known.key for known in problems]:
            problems.append(problem)


_ONE_FAMILY = {uapi.IPPROTO_ICMP: types.AF_INET, uapi.IPPROTO_ICMPV6: types.AF_INET6}


def _family_of_other(declared: timeout_policy.Policy) -> Iterator[InvalidValue]:
    """Yield an error for a family that the protocol does not have. The kernel would accept such a policy."""
    family = _ONE_FAMILY.get(declared["protocol"])
    if family is not None and declared["family"] != family:
        name = timeout_policy.FAMILY.present(family)
        yield InvalidValue("family", f"{timeout_policy.PROTOCOL.present(declared['protocol'])} is of {name} only")


def reconcile(table: Table, declared: timeout_policy.Policy, state: str, replace: bool, check_mode: bool) -> Document:
    """Apply the declaration of one policy, or of a protocol's defaults, and return the module's result.

    Raises `CannotReconcile`.
    """
    return _PolicyReconciler(table, declared, Policy(state, replace=replace)).reconcile(check_mode)


class _PolicyReconciler(Reconciler):
    """One declared timeout policy, or the default timeouts of one protocol."""

    key = "policy"
    replaced = ". The policy that it was to replace"
    restored = "unchanged"
    held = ("replaced",)
    client = timeout_policy

    def find(self, resource: timeout_policy.Policy) -> timeout_policy.Policy | None:
        if "name" in resource:
            return timeout_policy.find(self.table, resource["name"])
        return timeout_policy.defaults(self.table, resource["protocol"])

    def diff(self, plan: Plan) -> Document:
        return {"before": _part(plan.declared, plan.actual), "after": _part(plan.declared, plan.predicted())}

    def plan(self) -> Plan:
        declared = self.declared
        actual = self.find(declared)
        if self.policy.state == "absent":
            _check_unused(actual, "deleted")
            return Plan("unchanged" if actual is None else "deleted", declared, actual, [])
        if actual is None:
            return Plan("created", declared, None, [], self._new())
        changes = _changes(declared, actual)
        if not changes:
            return Plan("unchanged", declared, actual, [])
        if not {"family", "protocol"}.intersection(change.key for change in changes):
            return Plan("updated", declared, actual, changes, {**actual, **declared})
        if not self.policy.replace:
            raise CannotReconcile(
                f"The family and protocol of {describe(actual)} cannot be changed in place; set replace to true to "
                "delete it and create it again"
            )
        _check_unused(actual, "replaced")
        kept = actual if declared["protocol"] == actual["protocol"] else {}
        return Plan("replaced", declared, actual, changes, {**self._new(), **kept, **declared})

    def _new(self) -> timeout_policy.Policy:
        """Return a new policy as the kernel creates it, with the protocol's defaults for states not declared."""
        return {**timeout_policy.defaults(self.table, self.declared["protocol"]), **self.declared, "use": 1}

    def create(self, plan: Plan) -> timeout_policy.Policy | None:
        self.send_create(plan.wanted or {})
        return self._read_back(plan)

    def update(self, plan: Plan) -> timeout_policy.Policy | None:
        if "name" in plan.declared:
            # All timeouts, because the kernel resets omitted states to their defaults
            self.send_update(plan.wanted or {})
        else:
            retry_if_unknown(lambda: timeout_policy.set_defaults(self.table, plan.declared))
        return self._read_back(plan)

    def delete(self, plan: Plan) -> None:
        old = plan.actual or {}
        try:
            with contextlib.suppress(NotFound):  # deleted by another process meanwhile
                self.send_delete(old)
        except Busy:
            raise CannotReconcile(f"{describe(old)} cannot be deleted: {_IN_USE}") from None
        if plan.operation == "deleted":
            self._read_back(plan)

    def restore(self, old: timeout_policy.Policy) -> None:
        try:
            self.send_create(old)
        except KernelError as error:
            raise error.about(f"restoring {describe(old)}") from None

    def _read_back(self, plan: Plan) -> timeout_policy.Policy | None:
        """Return the policy after a change. Raises `CannotReconcile` if it is not as declared or cannot be read."""
        about, done = describe(plan.declared), plan.operation
        try:
            after = self.find(plan.declared)
        except KernelError as error:
            sentence = f"{about}: the change was made ({done}), but not read back. {error}"
            raise CannotReconcile(sentence, done, plan.changes) from error
        missed = [f"{change.key} is {change.before}" for change in _changes(plan.declared, after or {})]
        if plan.wanted is None:
            missed = ["it exists again"] if after is not None else []
        if missed:
            raise CannotReconcile(
                f"{about} is not as declared after it was {done}: {', '.join(missed)}; another program may have "
                "changed it at the same time",
                done,
                plan.changes,
            )
        return after


def _check_unused(actual: timeout_policy.Policy | None, done: str) -> None:
    """Raise `CannotReconcile` if a rule uses the policy. The kernel's count includes the policy itself."""
    if actual is not None and actual.get("use", 1) > 1:
        raise CannotReconcile(f"{describe(actual)} cannot be {done}: {_IN_USE}")


def _changes(declared: timeout_policy.Policy, actual: timeout_policy.Policy) -> list[Change]:
    """Return the declared keys that differ."""
    there = _flat(actual)
    return [Change(key, there.get(key), value) for key, value in _flat(declared).items() if there.get(key) != value]


def _flat(policy: timeout_policy.Policy) -> Document:
    """Return the keys of a policy's document by path, such as `timeouts.established`."""
    document = to_document(policy)
    timeouts = document.pop("timeouts")
    return {**document, **{f"timeouts.{state}": seconds for state, seconds in timeouts.items()}}


def _part(declared: timeout_policy.Policy, policy: timeout_policy.Policy | None) -> Document:
    """Return the declared keys of a policy as a document, or all keys if only the name is declared."""
    if policy is None:
        return {}
    keys = declared if len(declared) > 1 else policy
    part = to_document({key: policy[key] for key in keys if key in policy and key != "use"})
    part["timeouts"] = dict(sorted(part["timeouts"].items()))
    return part
