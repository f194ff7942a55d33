# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Change the keys of matching entries that differ from the wanted values, and no other keys.

The table is read, each matching entry is compared, and the differing keys are sent in batches while the rest is still
being read. The kernel applies the keys one after the other. If it refuses a key, the keys applied before stay changed.
The entry is then read back, and the remaining keys are sent without the refused one.

The kernel finds the entry by tuple and zone, not by id. A new entry that replaced the old one after the table was read
is detected, by its id, only if it is read back.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Iterator, Mapping, NamedTuple

from ..client.codec.attributes import Change
from ..client.codec.types import LABELS, STATUS, parse_integer, parse_masked
from ..client.entry.creation import SETTABLE_STATUS
from ..client.entry.diff import check_timeout_min, differences, forces_replacement, patch, timeout_changes
from ..client.entry.document import to_document
from ..client.entry.entry import Entry, describe
from ..client.entry.labels import NO_LABELS, LabelMap
from ..client.errors import (
    NAMED,
    ConntrackError,
    InvalidValue,
    KernelError,
    NotFound,
    PartialFailure,
    ResultUnknown,
    named,
    read_again_if_lost,
)
from ..client.match.match import Match
from ..client.table import Table
from ..client.table_reader import UNLIMITED

if TYPE_CHECKING:
    from ..client.entry.nested import Document

#: The keys of the option `set`.
KEYS = ("mark", "labels_add", "labels_remove", "timeout", "status", "helper")
#: The order in which the kernel changes the keys.
_ORDER = ("helper", "timeout", "status", "mark", "labels")
#: The maximum number of attempts to send the remaining keys of a change.
_ATTEMPTS = 8


class UpdateFailed(PartialFailure):
    """Not all matching entries have the wanted values."""


class PlannedUpdate(NamedTuple):
    """The update of one entry: its changes, the reasons by key why others are impossible, and the request."""

    actual: Entry
    changes: list[Change]
    hindered: dict[str, str]
    request: Entry


class Wanted(NamedTuple):
    """The wanted keys and values of every entry, with masks for keys of which only some bits count.

    Bits of `status` are set; other bits stay. The timeout is set to `timeout` if more than `timeout` seconds remain, or
    fewer than `timeout_min`.
    """

    declared: Entry
    timeout_min: int = 0
    labels: LabelMap = NO_LABELS

    def plan(self, actual: Entry) -> PlannedUpdate:
        """Return the update of an entry."""
        declared = self.declared
        if "status" in declared:
            declared = {**declared, "status": declared["status"] | actual.get("status", 0)}
        changes = differences(declared, actual, self.labels)
        changes += timeout_changes(declared, actual, self.timeout_min, shorten=True)
        hindered = {
            key: f"{key} cannot be changed, {reason}"
            for key, reason in forces_replacement(changes, declared, actual).items()
        }
        changes = [change for change in changes if change.key not in hindered]
        return PlannedUpdate(actual, changes, hindered, patch(changes, declared, actual) if changes else {})

    def without(self, *keys: str) -> Wanted:
        """Return the wanted values without these keys."""
        dropped = {*keys, *(f"{key}_mask" for key in keys)}
        return self._replace(declared={key: value for key, value in self.declared.items() if key not in dropped})


def parse_wanted(options: Mapping[str, Any], timeout_min: int = 0, labels: LabelMap = NO_LABELS) -> Wanted:
    """Parse the options `set` and `timeout_min`. A key with the value None is ignored.

    Raises `InvalidValue` with the path of the first error.
    """
    given = {key: value for key, value in options.items() if value is not None}
    for key, value in given.items():
        if value == []:
            raise InvalidValue(f"set.{key}", "an empty list sets nothing; leave the key out or give it values")
    if not given:
        raise InvalidValue("set", f"specifies nothing; write one or more of {', '.join(KEYS)}")
    declared: Entry = {}
    if "mark" in given:
        declared["mark"], declared["mark_mask"] = parse_masked(given["mark"], "set.mark")
        if declared["mark_mask"] == 0:
            raise InvalidValue("set.mark", "has a mask of 0, so it would set nothing; write the bits that count")
        if declared["mark_mask"] == 0xFFFFFFFF:
            del declared["mark_mask"]
    if "labels_add" in given or "labels_remove" in given:
        add, remove = (_label_bits(given, key, labels) for key in ("labels_add", "labels_remove"))
        if add & remove:
            both = ", ".join(map(str, labels.to_names(LABELS.present(add & remove))))
            raise InvalidValue("set.labels_remove", f"labels_add has {both}, too; write a label in one of them")
        declared["labels"], declared["labels_mask"] = add, add | remove
    if "timeout" in given:
        declared["timeout"] = parse_integer(given["timeout"], "set.timeout", 1, 0xFFFFFFFF)
    check_timeout_min(timeout_min, declared, "set.")
    if "status" in given:
        declared["status"] = STATUS.parse(given["status"], "set.status")
        others = declared["status"] & ~SETTABLE_STATUS
        if others:
            settable = ", ".join(STATUS.present(SETTABLE_STATUS))
            raise InvalidValue(
                "set.status",
                f"{STATUS.present(others)[0]} can be set only by the kernel; write one or more of {settable}",
            )
    if "helper" in given:
        declared["helper"] = given["helper"]
        if declared["helper"]:
            raise InvalidValue(
                "set.helper",
                f"{declared['helper']!r} can be attached only when an entry is created; "
                'write "" to remove the current helper',
            )
    return Wanted(declared, timeout_min, labels)


