# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declared against actual: a plan, its application, and a look at what came of it.

Check mode, diff, report and the change itself all come from the one plan. What the plan cannot
foresee, because only the kernel knows (whether it has a helper of that name, whether a rule uses
labels), is found when the result is read back.
"""

from __future__ import annotations

import copy
import functools
from typing import Callable, NamedTuple, Sequence

from .client import uapi
from .client.difference import Change, completed, differences, impossible, obstacles, outcome, patch
from .client.document import Document, likewise, put
from .client.entry import (
    DEFAULT_TIMEOUT,
    SETTABLE_STATUS,
    Entry,
    check_states,
    creation,
    describe,
    identity,
    tuple_of,
)
from .client.errors import (
    ConntrackError,
    Exists,
    InvalidValue,
    KernelError,
    NotFound,
    ResultUnknown,
    TableFull,
    Unsupported,
)
from .client.labels import LabelMap
from .client.shape import present, restated
from .client.table import Table
from .failure import Failed

_NO_LABELS = LabelMap()

_LABELS_NEED_A_RULE = (
    "Labels are kept only where a rule in the network namespace uses them: add one, such as "
    "'ct label set' in nftables or '-m connlabel' in iptables"
)

#: Keys of the moment or of the kernel's own; no diff shows them.
_OF_THE_MOMENT = ("counters", "timestamps", "security_context", "id", "use", "extra")
#: Keys that packets change, maybe before the entry is read back.
_MOVED_BY_PACKETS = ("tcp.state", "sctp.state", "dccp.state")

#: How often to plan anew, or to get ahead of a connection's own packets.
_ATTEMPTS = 3


class CannotReconcile(Failed):
    """The declaration cannot be brought about.

    `operation` is what has been done all the same, `done` which changes are in force, `result` both
    in the form of a module's.
    """

    def __init__(
        self,
        sentence: str,
        operation: str = "unchanged",
        done: Sequence[Change] = (),
        result: Document | None = None,
    ) -> None:
        super().__init__(sentence, result)
        self.operation = operation
        self.done = list(done)


class Overtaken(ConntrackError):
    """The table is no longer as it was planned for, and nothing was done: plan again."""


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
            actual = self.actual or {}
            entry = {**actual, **patch(self.changes, self.declared, actual)}
            entry.update((change.key, outcome(change.key, self.declared, actual)) for change in self.changes)
            entry.pop("mark_mask", None)
            if not entry.get("helper"):
                entry.pop("helper", None)
            return entry
        entry = {key: value for key, value in creation(_whole(self)).items() if not _is_of_the_moment(key)}
        entry["status"] = entry.get("status", 0) | uapi.IPS_CONFIRMED
        if "master.source" in entry:
            entry["status"] |= uapi.IPS_EXPECTED
        if any(key.startswith("nat.") for key in entry):
            entry = {k: v for k, v in entry.items() if not k.startswith("reply.") or k == "reply.zone"}
        return entry


def _is_of_the_moment(key: str) -> bool:
    return key.partition(".")[0] in _OF_THE_MOMENT


def reconcile(table: Table, declared: Entry, policy: Policy, labels: LabelMap, check_mode: bool) -> Document:
    """Make one entry be as declared and return what was done, in the form of a module's result.

    Raises `CannotReconcile`, with what was done all the same as its `result`.
    """
    tried: Plan | None = None
    try:
        for attempts_left in reversed(range(_ATTEMPTS)):
            tried = None
            if policy.state == "absent":
                plan = plan_absent(table, declared)
            else:
                plan = plan_present(table, declared, policy, labels)
            tried = plan
            try:
                entry = plan.foreseen() if check_mode else apply(table, plan, labels)
                break
            except Overtaken:
                if not attempts_left:
                    raise
    except ConntrackError as error:
        raise _failure(error, table, declared, tried, labels) from error
    return {
        "changed": plan.changed,
        "operation": plan.operation,
        "before": present_or_empty(plan.actual, labels),
        "entry": present_or_empty(entry, labels),
        "changes": [change.as_document() for change in plan.changes],
        "diff": diff_of(plan, labels),
    }


def _failure(
    error: ConntrackError, table: Table, declared: Entry, plan: Plan | None, labels: LabelMap
) -> CannotReconcile:
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
    try:
        result["entry"] = present_or_empty(_find(table, declared), labels)
    except ConntrackError:
        if plan is None:
            return CannotReconcile(str(error), operation, done, result)
    before = result["entry"] if plan is None else present_or_empty(plan.actual, labels)
    return CannotReconcile(str(error), operation, done, {"before": before, **result})


def plan_absent(table: Table, declared: Entry) -> Plan:
    """The plan after which there is no entry with the identity of `declared`."""
    actual = _find(table, declared)
    return Plan("deleted" if actual is not None else "unchanged", declared, actual, [])


def plan_present(table: Table, declared: Entry, policy: Policy, labels: LabelMap = _NO_LABELS) -> Plan:
    """The plan after which the entry is there as declared.

    Raises `CannotReconcile` where that is known to be impossible, or against `policy`.
    """
    check_refreshment(declared, policy)
    check_states(declared)
    actual = _find(table, declared)
    if actual is None:
        return _possible(table, Plan("created", declared, None, []))
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
    return _possible(table, Plan("replaced", declared, actual, changes))


def _possible(table: Table, plan: Plan) -> Plan:
    """The plan to create an entry, if nothing that can be known now is against it."""
    wanted = creation(_whole(plan))
    reasons = "; ".join(f"{key}: {reason}" for key, reason in impossible(wanted).items())
    if reasons:
        raise CannotReconcile(f"{describe(wanted)} cannot be created ({reasons})")
    _check_room(table, wanted, plan.actual)
    return plan


def _find(table: Table, declared: Entry) -> Entry | None:
    try:
        return _read_back(table.get, declared)
    except NotFound:
        return None


def check_refreshment(declared: Entry, policy: Policy) -> None:
    if not policy.timeout_min:
        return
    if "timeout" not in declared:
        raise InvalidValue("timeout_min", "there is no timeout to set; write timeout too")
    if policy.timeout_min > declared["timeout"]:
        raise InvalidValue(
            "timeout_min",
            f"{policy.timeout_min} is above the timeout, which would be set on every run; "
            f"write {declared['timeout']} or less",
        )


def _refreshment(declared: Entry, actual: Entry, policy: Policy) -> list[Change]:
    """A new countdown, where one is declared and fewer seconds remain than `timeout_min`."""
    remaining = actual.get("timeout")
    if "timeout" not in declared or remaining is None or remaining >= policy.timeout_min:
        return []
    return [Change("timeout", remaining, declared["timeout"])]


def _check_room(table: Table, wanted: Entry, but: Entry | None = None) -> None:
    """Neither tuple may be taken, in any direction, and a master must be there.

    The entry `but` is about to go and takes no room.
    """
    directions = ["original"]
    if not any(key.startswith("nat.") for key in wanted):
        directions.append("reply")
    for direction in directions:
        try:
            holder = _read_back(functools.partial(table.holder, direction=direction), wanted)
        except NotFound:
            continue
        if (but is not None and identity(holder) == identity(but)) or not _collide(wanted, holder, direction):
            continue
        raise CannotReconcile(
            f"{describe(wanted)} cannot be created: its {direction} tuple is taken by "
            f"{describe(holder)}; delete that entry first if it is stale"
        )
    if "master.source" in wanted:
        try:
            table.holder(wanted, "master")
        except NotFound:
            raise CannotReconcile(
                f"{describe(wanted)} cannot be created: there is no entry with the tuple of "
                "its master in its zone; create the master first"
            ) from None


def _collide(wanted: Entry, holder: Entry, direction: str) -> bool:
    """Whether the kernel keeps the two apart by a zone that one of their directions is in."""
    if not any(key in entry for key in ("original.zone", "reply.zone") for entry in (wanted, holder)):
        return True
    # For the original tuple it looks in the zones of both directions, for the reply in the one of that
    own = ("original", "reply") if direction == "original" else ("reply",)
    zones = {_zone_of(wanted, other) for other in own}
    return any(
        tuple_of(holder, other) == tuple_of(wanted, direction)
        and _zone_of(holder, other) == _zone_of(wanted, other)
        and _zone_of(holder, other) in zones
        for other in ("original", "reply")
    )


def _zone_of(entry: Entry, direction: str) -> int:
    zone: int = entry.get(f"{direction}.zone") or entry.get("zone") or 0
    return zone


def apply(table: Table, plan: Plan, labels: LabelMap = _NO_LABELS) -> Entry | None:
    """Carry out a plan and return the entry as it then is, None if it is gone.

    Raises `Overtaken`; `CannotReconcile` where the kernel took less than was declared, or where it
    is not known what it took; any other `KernelError` where nothing was done. An answer that got
    lost is `ResultUnknown` only after a second attempt.
    """
    if plan.operation == "created":
        return _create(table, _whole(plan), labels)
    if plan.operation == "updated":
        return _update(table, plan, labels)
    if plan.operation == "replaced":
        return _replace(table, plan, labels)
    if plan.operation == "deleted":
        _delete_as_planned(table, plan)
        return None
    return plan.actual


def surely(change: Callable[[], None], carried_out: Callable[[], bool]) -> None:
    """Make a change. If the answer gets lost, look whether it was made, and if not try once more."""
    try:
        change()
    except ResultUnknown:
        if not carried_out():
            change()


def delete(table: Table, entry: Entry) -> bool:
    """Delete the entry that was read; False if it was gone, or another in its place."""

    def is_gone() -> bool:
        there = _find(table, entry)
        return there is None or there.get("id") != entry.get("id")

    try:
        surely(lambda: table.delete(entry), is_gone)
    except NotFound:
        return False
    return True


def _delete_as_planned(table: Table, plan: Plan) -> None:
    if not delete(table, plan.actual or {}):
        raise Overtaken(f"{describe(plan.declared)} was deleted by someone else, and again and again made anew")


def _create(table: Table, wanted: Entry, labels: LabelMap) -> Entry:
    certain = True  # that the entry which is there then is ours

    def is_there() -> bool:
        nonlocal certain
        certain = _find(table, wanted) is None
        return not certain

    try:
        surely(lambda: table.create(wanted), is_there)
    except Exists as error:
        if _find(table, wanted) is None:
            _check_room(table, wanted)  # names who came first, if still there
        raise Overtaken(str(error)) from error
    except Unsupported as error:
        if "helper" not in wanted:
            raise
        name = wanted["helper"]
        raise error.advised(
            f"Perhaps there is no helper {name!r} for this protocol: load its module, such as nf_conntrack_{name}"
        ) from None
    try:
        found = _read_back(table.holder, wanted)
    except NotFound:
        raise CannotReconcile(f"{describe(wanted)} was created and is gone again already", "created") from None
    except KernelError as error:
        raise CannotReconcile(f"{describe(wanted)} was created, but not read back. {error}", "created") from error
    if _is_bare(found, wanted):
        missed = f"the protocol, which it does not track: there is {describe(found)}"
    elif identity(found) != identity(wanted):
        raise CannotReconcile(
            f"{describe(wanted)} was created, but not read back: {describe(found)} hides it from view", "created"
        )
    else:
        missed = _explain(_missed(wanted, found, labels))
    if missed:
        _undo(table, wanted, found if certain else None, missed)
    return found


def _is_bare(found: Entry, wanted: Entry) -> bool:
    """Whether an entry has the addresses and the protocol of another and nothing that tells its flows apart."""
    ends = ("source", "destination", "protocol")
    there, asked = tuple_of(found, "original"), tuple_of(wanted, "original")
    return set(there) == set(ends) != set(asked) and all(there[end] == asked[end] for end in ends)


def _undo(table: Table, wanted: Entry, found: Entry | None, missed: str) -> None:
    """Delete an entry that is not as declared, unless it may be someone else's."""
    try:
        if found is not None:
            delete(table, found)
            raise CannotReconcile(f"{describe(wanted)} was not created: the kernel did not take {missed}")
        reason = ""
    except KernelError as error:
        reason = f". Deleting it again failed. {error}"
    raise CannotReconcile(f"{describe(wanted)} is there, but the kernel did not take {missed}{reason}", "created")


