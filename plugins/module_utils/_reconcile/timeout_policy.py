# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Timeout policies, and the protocols' defaults, as declared."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Iterator, Mapping, NamedTuple

from .._signals import held
from ..client import timeout_policy, uapi
from ..client.codec import types
from ..client.errors import (
    Busy,
    ConntrackError,
    InvalidValue,
    KernelError,
    NotFound,
    PartialFailure,
    ResultUnknown,
    quoted,
    retry_if_unknown,
)
from ..client.table import Table
from ..client.timeout_policy import Policy, describe, from_document, to_document

if TYPE_CHECKING:
    from ..client.entry.nested import Document

_IN_USE = "a rule uses it; remove that rule first (such as -j CT --timeout in the table raw of iptables)"


class PolicyFailed(PartialFailure):
    """The declaration cannot be brought about."""


class Plan(NamedTuple):
    """What is to be done: `operation` is created, updated, replaced, deleted or unchanged.

    `wanted` is the policy as it will be, None for none.
    """

    operation: str
    declared: Policy
    actual: Policy | None
    wanted: Policy | None

    def changes(self) -> list[Document]:
        """The declared keys that differ, in the form of a document; none where nothing was there before."""
        if self.actual is None or self.wanted is None:
            return []
        shown, wanted = _flat(self.actual), _flat(self.declared)
        return [
            {"key": key, "before": shown.get(key), "after": value}
            for key, value in wanted.items()
            if shown.get(key) != value
        ]

    def diff(self) -> Document:
        """`{"before": …, "after": …}` with the declared keys alone."""
        return {"before": self._part(self.actual), "after": self._part(self.wanted)}

    def _part(self, policy: Policy | None) -> Document:
        if policy is None:
            return {}
        keys = self.declared if len(self.declared) > 1 else policy  # of an absent one, a name is declared
        part = to_document({key: policy[key] for key in keys if key in policy and key != "use"})
        part["timeouts"] = dict(sorted(part["timeouts"].items()))
        return part


def declared_policy(params: Mapping[str, Any]) -> Policy:
    """The policy that a module's parameters declare; `InvalidValue` for what cannot be."""
    declared, problems = examined(params)
    if problems:
        raise problems[0]
    return declared


def examined(params: Mapping[str, Any]) -> tuple[Policy, list[InvalidValue]]:
    """The policy that a module's parameters declare, as far as it is valid, and everything that is not."""
    problems: list[InvalidValue] = []
    if params["default"] and params["name"] is not None:
        problems.append(InvalidValue("default", "name is given too; write one of them"))
    if not params["default"] and params["name"] is None:
        problems.append(
            InvalidValue("name", "is missing; write the name of a policy, or default: true for a protocol's defaults")
        )
    declared: Policy = {}
    for key in ("name", "protocol", "family"):
        with _noted(problems):
            declared.update(from_document({key: params[key]}))
    timeouts = params["timeouts"] or {}
    if not isinstance(timeouts, Mapping):
        problem = f"{quoted(timeouts)} is no dictionary; write states and their seconds"
        problems.append(InvalidValue("timeouts", problem))
    for state, seconds in timeouts.items() if isinstance(timeouts, Mapping) else ():
        with _noted(problems):
            if "protocol" in declared:
                declared.update(from_document({"protocol": params["protocol"], "timeouts": {state: seconds}}))
            else:  # which states there are depends on the protocol
                timeout_policy.SECONDS.parse(seconds, f"timeouts.{state}")
    if params["state"] == "absent":
        if params["name"] is None and params["default"]:
            problems.append(
                InvalidValue("state", "a protocol's defaults cannot be absent; declare the timeouts they shall have")
            )
        return {"name": declared.get("name")}, problems
    if params["protocol"] is None:
        problems.append(
            InvalidValue("protocol", "is missing; write the protocol that the timeouts are for, such as tcp")
        )
    elif not timeouts:
        problems.append(InvalidValue("timeouts", "names no state; write at least one and its seconds"))
    if params["name"] is None:
        declared.pop("family", None)  # the defaults are of both families
    elif params["family"] is None:
        problems.append(InvalidValue("family", "is missing; write ipv4 or ipv6, a policy is of one of them"))
    elif "family" in declared and "protocol" in declared:
        problems += _family_of_other(declared)
    return declared, problems


