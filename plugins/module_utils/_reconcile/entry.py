# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reconcile one entry. `settle_created` and `settle_updated` also check the batches of `entries`."""

from __future__ import annotations

import contextlib

from ..client.codec.attributes import Change
from ..client.entry.creation import SETTABLE_STATUS, TCP_FLAGS, creation
from ..client.entry.diff import differences, patch
from ..client.entry.document import to_document
from ..client.entry.entry import Entry, describe, identity
from ..client.entry.labels import NO_LABELS, LabelMap
from ..client.entry.nested import Document
from ..client.entry.tuple import tuple_of
from ..client.errors import Exists, KernelError, NotFound, ResultUnknown, Unsupported
from ..client.table import LABELS_NEED_A_RULE, Table
from .plan import (
    OF_THE_MOMENT,
    ProjectedTable,
    check_room,
    desired_entry,
    is_exactly_translated,
    is_translated,
    plan_of,
    read_back,
    recreation,
)
from .reconciler import ATTEMPTS, CannotReconcile, Plan, Policy, Reconciler, StalePlan, with_values

#: Keys that packets can change before the entry is read back.
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

#: A helper that no request can attach: it is registered for UDP but serves TCP connections.
_H245 = "H.245"

GRE = 47
KEYS_NEED_A_HELPER = "Linux translates keys of GRE only in connections that its PPTP helper expects"


def reconcile(table: Table, declared: Entry, policy: Policy, labels: LabelMap, check_mode: bool) -> Document:
    """Apply the declaration of one entry and return the module's result. Raises `CannotReconcile`."""
    return EntryReconciler(table, declared, policy, labels).reconcile(check_mode)


class EntryReconciler(Reconciler):
    """One declared entry."""

    key = "entry"
    replaced = "; the entry it was to replace"
    hidden = OF_THE_MOMENT
    client = Table

    def __init__(self, table: Table, declared: Entry, policy: Policy, labels: LabelMap = NO_LABELS) -> None:
        super().__init__(table, declared, policy)
        self.labels = labels

    def find(self, resource: Entry) -> Entry | None:
        return ProjectedTable(self.table).get(resource)

    def plan(self) -> Plan:
        return plan_of(ProjectedTable(self.table), self.declared, self.policy, self.labels)

    def to_document(self, resource: Entry) -> Document:
        return to_document(resource, self.labels)

    def create(self, plan: Plan) -> Entry:
        """Create the entry. In a replacement, first delete an entry that a packet created meanwhile."""
        wanted = desired_entry(plan)
        for _attempt in range(ATTEMPTS - 1 if plan.operation == "replaced" else 0):
            try:
                return self._create(wanted)
            except StalePlan:
                newcomer = self.find(wanted)
                if newcomer is not None:
                    with contextlib.suppress(NotFound):
                        self.send_delete(newcomer)
        return self._create(wanted)

    def _create(self, wanted: Entry) -> Entry:
        try:
            certain = self.send_create(wanted)
        except Exists as error:
            view = ProjectedTable(self.table)
            if view.get(wanted) is None:
                check_room(view, creation(wanted))  # reports the entry in the way, if it still exists
                if is_translated(wanted) and not is_exactly_translated(wanted):
                    raise error.with_hint(
                        "Perhaps all addresses and ports in the range of nat are in use: write a larger range"
                    ) from None
            raise StalePlan(str(error)) from error
        except Unsupported as error:
            if "helper" not in wanted:
                raise
            raise error.with_hint(_about_helper(wanted["helper"])) from None
        try:
            found = read_back(self.table, wanted)
        except KernelError as error:
            raise CannotReconcile(f"{describe(wanted)} was created, but not read back. {error}", "created") from error
        return settle_created(self.table, wanted, found, self.labels, certain)

    def update(self, plan: Plan) -> Entry:
        error: KernelError | None = None
        try:
            self.send_update(patch(plan.changes, plan.declared, plan.actual or {}))
        except NotFound as gone:
            raise StalePlan(str(gone)) from gone
        except KernelError as caught:
            error = caught
        about = describe(plan.declared)
        try:
            found = self.find(plan.declared)
        except KernelError as unread:
            sentence = f"{about} was changed" if error is None else f"{error}. It may have been changed in part"
            raise CannotReconcile(
                f"{sentence}, but it was not read back. {unread}", "updated", plan.changes
            ) from unread
        return settle_updated(plan, found, self.labels, error)

    def delete(self, plan: Plan) -> None:
        try:
            self.send_delete(plan.actual or {})
        except NotFound as gone:
            about = describe(plan.declared)
            raise StalePlan(f"{about} was deleted and created again by another process at each attempt") from gone

    def restore(self, old: Entry) -> None:
        self.send_create(recreation(old))


