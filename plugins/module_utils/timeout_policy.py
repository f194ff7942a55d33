# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Timeout policies, and the protocols' defaults, as declared."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Mapping, NamedTuple

from .client import timeout_policy, uapi, values
from .client.errors import Busy, ConntrackError, InvalidValue, KernelError, NotFound
from .client.table import Table
from .client.timeout_policy import Policy, describe, parse, present, timeouts_of
from .failure import Failed

if TYPE_CHECKING:
    from .client.document import Document

_IN_USE = "a rule uses it; remove that rule first (such as -j CT --timeout in the table raw of iptables)"


class PolicyFailed(Failed):
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
        part = present({key: policy[key] for key in keys if key in policy and key != "use"})
        part["timeouts"] = dict(sorted(part["timeouts"].items()))
        return part


def declared_policy(params: Mapping[str, Any]) -> Policy:
    """The policy that a module's parameters declare; `InvalidValue` for what cannot be."""
    if params["default"] and params["name"] is not None:
        raise InvalidValue("default", "name is given too; write one of them")
    if not params["default"] and params["name"] is None:
        raise InvalidValue("name", "is missing; write the name of a policy, or default: true for a protocol's defaults")
    declared = parse(params)
    if params["state"] == "absent":
        if "name" not in declared:
            raise InvalidValue("state", "a protocol's defaults cannot be absent; declare the timeouts they shall have")
        return {"name": declared["name"]}
    if "protocol" not in declared:
        raise InvalidValue("protocol", "is missing; write the one whose states are meant")
    if not timeouts_of(declared):
        raise InvalidValue("timeouts", "names no state; write at least one and its seconds")
    if "name" not in declared:
        declared.pop("family", None)  # the defaults are of both families
    elif "family" not in declared:
        raise InvalidValue("family", "is missing; write ipv4 or ipv6, a policy is of one of them")
    else:
        _check_family(declared)
    return declared


_ONE_FAMILY = {uapi.IPPROTO_ICMP: values.AF_INET, uapi.IPPROTO_ICMPV6: values.AF_INET6}


def _check_family(declared: Policy) -> None:
    """The kernel would take a policy that no connection can ever have."""
    family = _ONE_FAMILY.get(declared["protocol"])
    if family is not None and declared["family"] != family:
        name = timeout_policy.FAMILY.present(family)
        raise InvalidValue("family", f"{timeout_policy.PROTOCOL.present(declared['protocol'])} is of {name} only")


def reconcile(table: Table, declared: Policy, state: str, replace: bool, check_mode: bool) -> Document:
    """Make a policy, or the defaults where none is named, be as declared.

    Returns what was done in the form of a module's result, and raises `PolicyFailed` with the same.
    """
    before: Policy | None = None
    result: Document = {"changed": False, "operation": "unchanged", "changes": []}
    try:
        before = _actual(table, declared)
        plan = _plan(table, declared, before, state, replace)
        if not check_mode:
            _apply(table, plan)
        after = plan.wanted if check_mode else _actual(table, declared)
        if not check_mode:
            _check(plan, after, result)
    except ConntrackError as error:
        after = before
        with contextlib.suppress(ConntrackError):
            after = _actual(table, declared)
        known = {"before": _shown(before), "policy": _shown(after)}
        raise PolicyFailed(str(error), {**known, **result, **getattr(error, "result", {})}) from error
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
        table.ask(f"creating {about}", timeout_policy.create(wanted))
    elif plan.operation == "updated" and "name" in plan.declared:
        # The whole of it: the kernel sets a state that is left out back to its default
        table.ask(f"updating {about}", timeout_policy.replace(wanted))
    elif plan.operation == "updated":
        table.ask(f"setting the {about}", timeout_policy.set_defaults(plan.declared))
    elif plan.operation == "deleted":
        _delete(table, plan.actual or {})
    elif plan.operation == "replaced":
        _replace(table, plan)


def _delete(table: Table, policy: Policy) -> None:
    try:
        table.ask(f"deleting {describe(policy)}", timeout_policy.delete(policy["name"]))
    except NotFound:
        return  # by somebody else, meanwhile
    except Busy:
        raise PolicyFailed(f"{describe(policy)} cannot be deleted: {_IN_USE}") from None


def _replace(table: Table, plan: Plan) -> None:
    old, about = plan.actual or {}, describe(plan.declared)
    _delete(table, old)
    try:
        table.ask(f"creating {about}", timeout_policy.create(plan.wanted or {}))
    except KernelError as error:
        try:
            table.ask(f"restoring {describe(old)}", timeout_policy.create(old))
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
    return {} if policy is None else present(policy)


def _flat(policy: Mapping[str, Any]) -> Document:
    """The keys of a document with their paths: `timeouts.established`."""
    document = present(policy)
    timeouts = document.pop("timeouts")
    return {**document, **{f"timeouts.{state}": seconds for state, seconds in timeouts.items()}}
