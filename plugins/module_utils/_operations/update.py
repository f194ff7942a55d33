# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Change every entry that matches, where it differs from what is wanted, and nothing else of it.

The table is read, every entry that matches is compared, and the keys that differ are sent in batches while the
rest is still being read. Should the kernel refuse one of them, what came before it stays, for it applies them
one after the other: so the entry is read back, and what is left is sent without the key that was refused.

By its tuple and zone alone the kernel finds the entry to change. One that took the place of another between the
reading and the change is told from it, by its id, only where it is read back.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Iterator, Mapping, NamedTuple

from ..client.codec.attributes import Change
from ..client.codec.types import LABELS, STATUS, parse_integer, parse_masked
from ..client.entry.diff import differences, forces_replacement, patch
from ..client.entry.document import to_document
from ..client.entry.entry import SETTABLE_STATUS, Entry, check_timeout_min, describe, timeout_changes
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
)
from ..client.match.match import Match
from ..client.table import UNLIMITED, Table

if TYPE_CHECKING:
    from ..client.entry.nested import Document

#: What can be set, as the option `set` names it.
KEYS = ("mark", "labels_add", "labels_remove", "timeout", "status", "helper")
#: What the kernel changes first, and what then.
_ORDER = ("helper", "timeout", "status", "mark", "labels")
#: How often to send what is left of a change, as long as something is left of it.
_ATTEMPTS = 8


class UpdateFailed(PartialFailure):
    """Not all that matches is as wanted."""


class PlannedUpdate(NamedTuple):
    """What is to be done about one entry: what will change, why the rest cannot, by its key, and what to send."""

    actual: Entry
    changes: list[Change]
    hindered: dict[str, str]
    request: Entry


class Wanted(NamedTuple):
    """What every entry is to have: keys of an entry, and masks beside those of which only some bits count.

    Bits of `status` are set, and others stay. The countdown is set to `timeout` where more seconds remain than
    that, or fewer than `timeout_min`.
    """

    declared: Entry
    timeout_min: int = 0
    labels: LabelMap = NO_LABELS

    def plan(self, actual: Entry) -> PlannedUpdate:
        """What is to be done about this entry."""
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
        """The same, but for these keys."""
        dropped = {*keys, *(f"{key}_mask" for key in keys)}
        return self._replace(declared={key: value for key, value in self.declared.items() if key not in dropped})