@contextlib.contextmanager
def _noted(problems: list[InvalidValue]) -> Iterator[None]:
    """Add the problem that the block raises, unless there is one about the same key."""
    try:
        yield
    except InvalidValue as problem:
        if problem.key not in [known.key for known in problems]:
            problems.append(problem)


_ONE_FAMILY = {uapi.IPPROTO_ICMP: types.AF_INET, uapi.IPPROTO_ICMPV6: types.AF_INET6}


def _family_of_other(declared: Policy) -> Iterator[InvalidValue]:
    """The kernel would take a policy that no connection can ever have."""
    family = _ONE_FAMILY.get(declared["protocol"])
    if family is not None and declared["family"] != family:
        name = timeout_policy.FAMILY.present(family)
        yield InvalidValue("family", f"{timeout_policy.PROTOCOL.present(declared['protocol'])} is of {name} only")


def reconcile(table: Table, declared: Policy, state: str, replace: bool, check_mode: bool) -> Document:
    """Make a policy, or the defaults where none is named, be as declared.

    Returns what was done in the form of a module's result, and raises `PolicyFailed` with the same.
    """
    before: Policy | None = None
    plan: Plan | None = None
    applied = False
    result: Document = {"changed": False, "operation": "unchanged", "changes": []}
    try:
        before = _actual(table, declared)
        plan = _plan(table, declared, before, state, replace)
        if not check_mode:
            _apply(table, plan)
            applied = True
        after = plan.wanted if check_mode else _actual(table, declared)
        if not check_mode:
            _check(plan, after, result)
    except ConntrackError as error:
        sentence = str(error)
        if plan is not None and (applied or isinstance(error, ResultUnknown)):
            result.update(changed=plan.operation != "unchanged", operation=plan.operation, changes=plan.changes())
            if applied and isinstance(error, KernelError):
                sentence = f"{describe(declared)}: the change was made ({plan.operation}), but not read back. {error}"
        after = None if result["changed"] else before
        with contextlib.suppress(ConntrackError):
            after = _actual(table, declared)
        known = {"before": _shown(before), "policy": _shown(after)}
        raise PolicyFailed(sentence, {**known, **result, **getattr(error, "result", {})}) from error
    return {
        "changed": plan.operation != "unchanged",
        "operation": plan.operation,
        "before": _shown(before),
        "policy": _shown(after),
        "changes": plan.changes(),
        "diff": plan.diff(),
    }


def _plan(table: Table, declared: Policy, actual: Policy | None, state: str, replace: bool) -> Plan:
    if state == "absent":
        if actual is None:
            return Plan("unchanged", declared, None, None)
        _check_unused(actual, "deleted")
        return Plan("deleted", declared, actual, None)
    if actual is None:
        return Plan("created", declared, None, {**_filled(table, declared), "use": 1})
    if any(declared.get(key, actual.get(key)) != actual.get(key) for key in ("family", "protocol")):
        if not replace:
            raise PolicyFailed(
                f"{describe(actual)} cannot be changed into one of another family or protocol in place; set replace "
                "to true to delete it and create it again"
            )
        _check_unused(actual, "replaced")
        kept = actual if declared["protocol"] == actual["protocol"] else {}
        wanted = {**_filled(table, declared), **kept, **declared, "use": 1}
        return Plan("replaced", declared, actual, wanted)
    if all(actual.get(key) == value for key, value in declared.items()):
        return Plan("unchanged", declared, actual, actual)
    return Plan("updated", declared, actual, {**actual, **declared})