def _label_bits(given: Mapping[str, Any], key: str, labels: LabelMap) -> int:
    path = f"set.{key}"
    return LABELS.parse(labels.to_bits(given.get(key, []), path), path)


def update(
    table: Table,
    match: Match,
    wanted: Wanted,
    limit: int = UNLIMITED,
    report_limit: int = 100,
    check_mode: bool = False,
) -> Document:
    """Change the matching entries that differ and return the module's result.

    Raises `UpdateFailed` if more than `limit` entries match, normally before any change; if the kernel refused a
    change, after all others; and if reading the table fails after the first change or refusal.
    """
    updating = _Updating(table, wanted, report_limit)
    if limit < UNLIMITED or match.needs:  # an entry may lack the counters or timestamps that the match needs
        found, first = _counted(table, match)
        if found > limit:
            names = [describe(entry) for entry in first]
            raise UpdateFailed(
                f"{found} entries match, more than the limit of {limit}{named(names, found)}. "
                "Nothing was changed: narrow the match or raise the limit",
                {**updating.result(), "matched": found},
            )
    try:
        updating.run(match, limit, check_mode)
    except ConntrackError as error:
        if check_mode or not (updating.changed or updating.refused):
            raise
        rest = f", {updating.refused} not, the first because: {updating.refusal}" if updating.refused else ""
        raise UpdateFailed(
            f"{error}. {updating.updated} entries had been changed until then{rest}", updating.result()
        ) from error
    if updating.matched > limit:
        raise UpdateFailed(
            f"{updating.matched} entries match now, more than the limit of {limit}: no entry after the first "
            f"{limit} was changed",
            updating.result(),
        )
    if updating.refused:
        raise UpdateFailed(
            f"{updating.refused} of {updating.matched} entries were not changed, or not in full, "
            f"the first because: {updating.refusal}",
            updating.result(),
        )
    return updating.result()


def _counted(table: Table, match: Match) -> tuple[int, list[Entry]]:
    """Return the number of matching entries, and the first of them for a message."""
    found, first = 0, []
    for row in table.rows(match.where):
        found += 1
        if found <= NAMED:
            first.append(dict(zip(*row)))
    return found, first