def parse_wanted(options: Mapping[str, Any], timeout_min: int = 0, labels: LabelMap = NO_LABELS) -> Wanted:
    """What the options `set` and `timeout_min` ask for. A key that is None counts as absent.

    Raises `InvalidValue` with the path of the first fault.
    """
    given = {key: value for key, value in options.items() if value is not None}
    for key, value in given.items():
        if value == []:
            raise InvalidValue(f"set.{key}", "an empty list sets nothing; leave the key out or give it values")
    if not given:
        raise InvalidValue("set", f"says nothing; write one or more of {', '.join(KEYS)}")
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
                "set.status", f"{STATUS.present(others)[0]} is the kernel's own to set; write one or more of {settable}"
            )
    if "helper" in given:
        declared["helper"] = given["helper"]
        if declared["helper"]:
            raise InvalidValue(
                "set.helper",
                f"{declared['helper']!r} can be attached only when an entry is created; "
                'write "" to take away the helper that there is',
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
    """Change what matches, where it differs, and return what was done, in the form of a module's result.

    Raises `UpdateFailed` where more than `limit` match, before anything is changed; where the kernel refused
    something, after all else; and where the table could not be read to its end.
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
            f"{updating.matched} entries match by now, more than the limit of {limit}: the others were left alone",
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
    """The number of entries that match, and the first of them."""
    found, first = 0, []
    for row in table.rows(match.where):
        found += 1
        if found <= NAMED:
            first.append(dict(zip(*row)))
    return found, first


class _Updating:
    """An update, as far as it has come."""

    def __init__(self, table: Table, wanted: Wanted, report_limit: int) -> None:
        self.matched = self.updated = self.unchanged = self.gone = self.refused = 0
        self.changed = False
        #: Of the reasons why something was not done the first: there may be a million.
        self.refusal = ""
        self._table = table
        self._wanted = wanted
        self._report_limit = report_limit
        self._changes: list[tuple[Entry, Change]] = []
        self._failed_entries: list[tuple[Entry, str]] = []

    def run(self, match: Match, most: int, check_mode: bool) -> None:
        """Change what matches, or only say what would be; beyond `most` entries, nothing."""
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
                self._go_on(plan, error)

    def _plans(self, match: Match, most: int) -> Iterator[PlannedUpdate]:
        """What is to be done about each entry about which something can be done."""
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

    def _go_on(self, plan: PlannedUpdate, error: KernelError) -> None:
        """See what came of an update that ended with this error, and make what is left, but for what is refused."""
        wanted, tried = self._wanted.without(*plan.hindered), plan
        reasons: dict[str, str] = {}
        for attempts_left in reversed(range(_ATTEMPTS)):
            try:
                found = self._read_back(plan.actual)
            except KernelError as unread:
                self.changed = True  # as far as is known
                self._fail(plan.actual, f"{error}. It may be changed in part, but it was not read back. {unread}", plan)
                return
            if found is None or found.get("id") != plan.actual.get("id"):
                if found is not None and isinstance(error, ResultUnknown) and not wanted.plan(found).changes:
                    self.changed = True  # by its tuple, the update may have met the other one
                self._lose(plan)
                return
            reasons.update(_refused(wanted.plan(found), tried, error))
            wanted = wanted.without(*reasons)
            tried = wanted.plan(found)
            if tried.changes and not attempts_left:
                reasons.update(dict.fromkeys((change.key for change in tried.changes), str(error)))
            if not tried.changes or not attempts_left:
                break
            another = self._send(tried)
            if another is None:
                break
            error = another
        self._conclude(plan, reasons)

    def _send(self, plan: PlannedUpdate) -> KernelError | None:
        try:
            self._table.update(plan.request)
        except KernelError as error:
            return error
        return None

    def _read_back(self, entry: Entry) -> Entry | None:
        """The entry as it is now, or another in its place, None for none; asked once more if the answer is lost."""
        try:
            try:
                return self._table.get(entry)
            except ResultUnknown:
                return self._table.get(entry)
        except NotFound:
            return None

    # what became of an entry

    def _conclude(self, plan: PlannedUpdate, reasons: Mapping[str, str]) -> None:
        """It was changed but for the keys for which there is a reason."""
        done = [change for change in plan.changes if change.key not in reasons]
        if reasons:
            sentence = "; ".join(dict.fromkeys(reasons.values()))
            if done:
                sentence += f". Changed all the same: {', '.join(change.key for change in done)}"
            self._fail(plan.actual, sentence, plan)
        self._note(plan, done, whole=not reasons)

    def _note(self, plan: PlannedUpdate, changes: list[Change], whole: bool = True) -> None:
        """These changes were made; if they are the whole of what was wanted, it is updated."""
        if whole and not plan.hindered:
            self.updated += 1
        self.changed = self.changed or bool(changes)
        room = max(0, self._report_limit - len(self._changes))
        self._changes += [(plan.actual, change) for change in changes[:room]]

    def _lose(self, plan: PlannedUpdate) -> None:
        """It is gone, or another took its place."""
        if not plan.hindered:
            self.gone += 1

    def _fail(self, entry: Entry, sentence: str, plan: PlannedUpdate | None = None) -> None:
        """Not all of it was done. Of an entry with a `plan`, what hindered it is counted already."""
        if plan is None or not plan.hindered:
            self.refused += 1
        self.refusal = self.refusal or sentence
        if len(self._failed_entries) < self._report_limit:
            self._failed_entries.append((entry, sentence))

    def result(self) -> Document:
        """All of it in the form of a module's result."""
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
    """Of what is left of an update that ended with this error, the keys that were refused, each with the reason."""
    reasons = dict(left.hindered)
    if left.changes and not isinstance(error, (NotFound, ResultUnknown)):
        key = min((change.key for change in left.changes), key=_ORDER.index)
        # If a packet has set a bit meanwhile, the kernel took the status for one that is to clear it
        if key != "status" or left.actual.get("status") == tried.actual.get("status"):
            reasons[key] = str(error)
    return reasons


def _named(entry: Entry) -> Document:
    """What names an entry, as its document."""
    return to_document(patch((), {}, entry))


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value in (None, "") else str(value)
