# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declared against actual: a plan, its application, and a look at what came of it.

Check mode, diff, report and the change itself all come from the one plan. What the plan cannot
foresee, because only the kernel knows (whether it has a helper of that name, whether a rule uses
labels), is found when the result is read back.
"""

from __future__ import annotations

import copy
from typing import Any, Mapping, NamedTuple, Sequence

from .client.difference import Change, differences, obstacles, outcome, patch
from .client.entry import Entry, creation, describe, identity
from .client.errors import ConntrackError, Exists, KernelError, NotFound, ResultUnknown, TableFull, Unsupported
from .client.labels import LabelMap
from .client.shape import Document, present, restated
from .client.table import Table

_NO_LABELS = LabelMap()

_LABELS_NEED_A_RULE = (
    "Labels are kept only where a rule in the network namespace uses them: add one, such as "
    "'ct label set' in nftables or '-m connlabel' in iptables"
)

#: Keys of the moment or of the kernel's own; no diff shows them.
_OF_THE_MOMENT = ("counters", "timestamps", "security_context", "id", "use", "extra")


class CannotReconcile(ConntrackError):
    """The declaration cannot be brought about.

    `done` is what has been changed all the same, `result` the same in the form of a module's.
    """

    def __init__(self, sentence: str, done: Sequence[Change] = (), result: Document | None = None) -> None:
        super().__init__(sentence)
        self.done = list(done)
        self.result = result or {}


class Policy(NamedTuple):
    """Whether an entry is to be there, and how far to go where it is there already."""

    state: str = "present"
    on_existing: str = "update"
    replace: bool = False
    timeout_min: int = 0


class Plan(NamedTuple):
    """What is to be done about one entry.

    `operation` is created, updated, replaced, deleted or unchanged; `actual` the entry as it was
    read, `changes` what differs.
    """

    operation: str
    declared: Entry
    actual: Entry | None
    changes: list[Change]

    @property
    def changed(self) -> bool:
        return self.operation != "unchanged"

    def foreseen(self) -> Entry | None:
        """The entry as it will be."""
        if self.operation == "deleted":
            return None
        if self.operation == "unchanged":
            return self.actual
        if self.operation == "updated":
            assert self.actual is not None
            changed = {key: outcome(key, self.declared, self.actual) for key in _only(self.declared, self.changes)}
            return {**self.actual, **changed}
        entry = creation(_whole(self))
        entry.pop("mark_mask", None)
        if any(key.startswith("nat.") for key in entry):
            entry = {key: value for key, value in entry.items() if not key.startswith("reply.")}
        return entry


def _only(declared: Mapping[str, Any], changes: list[Change]) -> Entry:
    """The declared values of what changes: `nat.source` stands for all keys below it."""
    keys = [change.key for change in changes]
    return {k: v for k, v in declared.items() if any(k == key or k.startswith(f"{key}.") for key in keys)}


def reconcile(table: Table, declared: Entry, policy: Policy, labels: LabelMap, check_mode: bool) -> Document:
    """Make one entry be as declared and return what was done, in the form of a module's result.

    Raises `CannotReconcile`, once anything was tried with the same form as its `result`.
    """
    result: Document = {"changed": False, "operation": "unchanged", "changes": []}
    done: list[Change] = []
    try:
        if policy.state == "absent":
            plan = plan_absent(table, declared)
        else:
            plan = plan_present(table, declared, policy, labels)
        result["before"] = present_or_empty(plan.actual, labels)
        entry = plan.foreseen() if check_mode else apply(table, plan, labels)
    except ConntrackError as error:
        if isinstance(error, CannotReconcile) and error.done:
            done = error.done
            result.update(changed=True, operation=plan.operation)
        result["changes"] = [change.as_document() for change in done]
        result["entry"] = present_or_empty(_find(table, declared), labels)
        raise CannotReconcile(str(error), done, {"before": result["entry"], **result}) from error
    return {
        "changed": plan.changed,
        "operation": plan.operation,
        "before": result["before"],
        "entry": present_or_empty(entry, labels),
        "changes": [change.as_document() for change in plan.changes],
        "diff": diff_of(plan, labels),
    }


def plan_absent(table: Table, declared: Entry) -> Plan:
    """The plan after which there is no entry with the identity of `declared`."""
    actual = _find(table, declared)
    return Plan("deleted" if actual is not None else "unchanged", declared, actual, [])


def plan_present(table: Table, declared: Entry, policy: Policy, labels: LabelMap = _NO_LABELS) -> Plan:
    """The plan after which the entry is there as declared.

    Raises `CannotReconcile` where that is known to be impossible, or against `policy`.
    """
    actual = _find(table, declared)
    if actual is None:
        creation(declared)
        _check_room(table, declared)
        return Plan("created", declared, None, [])
    if policy.on_existing == "keep":
        return Plan("unchanged", declared, actual, [])
    changes = differences(declared, actual, labels) + _refreshment(declared, actual, policy)
    if not changes:
        return Plan("unchanged", declared, actual, [])
    if policy.on_existing == "fail":
        keys = ", ".join(change.key for change in changes)
        raise CannotReconcile(
            f"{describe(actual)} is there already and differs in {keys}; set on_existing to update to change it"
        )
    hindered = obstacles(changes, declared, actual)
    if not hindered:
        return Plan("updated", declared, actual, changes)
    if not policy.replace:
        reasons = "; ".join(f"{key}: {reason}" for key, reason in hindered.items())
        raise CannotReconcile(
            f"{describe(actual)} cannot be changed in place ({reasons}); set replace to true to "
            "delete it and create it again, which interrupts the connection"
        )
    return Plan("replaced", declared, actual, changes)


def _find(table: Table, declared: Entry) -> Entry | None:
    try:
        return table.get(declared)
    except NotFound:
        return None


def _refreshment(declared: Entry, actual: Entry, policy: Policy) -> list[Change]:
    """A new countdown, where one is declared and fewer seconds remain than `timeout_min`."""
    remaining = actual.get("timeout")
    if "timeout" not in declared or remaining is None or remaining >= policy.timeout_min:
        return []
    return [Change("timeout", remaining, declared["timeout"])]


def _check_room(table: Table, declared: Entry) -> None:
    """Neither tuple may be taken, in any direction, and a master must be there."""
    directions = ["original"]
    if not any(key.startswith("nat.") for key in declared):
        directions.append("reply")
    wanted = creation(declared)
    for direction in directions:
        try:
            holder = table.holder(wanted, direction)
        except NotFound:
            continue
        raise CannotReconcile(
            f"{describe(declared)} cannot be created: its {direction} tuple is taken by "
            f"{describe(holder)}; delete that entry first if it is stale"
        )
    if "master.source" in declared:
        try:
            table.holder(wanted, "master")
        except NotFound:
            raise CannotReconcile(
                f"{describe(declared)} cannot be created: there is no entry with the tuple of "
                "its master in its zone; create the master first"
            ) from None


def apply(table: Table, plan: Plan, labels: LabelMap = _NO_LABELS) -> Entry | None:
    """Carry out a plan and return the entry as it then is, None if it is gone.

    Raises `KernelError`, or `CannotReconcile` where the kernel took less than was declared; both
    say whether anything was changed.
    """
    if plan.operation == "created":
        return _create(table, plan.declared, labels)
    if plan.operation == "updated":
        return _update(table, plan, labels)
    if plan.operation == "replaced":
        return _replace(table, plan, labels)
    if plan.operation == "deleted":
        delete(table, plan.actual or {})
        return None
    return plan.actual


def delete(table: Table, entry: Entry) -> bool:
    """Delete the entry that was read; False if it was gone, or another in its place."""
    try:
        table.delete(entry)
    except NotFound:
        return False
    except ResultUnknown:
        try:
            return table.get(entry).get("id") != entry.get("id")
        except NotFound:
            return True
    return True


def _create(table: Table, declared: Entry, labels: LabelMap) -> Entry:
    try:
        table.create(declared)
    except ResultUnknown:
        pass  # reading it back tells
    except Exists:
        _check_room(table, declared)  # names who came first, if still there
        raise
    except Unsupported as error:
        if "helper" not in declared:
            raise
        name = declared["helper"]
        raise error.advised(
            f"Perhaps there is no helper {name!r} for this protocol: load its module, such as nf_conntrack_{name}"
        ) from None
    try:
        found = table.holder(declared)
    except NotFound:
        raise CannotReconcile(f"{describe(declared)} was created and is gone again already") from None
    if identity(found) != identity(declared):
        delete(table, found)
        raise CannotReconcile(
            f"{describe(declared)}: this kernel does not track the protocol and kept only "
            f"{describe(found)}; nothing was created"
        )
    missed = differences(declared, found, labels)
    if missed:
        delete(table, found)
        raise CannotReconcile(f"{describe(declared)} was not created: the kernel did not take {_explain(missed)}")
    return found


def _explain(missed: list[Change]) -> str:
    """The keys that did not take, with the known reason for a loss that the kernel is silent on."""
    sentence = ", ".join(f"{change.key} (it is {change.before!r})" for change in missed)
    if any(change.key == "labels" for change in missed):
        sentence += f". {_LABELS_NEED_A_RULE}"
    return sentence


def _update(table: Table, plan: Plan, labels: LabelMap) -> Entry:
    actual = plan.actual or {}
    error: KernelError | None = None
    try:
        table.update(patch(plan.changes, plan.declared, actual))
    except KernelError as caught:
        error = caught
    try:
        found = table.get(plan.declared)
    except NotFound:
        raise error or CannotReconcile(f"{describe(plan.declared)} vanished while it was changed") from None
    missed = differences(plan.declared, found, labels)
    if not missed and (error is None or isinstance(error, ResultUnknown)):
        return found
    left = {change.key for change in missed}
    done = [change for change in plan.changes if change.key not in left and change.key != "timeout"]
    if isinstance(error, TableFull) and "labels" in left:
        sentence = str(error.advised(_LABELS_NEED_A_RULE))
    elif error is not None:
        sentence = str(error)
    else:
        sentence = f"{describe(plan.declared)}: the kernel did not take {_explain(missed)}"
    if done:
        sentence += f". Changed all the same: {', '.join(change.key for change in done)}"
    raise CannotReconcile(sentence, done) from error


def _whole(plan: Plan) -> Entry:
    """The declaration, and for a replacement what it leaves open as the entry had it."""
    if plan.operation != "replaced" or plan.actual is None:
        return plan.declared
    kept = restated(plan.actual)
    for groups in (("nat.", "reply."), ("master.",)):
        if any(key.startswith(groups) for key in plan.declared):
            kept = {key: value for key, value in kept.items() if not key.startswith(groups)}
    whole = {**kept, **plan.declared}
    if "mark_mask" in plan.declared:
        mask = whole.pop("mark_mask")
        whole["mark"] = kept.get("mark", 0) & ~mask | plan.declared["mark"]
    whole["timeout"] = max(1, whole.get("timeout", 0))
    return whole


def _replace(table: Table, plan: Plan, labels: LabelMap) -> Entry:
    actual = plan.actual or {}
    delete(table, actual)
    try:
        return _create(table, _whole(plan), labels)
    except ConntrackError as error:
        old = restated(actual)
        old["timeout"] = max(1, old.get("timeout", 1))
        try:
            table.create(old)
        except KernelError as second:
            raise CannotReconcile(
                f"{error}; the entry it was to replace is deleted and could not be restored: {second}",
                plan.changes,
            ) from error
        raise CannotReconcile(f"{error}; the entry it was to replace was deleted and restored", plan.changes) from error


def present_or_empty(entry: Entry | None, labels: LabelMap = _NO_LABELS) -> Document:
    """The entry's document, empty for none."""
    return {} if entry is None else present(entry, labels)


def diff_of(plan: Plan, labels: LabelMap = _NO_LABELS) -> Document:
    """`{"before": …, "after": …}` with the declared keys alone, and no countdowns."""
    declared = present(plan.declared, labels)
    for key in _OF_THE_MOMENT:
        declared.pop(key, None)
    counting = not any(change.key == "timeout" for change in plan.changes)
    if plan.actual is not None and counting:
        declared.pop("timeout", None)
    before = _likewise(present(plan.actual, labels), declared) if plan.actual is not None else {}
    if plan.operation == "deleted":
        return {"before": before, "after": {}}
    if plan.operation == "created":
        return {"before": before, "after": declared}
    after = copy.deepcopy(before)
    for change in plan.changes:
        *steps, last = change.key.split(".")
        below = after
        for step in steps:
            below = below.setdefault(step, {})
        below[last] = change.after
    return {"before": before, "after": after}


def _likewise(document: Mapping[str, Any], pattern: Mapping[str, Any]) -> Document:
    """The part of `document` that has the keys of `pattern`."""
    part: Document = {}
    for key, value in pattern.items():
        if key in document:
            below = document[key]
            part[key] = _likewise(below, value) if isinstance(value, Mapping) else below
    return part