def _filled(table: Table, declared: Policy) -> Policy:
    """A new policy as the kernel makes it: states that are not declared have the protocol's defaults."""
    return {**timeout_policy.defaults(table, declared["protocol"]), **declared}


def _check_unused(actual: Policy, done: str) -> None:
    """The kernel's count has one for the policy itself."""
    if actual.get("use", 1) > 1:
        raise PolicyFailed(f"{describe(actual)} cannot be {done}: {_IN_USE}")


def _actual(table: Table, declared: Policy) -> Policy | None:
    if "name" in declared:
        return timeout_policy.find(table, declared["name"])
    return timeout_policy.defaults(table, declared["protocol"])


def _apply(table: Table, plan: Plan) -> None:
    wanted, about = plan.wanted or {}, describe(plan.declared)
    if plan.operation == "created":
        _create(table, f"creating {about}", wanted)
    elif plan.operation == "updated" and "name" in plan.declared:
        # The whole of it: the kernel sets a state that is left out back to its default
        request = timeout_policy.replace_message(wanted)
        retry_if_unknown(lambda: table.ask(f"updating {about}", request), lambda: False)  # made twice it is the same
    elif plan.operation == "updated":
        request = timeout_policy.set_defaults_message(plan.declared)
        retry_if_unknown(lambda: table.ask(f"setting the {about}", request), lambda: False)
    elif plan.operation == "deleted":
        _delete(table, plan.actual or {})
    elif plan.operation == "replaced":
        with held():
            _replace(table, plan)


def _create(table: Table, doing: str, wanted: Policy) -> None:
    request = timeout_policy.create_message(wanted)
    retry_if_unknown(lambda: table.ask(doing, request), lambda: timeout_policy.find(table, wanted["name"]) is not None)


def _delete(table: Table, policy: Policy) -> None:
    doing, name = f"deleting {describe(policy)}", policy["name"]
    request = timeout_policy.delete_message(name)
    try:
        retry_if_unknown(lambda: table.ask(doing, request), lambda: timeout_policy.find(table, name) is None)
    except NotFound:
        return  # by somebody else, meanwhile
    except Busy:
        raise PolicyFailed(f"{describe(policy)} cannot be deleted: {_IN_USE}") from None


def _replace(table: Table, plan: Plan) -> None:
    old, about = plan.actual or {}, describe(plan.declared)
    _delete(table, old)
    try:
        _create(table, f"creating {about}", plan.wanted or {})
    except KernelError as error:
        try:
            _create(table, f"restoring {describe(old)}", old)
        except KernelError as second:
            raise PolicyFailed(
                f"{error}. The policy that it was to replace is deleted and could not be restored: {second}",
                {"changed": True, "operation": "deleted", "policy": {}},
            ) from error
        raise PolicyFailed(f"{error}. The policy that it was to replace was deleted and restored") from error


def _check(plan: Plan, after: Policy | None, result: Document) -> None:
    """`PolicyFailed` where what is there now is not what was declared."""
    wanted, found = _flat(plan.declared), _flat(after or {})
    missed = [f"{key} is {found.get(key)}" for key, value in wanted.items() if found.get(key) != value]
    if plan.wanted is None:
        missed = ["it is there again"] if after is not None else []
    if missed:
        done = {"changed": True, "operation": plan.operation, "changes": plan.changes(), "policy": _shown(after)}
        raise PolicyFailed(
            f"{describe(plan.declared)} is not as declared after it was {plan.operation}: {', '.join(missed)}; "
            "somebody else may have changed it at the same time",
            {**result, **done},
        )


def _shown(policy: Policy | None) -> Document:
    return {} if policy is None else to_document(policy)


def _flat(policy: Mapping[str, Any]) -> Document:
    """The keys of a document with their paths: `timeouts.established`."""
    document = to_document(policy)
    timeouts = document.pop("timeouts")
    return {**document, **{f"timeouts.{state}": seconds for state, seconds in timeouts.items()}}
