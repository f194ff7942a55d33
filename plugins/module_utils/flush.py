# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove what matches, and nothing else.

The table is read and every entry asked; the ones that match are deleted one by one, each by its
tuple, zone and id, so that an entry that took another's place meanwhile is left alone. The
kernel's own flush is never used.
"""

from __future__ import annotations

from typing import Any, Iterator

from .client import messages
from .client.entry import Entry, describe
from .client.errors import ConntrackError, KernelError, NotFound, ResultUnknown
from .client.labels import LabelMap
from .client.match import Match
from .client.netlink import Message
from .client.session import Endpoints, carries
from .client.shape import Document, present
from .client.table import Table

METHOD = "delete"


class FlushFailed(ConntrackError):
    """Not all that matches was removed; `result` says what was, in the form of a module's."""

    def __init__(self, sentence: str, result: Document) -> None:
        super().__init__(sentence)
        self.result = result


class Selection:
    """The entries to be removed, and those of them to be shown.

    Of each only its delete request is kept, for there may be a million.
    """

    def __init__(self, report_limit: int) -> None:
        self.requests: list[Message] = []
        self.shown: list[Entry] = []
        self.kept = 0
        self._report_limit = report_limit

    def add(self, entry: Entry) -> None:
        self.requests.append(messages.delete(entry))
        if len(self.shown) < self._report_limit:
            self.shown.append(entry)

    def __len__(self) -> int:
        return len(self.requests)


def select(table: Table, match: Match, keep: frozenset[Endpoints], report_limit: int) -> Selection:
    """What matches, without the flows that carry one of the connections in `keep`."""
    selection = Selection(report_limit)
    for entry in table.dump():
        if not match(entry):
            continue
        if keep and carries(entry, keep):
            selection.kept += 1
        else:
            selection.add(entry)
    return selection


def flush(
    table: Table,
    match: Match,
    keep: frozenset[Endpoints],
    limit: int | None,
    report_limit: int,
    labels: LabelMap,
    check_mode: bool,
) -> Document:
    """Remove the entries that match and return what was done, in the form of a module's result.

    Raises `FlushFailed` where more than `limit` match, before anything is removed, and where the
    kernel refused a deletion, after all others.
    """
    selection = select(table, match, keep, report_limit)
    result: Document = {
        "changed": False,
        "flushed": 0,
        "kept": selection.kept,
        "gone": 0,
        "entries": [present(entry, labels) for entry in selection.shown],
        "method": METHOD,
    }
    if limit is not None and len(selection) > limit:
        raise FlushFailed(
            f"{len(selection)} entries match, more than the limit of {limit}. Nothing was removed: "
            "narrow the match or raise the limit",
            result,
        )
    if check_mode:
        result["flushed"] = len(selection)
    else:
        failures = _remove(table, selection, result)
        if failures:
            raise FlushFailed(
                f"{len(failures)} of {len(selection)} entries were not removed, the first because: {failures[0]}",
                {**result, "changed": result["flushed"] > 0},
            )
    result["changed"] = result["flushed"] > 0
    result["diff"] = {"before": "".join(_lines(selection.shown)), "after": ""}
    return result


def _remove(table: Table, selection: Selection, result: dict[str, Any]) -> list[KernelError]:
    failures = []
    for request, error in zip(selection.requests, table.send_all("deleting", selection.requests)):
        if isinstance(error, ResultUnknown):
            error = _remove_again(table, messages.parse_entry(request))
        if error is None:
            result["flushed"] += 1
        elif isinstance(error, NotFound):
            result["gone"] += 1
        else:
            failures.append(error)
    return failures


def _remove_again(table: Table, entry: Entry) -> KernelError | None:
    """A deletion whose answer was lost was carried out, unless the entry is still there."""
    try:
        table.delete(entry)
    except NotFound:
        return None
    except KernelError as error:
        return error
    return None


def _lines(entries: list[Entry]) -> Iterator[str]:
    for line in sorted(describe(entry) for entry in entries):
        yield line + "\n"