def _read_back(read: Callable[[Entry], Entry], entry: Entry) -> Entry:
    """Read an entry, and once more if the answer gets lost: reading changes nothing."""
    try:
        return read(entry)
    except ResultUnknown:
        return read(entry)


def _missed(declared: Entry, found: Entry, labels: LabelMap) -> list[Change]:
    """What the kernel did not take, apart from what a packet may have changed since."""
    return [
        change
        for change in differences(declared, found, labels)
        if change.key not in _MOVED_BY_PACKETS
        and (change.key != "status" or declared["status"] & ~found.get("status", 0) & SETTABLE_STATUS)
    ]


def _explain(missed: list[Change]) -> str:
    """The keys that did not take, with the reason for a loss that the kernel is silent on; "" for none."""
    sentence = ", ".join(f"{change.key} (it is {change.before!r})" for change in missed)
    if any(change.key == "labels" for change in missed):
        sentence += f". {_LABELS_NEED_A_RULE}"
    return sentence


def _update(table: Table, plan: Plan, labels: LabelMap) -> Entry:
    request = patch(plan.changes, plan.declared, plan.actual or {})
    error: KernelError | None = None
    try:
        surely(lambda: table.update(request), lambda: False)  # made twice it is the same
    except NotFound as gone:
        raise Overtaken(str(gone)) from gone
    except KernelError as caught:
        error = caught
    try:
        found = _read_back(table.get, plan.declared)
    except NotFound:
        if error is not None and not isinstance(error, ResultUnknown):
            raise Overtaken(str(error)) from error
        raise CannotReconcile(f"{describe(plan.declared)} vanished while it was changed", "updated") from None
    except KernelError as unread:
        sentence = f"{describe(plan.declared)} was changed" if error is None else f"{error}. It may be changed in part"
        raise CannotReconcile(f"{sentence}, but it was not read back. {unread}", "updated", plan.changes) from unread
    missed = _missed(plan.declared, found, labels)
    if not missed and (error is None or isinstance(error, ResultUnknown)):
        return found
    left = {change.key for change in differences(plan.declared, found, labels)}
    done = [change for change in plan.changes if change.key not in left and not _is_counting_on(change, found)]
    if isinstance(error, TableFull) and "labels" in left:
        sentence = str(error.advised(_LABELS_NEED_A_RULE))
    elif error is not None:
        sentence = str(error)
    else:
        sentence = f"{describe(plan.declared)}: the kernel did not take {_explain(missed)}"
    if done:
        sentence += f". Changed all the same: {', '.join(change.key for change in done)}"
    raise CannotReconcile(sentence, "updated" if done else "unchanged", done) from error