class _Updating:
    """The state of an update."""

    def __init__(self, table: Table, wanted: Wanted, report_limit: int) -> None:
        self.matched = self.updated = self.unchanged = self.gone = self.refused = 0
        self.changed = False
        #: The first error message. Only one is kept: there may be a million.
        self.refusal = ""
        self._table = table
        self._wanted = wanted
        self._report_limit = report_limit
        self._changes: list[tuple[Entry, Change]] = []
        self._failed_entries: list[tuple[Entry, str]] = []

    def run(self, match: Match, most: int, check_mode: bool) -> None:
        """Change the first `most` matching entries. In check mode, only record the changes."""
        plans = self._plans(match, most)
        if check_mode:
            for plan in plans:
                self._note(plan, plan.changes)
            return
        sent: deque[PlannedUpdate] = deque()

        def requests() -> Iterator[Entry]:
            for plan in plans:
                sent.append(plan)
                yield plan.request

        for error in self._table.update_all(requests()):
            plan = sent.popleft()
            if error is None:
                self._note(plan, plan.changes)
            elif isinstance(error, NotFound):
                self._lose(plan)
            else:
                self._send_rest(plan, error)

    def _plans(self, match: Match, most: int) -> Iterator[PlannedUpdate]:
        """Yield the update of each entry that can be changed, and count the others."""
        for entry in self._table.dump(where=match.where):
            self.matched += 1
            if self.matched > most:
                continue
            plan = self._wanted.plan(entry)
            if plan.hindered:
                self._fail(entry, f"{describe(entry)}: {'; '.join(plan.hindered.values())}")
            if plan.changes:
                yield plan
            elif not plan.hindered:
                self.unchanged += 1

    def _send_rest(self, plan: PlannedUpdate, error: KernelError) -> None:
        """Read an entry back after an error, and send the remaining keys without the refused ones."""
        wanted, tried = self._wanted.without(*plan.hindered), plan
        reasons: dict[str, str] = {}
        for attempts_left in reversed(range(_ATTEMPTS)):
            try:
                found = read_again_if_lost(lambda: self._table.get(plan.actual))
            except KernelError as unread:
                self.changed = True  # it may have been changed
                sentence = f"{error}. It may have been changed in part, but it was not read back. {unread}"
                self._fail(plan.actual, sentence, plan)
                return
            if found is None or found.get("id") != plan.actual.get("id"):
                if found is not None and isinstance(error, ResultUnknown) and not wanted.plan(found).changes:
                    self.changed = True  # the update may have changed this other entry, which has the same tuple
                self._lose(plan)
                return
            reasons.update(_refused(wanted.plan(found), tried, error))
            wanted = wanted.without(*reasons)
            tried = wanted.plan(found)
            if tried.changes and not attempts_left:
                reasons.update(dict.fromkeys((change.key for change in tried.changes), str(error)))
            if not tried.changes or not attempts_left:
                break
            try:
                self._table.update(tried.request)
                break
            except KernelError as another:
                error = another
        self._conclude(plan, reasons)

    # the result for an entry

    def _conclude(self, plan: PlannedUpdate, reasons: Mapping[str, str]) -> None:
        """Record the result: all planned changes were made, except the keys in `reasons`."""
        done = [change for change in plan.changes if change.key not in reasons]
        if reasons:
            sentence = "; ".join(dict.fromkeys(reasons.values()))
            if done:
                sentence += f". These were changed: {', '.join(change.key for change in done)}"
            self._fail(plan.actual, sentence, plan)
        self._note(plan, done, whole=not reasons)

    def _note(self, plan: PlannedUpdate, changes: list[Change], whole: bool = True) -> None:
        """Record changes. Count the entry as updated if all of its wanted changes were made."""
        if whole and not plan.hindered:
            self.updated += 1
        self.changed = self.changed or bool(changes)
        room = max(0, self._report_limit - len(self._changes))
        self._changes += [(plan.actual, change) for change in changes[:room]]

    def _lose(self, plan: PlannedUpdate) -> None:
        """Count an entry that is gone or was replaced by another."""
        if not plan.hindered:
            self.gone += 1

    def _fail(self, entry: Entry, sentence: str, plan: PlannedUpdate | None = None) -> None:
        """Record that an entry was not changed in full. An entry with hindered keys is counted only once."""
        if plan is None or not plan.hindered:
            self.refused += 1
        self.refusal = self.refusal or sentence
        if len(self._failed_entries) < self._report_limit:
            self._failed_entries.append((entry, sentence))

    def result(self) -> Document:
        """Return the module's result."""
        lines = sorted(
            (f"{describe(entry)}: {change.key}", _shown(change.before), _shown(change.after))
            for entry, change in self._changes
        )
        return {
            "changed": self.changed,
            "matched": self.matched,
            "updated": self.updated,
            "unchanged": self.unchanged,
            "gone": self.gone,
            "refused": self.refused,
            "failed_entries": [{"entry": _named(entry), "msg": sentence} for entry, sentence in self._failed_entries],
            "changes": [{"entry": _named(entry), **change.as_document()} for entry, change in self._changes],
            "diff": {
                "before": "".join(f"{what} {before}\n" for what, before, _after in lines),
                "after": "".join(f"{what} {after}\n" for what, _before, after in lines),
            },
        }


def _refused(left: PlannedUpdate, tried: PlannedUpdate, error: KernelError) -> dict[str, str]:
    """Return the refused keys among the remaining changes of a failed update, each with the reason."""
    reasons = dict(left.hindered)
    if left.changes and not isinstance(error, (NotFound, ResultUnknown)):
        key = min((change.key for change in left.changes), key=_ORDER.index)
        # If a packet set a status bit meanwhile, the kernel refused the request because it would clear that bit
        if key != "status" or left.actual.get("status") == tried.actual.get("status"):
            reasons[key] = str(error)
    return reasons


def _named(entry: Entry) -> Document:
    """Return a document with the keys that identify an entry."""
    return to_document(patch((), {}, entry))


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value in (None, "") else str(value)
