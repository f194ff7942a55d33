# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The results of restoring a snapshot: the counts of all records, and details of the first ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .._operations.flush import DeletionPlan, DeletionProgress
from .._reconcile.entries import NO_COUNTS, Outcome
from ..client.entry.document import to_document
from ..client.entry.entry import Entry, describe
from ..client.entry.labels import LabelMap
from .file import ENTRIES, Header, numbered

if TYPE_CHECKING:
    from ..client.entry.nested import Document


class Report:
    """The results of restoring a snapshot so far."""

    def __init__(self, header: Header, labels: LabelMap, limit: int, check_mode: bool) -> None:
        self.entries, self.expectations = {**NO_COUNTS}, {**NO_COUNTS}
        self.kept = 0
        #: The number of entries that may have been created, because the answer was lost.
        self.unknown = 0
        #: The number of failed deletions.
        self._staying = 0
        self.changed = False
        self.failures: list[Document] = []
        self.warnings: list[str] = []
        #: The maximum number of failures, and of lines in the diff, that are returned.
        self.limit = limit
        self._header = header
        self._labels = labels
        self._check_mode = check_mode
        self._before: list[str] = []
        self._after: list[str] = []

    @property
    def begun(self) -> bool:
        """Whether anything was changed or has failed."""
        return self.changed or bool(self.failures)

    @property
    def shows_more(self) -> bool:
        """Whether the diff has room for another line."""
        return len(self._after) < self.limit

    def created(self, number: int) -> None:
        """Count created entries."""
        self.entries["created"] += number
        self.changed = self.changed or number > 0

    def count_lost(self, entry: Entry, was_there: bool | None) -> None:
        """Count an existing entry whose creation had a lost answer.

        `was_there` is whether the entry existed before, None if that is unknown.
        """
        if was_there is None:
            self.unknown += 1
            self.changed = True
        elif was_there:
            self.entries["unchanged"] += 1
        else:
            self.created(1)
            self.show(describe(entry))

    def show(self, after: str, before: str | None = None) -> None:
        """Add a line to the diff, and the line that it replaces. Without room for another line, do nothing."""
        if self.shows_more:
            self._after.append(after)
            if before is not None:
                self._before.append(before)

    def record(self, place: int, entry: Entry, outcome: Outcome) -> None:
        """Record the outcome of an entry."""
        if outcome.error is not None:
            self.fail(place, to_document(entry, self._labels), outcome.error, outcome.operation != "unchanged")
            return
        self.entries[outcome.operation] += 1
        if outcome.operation == "unchanged":
            return
        self.changed = True
        if not self.shows_more:
            return
        if outcome.operation == "created":
            self.show(describe(entry))
        else:
            was, is_ = (
                ", ".join(f"{change.key} {getattr(change, side)!r}" for change in outcome.changes)
                for side in ("before", "after")
            )
            self.show(f"{describe(entry)}: {is_}", f"{describe(entry)}: {was}")

    def expected(self, operation: str, line: str) -> None:
        """Record the operation for an expectation."""
        self.expectations[operation] += 1
        if operation != "unchanged":
            self.changed = True
            self.show(line, line if operation == "replaced" else None)

    def fail(
        self, place: int | None, document: Document, reason: object, changed: bool = False, of: str = ENTRIES
    ) -> None:
        """Record a failure: a resource that was not restored, or only in part."""
        counts = self.entries if of == ENTRIES else self.expectations
        counts["failed"] += 1
        self.changed = self.changed or changed
        if len(self.failures) < max(1, self.limit):
            self.failures.append({"index": place, "entry": _readable(document), "msg": str(reason)})

    def purged(self, foreign: DeletionPlan, flushing: DeletionProgress) -> None:
        """Record the deletions of entries that are not in the snapshot."""
        self.kept = foreign.kept
        self.entries["deleted"] = flushing.deleted
        self.changed = self.changed or flushing.changed
        self._before += map(describe, foreign.shown)
        if flushing.failed:
            stay = f"{numbered(flushing.failed, 'entry', 'entries')} in scope {_verb(flushing.failed, 'stays', 'stay')}"
            self.fail(None, {}, f"{stay}{flushing.doubt}, the first because: {flushing.failure}")
            self.entries["failed"] = self._staying = flushing.failed

    def sentence(self) -> str:
        """Return the message about the failures."""
        failed = self.entries["failed"] + self.expectations["failed"] - self._staying
        rest = self._header.entries + self._header.expectations - failed
        first = self.failures[0]
        sentences = []
        if self._staying:
            sentences.append(first["msg"])
        if failed:
            tense = "would not be" if self._check_mode else f"{_verb(failed, 'is', 'are')} not"
            why = "" if self._staying else f", the first because: record {first['index']}: {first['msg']}"
            sentences.append(f"{failed} of {self._header.amount()} {tense} as in the snapshot{why}")
        if rest:
            so = "would be" if self._check_mode else "is"
            sentences.append(f"The rest {so}{'' if failed else ' as in the snapshot'}")
        return f"{'. '.join(sentences)}; see failed_entries"

    def so_far(self) -> str:
        done = sum(self.entries[key] + self.expectations[key] for key in ("created", "updated", "replaced"))
        more = f". {self.unknown} more may have been, because the answers were lost" if self.unknown else ""
        return f"{done} of {self._header.amount()} had been restored until then; see counts{more}"

    def result(self) -> Document:
        result: Document = {
            "changed": self.changed,
            **self._header.as_result(),
            "counts": self.entries,
            "expectation_counts": self.expectations,
            "kept": self.kept,
            "unknown": self.unknown,
            "failed_entries": self.failures[: self.limit],
            "diff": {
                "before": "".join(f"{line}\n" for line in sorted(self._before)),
                "after": "".join(f"{line}\n" for line in sorted(self._after)),
            },
        }
        warnings = list(self.warnings)
        if self.unknown:
            warnings.append(
                f"The answers to the creation of {numbered(self.unknown, 'entry', 'entries')} were lost: the module "
                "cannot determine whether it created them"
            )
        return {**result, "warnings": warnings} if warnings else result


def _readable(document: Document) -> Document:
    """Replace lone surrogates, which JSON can contain but Ansible cannot encode in a result."""
    readable: Document = json.loads(json.dumps(document, ensure_ascii=False).encode("utf-8", "replace"))
    return readable


def _verb(number: int, one: str, several: str) -> str:
    return one if number == 1 else several