def _is_counting_on(change: Change, found: Entry) -> bool:
    """Whether this is a new countdown that was not set: the old one only falls."""
    return change.key == "timeout" and found.get("timeout", 0) <= change.before


def _whole(plan: Plan) -> Entry:
    """The declaration with all that a new entry takes; a replacement keeps what it leaves open."""
    whole = dict(plan.declared)
    kept: Entry = {}
    if plan.operation == "replaced" and plan.actual is not None:
        kept = _anew(plan.actual)
        for groups in (("nat.", "reply."), ("master.",)):
            if any(key.startswith(groups) for key in whole):
                kept = {key: value for key, value in kept.items() if not key.startswith(groups)}
    if "mark_mask" in whole:
        whole["mark"] |= kept.get("mark", 0) & ~whole.pop("mark_mask")
    return completed({**kept, **whole})


def _anew(entry: Entry) -> Entry:
    """An entry that was read, as the declaration by which it is created again."""
    declared = {key: value for key, value in restated(entry).items() if not _is_of_the_moment(key)}
    # An offloaded entry shows no countdown, and one that ends at once could not be created
    declared["timeout"] = max(1, declared.get("timeout", DEFAULT_TIMEOUT))
    return declared


def _replace(table: Table, plan: Plan, labels: LabelMap) -> Entry:
    whole, old = _whole(plan), _anew(plan.actual or {})
    _delete_as_planned(table, plan)
    try:
        return _create_first(table, whole, labels)
    except ConntrackError as error:
        if isinstance(error, CannotReconcile) and error.operation == "created":
            raise CannotReconcile(str(error), "replaced", plan.changes) from error
        try:
            surely(lambda: table.create(old), lambda: _find(table, old) is not None)
        except KernelError as second:
            raise CannotReconcile(
                f"{error}; the entry it was to replace is deleted and could not be restored: {second}", "deleted"
            ) from error
        raise CannotReconcile(f"{error}; the entry it was to replace was deleted and restored", "replaced") from error


def _create_first(table: Table, wanted: Entry, labels: LabelMap) -> Entry:
    """Create an entry before a packet of the connection does, deleting the one that it has made."""
    for _attempt in range(_ATTEMPTS - 1):
        try:
            return _create(table, wanted, labels)
        except Overtaken:
            newcomer = _find(table, wanted)
            if newcomer is not None:
                delete(table, newcomer)
    return _create(table, wanted, labels)


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
    before = likewise(present(plan.actual, labels), declared) if plan.actual is not None else {}
    if plan.operation == "deleted":
        return {"before": before, "after": {}}
    if plan.operation == "created":
        return {"before": before, "after": declared}
    after = copy.deepcopy(before)
    for change in plan.changes:
        if change.before is not None:  # some bits of a mark, where no more are declared
            put(before, change.key, change.before)
        put(after, change.key, change.after)
    return {"before": before, "after": after}
