# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan the changes to entries.

Check mode, the diff, the report and the requests all use the same plan. Some results cannot be predicted, such as
whether the kernel has a helper of that name or whether a rule uses labels. They are checked when the entry is read back
(see `entry`).
"""

from __future__ import annotations

from typing import Any, Callable, Hashable, Iterable, Mapping

from ..client import uapi
from ..client.entry.creation import DEFAULT_TIMEOUT, check_states, creation
from ..client.entry.diff import (
    check_timeout_min,
    differences,
    fill_groups,
    forces_replacement,
    merged_value,
    patch,
    timeout_changes,
    unsupported_on_create,
)
from ..client.entry.document import as_declaration
from ..client.entry.entry import Entry, Identity, by_reply, describe, has_reply_alone, identity, lookup_key
from ..client.entry.labels import LabelMap
from ..client.entry.tuple import protocol_keys, reversed_tuple, tuple_key, tuple_of, with_tuple
from ..client.entry.zone import zone_of
from ..client.errors import KernelError, NotFound, ResultUnknown, read_again_if_lost
from ..client.table import Table
from .reconciler import CannotReconcile, Plan, Policy

#: Keys that change at any time or that only the kernel sets. No diff shows them.
OF_THE_MOMENT = ("counters", "timestamps", "security_context", "id", "use", "extra")


class EntryPlan(Plan):
    """The plan to create, update or replace an entry."""

    __slots__ = ()

    def predicted(self) -> Entry | None:
        """Return the entry after the plan. It is computed on request: many entries are planned, and few need it."""
        if self.operation == "updated":
            actual = self.actual or {}
            entry = {**actual, **patch(self.changes, self.declared, actual)}
            entry.update((change.key, merged_value(change.key, self.declared, actual)) for change in self.changes)
            entry.pop("mark_mask", None)
            if not entry.get("helper"):
                entry.pop("helper", None)
            return entry
        entry = {key: value for key, value in creation(desired_entry(self)).items() if not _is_of_the_moment(key)}
        entry["status"] = entry.get("status", 0) | uapi.IPS_CONFIRMED
        if "master.source" in entry:
            entry["status"] |= uapi.IPS_EXPECTED
        replied = expected_reply(entry)
        if replied is None:
            return {k: v for k, v in entry.items() if not k.startswith("reply.") or k == "reply.zone"}
        return {**entry, **with_tuple("reply", tuple_of(replied, "reply"))}


def _is_of_the_moment(key: str) -> bool:
    return key.partition(".")[0] in OF_THE_MOMENT


class ProjectedTable:
    """The table as it will be after all plans recorded so far are applied. Only the present table is read.

    An entry is read each time it is requested, unless `prefetch` has read it.
    """

    def __init__(self, table: Table, deleting: Iterable[Callable[[Entry], bool]] = ()) -> None:
        self.table = table
        #: Predicates for existing entries that earlier steps delete.
        self.deleting = list(deleting)
        #: The ids of expectations that earlier steps delete.
        self.dropped_expectations: set[int] = set()
        self._seen: dict[Identity, Entry | None] = {}
        self._superseded: set[Identity] = set()
        self._created: dict[Hashable, list[Entry]] = {}

    def prefetch(self, entries: Iterable[Entry], direction: str = "original") -> None:
        """Read the entries that have these tuples of `entries`."""
        wanted = [by_reply(entry) if has_reply_alone(entry) else lookup_key(entry, direction) for entry in entries]
        for about, answer in zip(wanted, self.table.find_by_tuples(wanted)):
            if not isinstance(answer, KernelError):
                self._seen[identity(about)] = answer
            elif isinstance(answer, NotFound):
                self._seen[identity(about)] = None

    def get(self, declared: Entry) -> Entry | None:
        """Return the entry with the identity of `declared`, or None."""
        found = self._at(declared, "original")
        return found if found is not None and identity(found) == identity(declared) else None

    def with_original(self, declared: Entry) -> Entry:
        """Add the original tuple to a declaration that has only the reply tuple.

        It is the original tuple of the entry with this reply tuple, also if that entry is NATed. Without such an entry,
        it is the reversed reply tuple.
        """
        reply = tuple_of(declared, "reply")
        found = self._read(by_reply(declared))
        if found is None or tuple_of(found, "reply") != reply:
            return {**declared, **with_tuple("original", reversed_tuple(reply))}
        named = {**declared, **with_tuple("original", tuple_of(found, "original"))}
        if identity(named) == identity(found):
            self._seen[identity(named)] = found
        return named

    def find_by_tuple(self, entry: Entry, direction: str = "original") -> Entry | None:
        """Return the entry that has this tuple of `entry`, or the tuple of its `master`, in either direction."""
        found = self._at(entry, direction)
        if found is None and direction != "reply" and "reply.zone" in entry:
            # When it creates an entry, the kernel also looks for its original tuple, and for that of its master, in
            # the zone of its reply
            others = {key: value for key, value in entry.items() if not key.startswith("reply.")}
            found = self._at({**others, "zone": entry["reply.zone"]}, direction)
        return found

    def _at(self, entry: Entry, direction: str) -> Entry | None:
        for created in self._created.get(tuple_key(entry, direction), ()) if self._created else ():
            if _collide(entry, created, direction):
                return created
        found = self._read(lookup_key(entry, direction))
        return found if found is not None and self._stays(found) else None

    def _read(self, about: Entry) -> Entry | None:
        key = identity(about)
        return self._seen[key] if key in self._seen else read_back(self.table, about)

    def _stays(self, found: Entry) -> bool:
        if self._superseded and identity(found) in self._superseded:
            return False
        return not (self.deleting and any(is_deleted(found) for is_deleted in self.deleting))

    def keeps_expectation(self, expectation: Mapping[str, Any], master: Entry) -> bool:
        """Return whether an existing expectation stays. It is deleted with its master, or with the master's helper."""
        if expectation.get("id") in self.dropped_expectations:
            return False
        if not (self._superseded or self.deleting):
            return True
        found = self._read(master)
        return found is not None and self._stays(found)

    def record(self, plan: Plan) -> None:
        """Record that a plan will be applied. Of an update, only a change of the helper affects other entries."""
        updated = plan.changed and any(change.key == "helper" for change in plan.changes)
        if plan.actual is not None and (updated or plan.operation in ("deleted", "replaced")):
            self._superseded.add(identity(plan.actual))
        if updated or plan.operation in ("created", "replaced"):
            entry = plan.predicted() or {}
            for direction in ("original", "reply"):
                if f"{direction}.source" in entry:
                    self._created.setdefault(tuple_key(entry, direction), []).append(entry)


