# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan carried out, and a look at what came of it."""

from __future__ import annotations

from .._signals import held
from ..client.entry.diff import Change, differences, patch
from ..client.entry.entry import SETTABLE_STATUS, TCP_FLAGS, Entry, creation, describe, identity
from ..client.entry.labels import NO_LABELS, LabelMap
from ..client.entry.tuple import tuple_of
from ..client.errors import ConntrackError, Exists, KernelError, NotFound, ResultUnknown, Unsupported, retry_if_unknown
from ..client.table import LABELS_NEED_A_RULE, Table
from .plan import (
    CannotReconcile,
    Plan,
    ProjectedTable,
    check_room,
    desired_entry,
    is_exactly_translated,
    is_translated,
    read_back,
    recreation,
)

#: Keys that packets change, maybe before the entry is read back.
_MOVED_BY_PACKETS = ("tcp.state", "sctp.state", "dccp.state", *TCP_FLAGS)

#: The kernel's helpers, and their modules. With the module parameter `ports`, a port follows the name: `ftp-2121`.
_HELPERS = {
    "amanda": "nf_conntrack_amanda",
    "ftp": "nf_conntrack_ftp",
    "irc": "nf_conntrack_irc",
    "netbios-ns": "nf_conntrack_netbios_ns",
    "pptp": "nf_conntrack_pptp",
    "Q.931": "nf_conntrack_h323",
    "RAS": "nf_conntrack_h323",
    "sane": "nf_conntrack_sane",
    "sip": "nf_conntrack_sip",
    "snmp": "nf_conntrack_snmp",
    "snmp_trap": "nf_nat_snmp_basic",
    "tftp": "nf_conntrack_tftp",
}

#: A helper that no request can attach: it is registered for UDP, and is for connections of TCP.
_H245 = "H.245"

GRE = 47
KEYS_NEED_A_HELPER = "Linux translates keys of GRE only in connections that its PPTP helper expects"

#: How often to get ahead of a connection's own packets.
_ATTEMPTS = 3


class StalePlan(ConntrackError):
    """The table is no longer as it was planned for, and nothing was done: plan again."""


def apply(table: Table, plan: Plan, labels: LabelMap = NO_LABELS) -> Entry | None:
    """Carry out a plan and return the entry as it then is, None if it is gone.

    Raises `StalePlan`; `CannotReconcile` where the kernel took less than was declared, or where it
    is not known what it took; any other `KernelError` where nothing was done. An answer that got
    lost is `ResultUnknown` only after a second attempt.
    """
    if plan.operation == "created":
        with held():  # what the kernel did not take in full is deleted again
            return _create(table, desired_entry(plan), labels)
    if plan.operation == "updated":
        return _update(table, plan, labels)
    if plan.operation == "replaced":
        with held():
            return _replace(table, plan, labels)
    if plan.operation == "deleted":
        _delete_as_planned(table, plan)
        return None
    return plan.actual


def delete(table: Table, entry: Entry) -> bool:
    """Delete the entry that was read; False if it was gone, or another in its place."""

    def is_gone() -> bool:
        there = ProjectedTable(table).get(entry)
        return there is None or there.get("id") != entry.get("id")

    try:
        retry_if_unknown(lambda: table.delete(entry), is_gone)
    except NotFound:
        return False
    return True


def _delete_as_planned(table: Table, plan: Plan) -> None:
    if not delete(table, plan.actual or {}):
        raise StalePlan(f"{describe(plan.declared)} was deleted and created again by another process at each attempt")


def _create(table: Table, wanted: Entry, labels: LabelMap) -> Entry:
    certain = True  # that the entry which is there then is ours

    def is_there() -> bool:
        nonlocal certain
        certain = ProjectedTable(table).get(wanted) is None
        return not certain

    try:
        retry_if_unknown(lambda: table.create(wanted), is_there)
    except Exists as error:
        view = ProjectedTable(table)
        if view.get(wanted) is None:
            check_room(view, creation(wanted))  # names who came first, if still there
            if is_translated(wanted) and not is_exactly_translated(wanted):
                raise error.with_hint(
                    "Perhaps all that nat lets the kernel choose from is taken: let it have more addresses or ports"
                ) from None
        raise StalePlan(str(error)) from error
    except Unsupported as error:
        if "helper" not in wanted:
            raise
        raise error.with_hint(_about_helper(wanted["helper"])) from None
    try:
        found = read_back(table, wanted)
    except KernelError as error:
        raise CannotReconcile(f"{describe(wanted)} was created, but not read back. {error}", "created") from error
    return settle_created(table, wanted, found, labels, certain)