def _about_helper(name: str) -> str:
    """Return a hint for an entry whose helper the kernel does not have."""
    if name == _H245:
        return f"The kernel attaches the helper {name!r} only to the connections that its helper 'Q.931' expects"
    known, _hyphen, port = name.rpartition("-")
    module = _HELPERS.get(known if port.isdecimal() else name)
    if module is None:
        return f"The kernel has no helper {name!r}; write one of {', '.join(_HELPERS)}"
    return f"The helper {name!r} may be missing for this protocol: load its module {module}"


def settle_created(table: Table, wanted: Entry, found: Entry | None, labels: LabelMap, certain: bool = True) -> Entry:
    """Check the entry that was `found` after a creation, and return it.

    If it is not as wanted, delete it again, unless another process may have created it. Raises `CannotReconcile`.
    """
    if found is None:
        raise CannotReconcile(f"{describe(wanted)} was created, but no longer exists", "created")
    if _is_bare(found, wanted):
        missed = f"the protocol, which it does not track: there is {describe(found)}"
    elif identity(found) != identity(wanted):
        raise CannotReconcile(
            f"{describe(wanted)} was created, but not read back: {describe(found)} has the same tuple and hides it",
            "created",
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
    """Return whether an entry has the addresses and protocol of another, but no ports, ICMP keys or GRE keys."""
    ends = ("source", "destination", "protocol")
    there, asked = tuple_of(found, "original"), tuple_of(wanted, "original")
    return set(there) == set(ends) != set(asked) and all(there[end] == asked[end] for end in ends)


def _undo(table: Table, wanted: Entry, found: Entry | None, missed: str) -> None:
    """Delete an entry that is not as declared, and raise `CannotReconcile`.

    `found` is None if another process may have created the entry. It is then not deleted.
    """
    try:
        if found is not None:
            with contextlib.suppress(NotFound):
                EntryReconciler(table, wanted, Policy()).send_delete(found)
            raise CannotReconcile(f"{describe(wanted)} was not created: the kernel did not accept {missed}")
        reason = ""
    except KernelError as error:
        reason = f". Deleting it again failed. {error}"
    raise CannotReconcile(f"{describe(wanted)} exists, but the kernel did not set {missed}{reason}", "created")


def _missed(declared: Entry, found: Entry, labels: LabelMap) -> list[Change]:
    """Return the declared keys that the kernel did not accept, except those that packets change."""
    return [
        change
        for change in differences(declared, found, labels)
        if change.key not in _MOVED_BY_PACKETS
        and (change.key != "status" or declared["status"] & ~found.get("status", 0) & SETTABLE_STATUS)
    ]


def _explain(missed: list[Change]) -> str:
    """Return a clause with the keys that the kernel did not accept, and why labels are missing; "" for no keys."""
    sentence = with_values(missed)
    if any(change.key == "labels" for change in missed):
        sentence += f". {LABELS_NEED_A_RULE}"
    return sentence


def settle_updated(plan: Plan, found: Entry | None, labels: LabelMap, error: KernelError | None = None) -> Entry:
    """Check the entry that was `found` after an update, which may have ended with an `error`, and return it.

    Raises `CannotReconcile` with the changes that were made, and `StalePlan` if the entry is gone.
    """
    if found is None:
        if error is not None and not isinstance(error, ResultUnknown):
            raise StalePlan(str(error)) from error
        raise CannotReconcile(f"{describe(plan.declared)} ended while it was being changed", "updated")
    missed = _missed(plan.declared, found, labels)
    if not missed and (error is None or isinstance(error, ResultUnknown)):
        return found
    left = {change.key for change in differences(plan.declared, found, labels)}
    done = [change for change in plan.changes if change.key not in left and not _is_counting_on(change, found)]
    if error is not None:
        sentence = str(error)
    else:
        sentence = f"{describe(plan.declared)}: the kernel did not accept {_explain(missed)}"
    if done:
        sentence += f". These were changed: {', '.join(change.key for change in done)}"
    raise CannotReconcile(sentence, "updated" if done else "unchanged", done) from error


def _is_counting_on(change: Change, found: Entry) -> bool:
    """Return whether a timeout was not set: the old one only decreases."""
    return change.key == "timeout" and found.get("timeout", 0) <= change.before