def read_back(table: Table, entry: Entry) -> Entry | None:
    """Return the entry that has the original tuple of `entry` in either direction, or None.

    If the answer is lost, the request is repeated once.
    """
    return read_again_if_lost(lambda: table.find_by_tuple(entry))


def found_in(answer: Entry | KernelError, table: Table, entry: Entry) -> Entry | None:
    """Return the entry in an answer of `Table.find_by_tuples`, or None. If the answer was lost, read `entry` back."""
    if isinstance(answer, NotFound):
        return None
    if isinstance(answer, ResultUnknown):
        return read_back(table, entry)
    if isinstance(answer, KernelError):
        raise answer
    return answer


def plan_of(view: ProjectedTable, declared: Entry, policy: Policy, labels: LabelMap) -> Plan:
    """Return the plan for one entry and a policy.

    An entry that must be absent is found by the identity of `declared`, or by its reply tuple if that is all. Raises
    `CannotReconcile` if the change is known to be impossible or if `policy` does not allow it.
    """
    if policy.state == "absent":
        if has_reply_alone(declared):
            declared = view.with_original(declared)
        actual = view.get(declared)
        return Plan("deleted" if actual is not None else "unchanged", declared, actual, [])
    check(declared, policy)
    actual = view.get(declared)
    if actual is None:
        return _possible(view, EntryPlan("created", declared, None, []))
    if policy.on_existing == "keep":
        return Plan("unchanged", declared, actual, [])
    changes = differences(declared, actual, labels) + timeout_changes(declared, actual, policy.timeout_min)
    if not changes:
        return Plan("unchanged", declared, actual, [])
    policy.check_changes(describe(actual), changes)
    hindered = forces_replacement(changes, declared, actual)
    if not hindered:
        return EntryPlan("updated", declared, actual, changes)
    if not policy.replace:
        reasons = "; ".join(f"{key}: {reason}" for key, reason in hindered.items())
        raise CannotReconcile(
            f"{describe(actual)} cannot be changed in place ({reasons}); set replace to true to "
            "delete it and create it again, which interrupts the connection"
        )
    return _possible(view, EntryPlan("replaced", declared, actual, changes))


def _possible(view: ProjectedTable, plan: Plan) -> Plan:
    """Return a plan to create an entry. Raises `CannotReconcile` if its creation must fail."""
    wanted = creation(desired_entry(plan))
    reasons = "; ".join(f"{key}: {reason}" for key, reason in unsupported_on_create(wanted).items())
    if reasons:
        raise CannotReconcile(f"{describe(wanted)} cannot be created ({reasons})")
    check_room(view, wanted, plan.actual)
    return plan


def check(declared: Entry, policy: Policy) -> None:
    """Raise `InvalidValue` for a declaration that is invalid for every table."""
    check_timeout_min(policy.timeout_min, declared)
    check_states(declared)