def _about_helper(name: str) -> str:
    """What to do if the kernel has no helper of this name for an entry."""
    if name == _H245:
        return f"The kernel attaches the helper {name!r} only to the connections that its helper 'Q.931' expects"
    known, _hyphen, port = name.rpartition("-")
    module = _HELPERS.get(known if port.isdecimal() else name)
    if module is None:
        return f"The kernel has no helper {name!r}; write one of {', '.join(_HELPERS)}"
    return f"Perhaps there is no helper {name!r} for this protocol: load its module {module}"


def settle_created(table: Table, wanted: Entry, found: Entry | None, labels: LabelMap, certain: bool = True) -> Entry:
    """What was `found` where an entry was created, if it is as wanted.

    If not, it is deleted again where it is `certain` that it is ours. Raises `CannotReconcile`.
    """
    if found is None:
        raise CannotReconcile(f"{describe(wanted)} was created and is gone again already", "created")
    if _is_bare(found, wanted):
        missed = f"the protocol, which it does not track: there is {describe(found)}"
    elif identity(found) != identity(wanted):
        raise CannotReconcile(
            f"{describe(wanted)} was created, but not read back: {describe(found)} hides it from view", "created"
        )
    else:
        changes = _missed(wanted, found, labels)
        missed = _explain(changes)
        if wanted.get("original.protocol") == GRE and any(change.key.startswith("nat.") for change in changes):
            missed += f". {KEYS_NEED_A_HELPER}"
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
        sentence += f". {LABELS_NEED_A_RULE}"
    return sentence


def _update(table: Table, plan: Plan, labels: LabelMap) -> Entry:
    request = patch(plan.changes, plan.declared, plan.actual or {})
    error: KernelError | None = None
    try:
        retry_if_unknown(lambda: table.update(request), lambda: False)  # made twice it is the same
    except NotFound as gone:
        raise StalePlan(str(gone)) from gone
    except KernelError as caught:
        error = caught
    try:
        found = ProjectedTable(table).get(plan.declared)
    except KernelError as unread:
        sentence = f"{describe(plan.declared)} was changed" if error is None else f"{error}. It may be changed in part"
        raise CannotReconcile(f"{sentence}, but it was not read back. {unread}", "updated", plan.changes) from unread
    return settle_updated(plan, found, labels, error)


def settle_updated(plan: Plan, found: Entry | None, labels: LabelMap, error: KernelError | None = None) -> Entry:
    """What was `found` after an update that ended with `error`, if it is as declared.

    Raises `CannotReconcile`, with what was changed all the same; `StalePlan` where the entry vanished.
    """
    if found is None:
        if error is not None and not isinstance(error, ResultUnknown):
            raise StalePlan(str(error)) from error
        raise CannotReconcile(f"{describe(plan.declared)} vanished while it was changed", "updated")
    missed = _missed(plan.declared, found, labels)
    if not missed and (error is None or isinstance(error, ResultUnknown)):
        return found
    left = {change.key for change in differences(plan.declared, found, labels)}
    done = [change for change in plan.changes if change.key not in left and not _is_counting_on(change, found)]
    if error is not None:
        sentence = str(error)
    else:
        sentence = f"{describe(plan.declared)}: the kernel did not take {_explain(missed)}"
    if done:
        sentence += f". Changed all the same: {', '.join(change.key for change in done)}"
    raise CannotReconcile(sentence, "updated" if done else "unchanged", done) from error


def _is_counting_on(change: Change, found: Entry) -> bool:
    """Whether this is a new countdown that was not set: the old one only falls."""
    return change.key == "timeout" and found.get("timeout", 0) <= change.before


def _replace(table: Table, plan: Plan, labels: LabelMap) -> Entry:
    wanted, old = desired_entry(plan), recreation(plan.actual or {})
    _delete_as_planned(table, plan)
    try:
        return _create_first(table, wanted, labels)
    except ConntrackError as error:
        if isinstance(error, CannotReconcile) and error.operation == "created":
            raise CannotReconcile(str(error), "replaced", plan.changes) from error
        try:
            retry_if_unknown(lambda: table.create(old), lambda: ProjectedTable(table).get(old) is not None)
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
        except StalePlan:
            newcomer = ProjectedTable(table).get(wanted)
            if newcomer is not None:
                delete(table, newcomer)
    return _create(table, wanted, labels)