def is_translated(entry: Entry) -> bool:
    """Return whether an entry requests NAT."""
    return any(key.startswith("nat.") for key in entry)


def is_exactly_translated(entry: Entry) -> bool:
    """Return whether the NAT that an entry requests leaves the kernel no choice.

    Without a requested source port, the kernel may select another source port, GRE key or ICMP id, for source and
    destination NAT alike.
    """
    open_ = protocol_keys(entry["original.protocol"]) and "nat.source.port_min" not in entry
    spans = (f"nat.{end}.{what}" for end in ("source", "destination") for what in ("address", "port"))
    return (
        is_translated(entry)
        and not open_
        and all(entry.get(f"{span}_min") == entry.get(f"{span}_max") for span in spans)
    )


def expected_reply(wanted: Entry) -> Entry | None:
    """Return an entry to be created with its future reply tuple instead of the NAT that it requests.

    Returns None if the kernel may choose among several reply tuples.
    """
    if not is_translated(wanted):
        return wanted
    if not is_exactly_translated(wanted):
        return None
    entry = {key: value for key, value in wanted.items() if not key.startswith("nat.")}
    for end, answers in (("source", "destination"), ("destination", "source")):
        if f"nat.{end}.address_min" in wanted:
            entry[f"reply.{answers}"] = wanted[f"nat.{end}.address_min"]
        port = wanted.get(f"nat.{end}.port_min")
        if port is not None and "original.icmp_id" in wanted:
            entry["reply.icmp_id"] = port
        elif port is not None and "original.source_port" in wanted:
            entry[f"reply.{answers}_port"] = port
        # The kernel does not translate keys of GRE (nf_nat_l4proto_unique_tuple in net/netfilter/nf_nat_core.c)
    return entry


def check_room(view: ProjectedTable, wanted: Entry, but: Entry | None = None) -> None:
    """Raise `CannotReconcile` if an entry has one of the tuples in either direction, or if the master is missing.

    The entry `but` is ignored, because it will be deleted.
    """
    replied = expected_reply(wanted)
    for direction, entry in (("original", wanted), ("reply", replied)):
        existing = None if entry is None else view.find_by_tuple(entry, direction)
        if entry is None or existing is None or (but is not None and identity(existing) == identity(but)):
            continue
        if not _collide(entry, existing, direction):
            continue
        raise CannotReconcile(
            f"{describe(wanted)} cannot be created: its {direction} tuple is taken by "
            f"{describe(existing)}; delete that entry first if it is stale"
        )
    if "master.source" not in wanted:
        return
    master = view.find_by_tuple(wanted, "master")
    if master is None or not _collide(wanted, master, "master"):
        raise CannotReconcile(
            f"{describe(wanted)} cannot be created: there is no entry with the tuple of "
            "its master in its zone; create the master first"
        )


def _collide(wanted: Entry, existing: Entry, direction: str) -> bool:
    """Return whether the tuple of `wanted` and an entry with the same tuple collide: whether their zones are equal."""
    if not any(key in entry for key in ("original.zone", "reply.zone") for entry in (wanted, existing)):
        return (wanted.get("zone") or 0) == (existing.get("zone") or 0)
    # The kernel looks for the original tuple, and for that of a master, in the zones of both directions, and for the
    # reply tuple in the zone of the reply
    own = ("reply",) if direction == "reply" else ("original", "reply")
    zones = {zone_of(wanted, other) for other in own}
    return any(
        tuple_of(existing, other) == tuple_of(wanted, direction)
        and zone_of(existing, other) == zone_of(wanted, other)
        and zone_of(existing, other) in zones
        for other in ("original", "reply")
    )


def desired_entry(plan: Plan) -> Entry:
    """Return the declaration with all keys of a new entry. A replacement keeps the values that are not declared."""
    declared = dict(plan.declared)
    kept: Entry = {}
    if plan.operation == "replaced" and plan.actual is not None:
        kept = recreation(plan.actual)
        for groups in (("nat.", "reply."), ("master.",)):
            if any(key.startswith(groups) for key in declared):
                kept = {key: value for key, value in kept.items() if not key.startswith(groups)}
    if "mark_mask" in declared:
        declared["mark"] |= kept.get("mark", 0) & ~declared.pop("mark_mask")
    return fill_groups({**kept, **declared})


def recreation(entry: Entry) -> Entry:
    """Return the declaration that creates a deleted entry again."""
    declared = {key: value for key, value in as_declaration(entry).items() if not _is_of_the_moment(key)}
    # An offloaded entry has no timeout, and an entry with timeout 0 cannot be created
    declared["timeout"] = max(1, declared.get("timeout", DEFAULT_TIMEOUT))
    return declared
