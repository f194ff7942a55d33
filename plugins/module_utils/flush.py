# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove what matches, and nothing else.

The table is read and every entry, or expectation, asked; the ones that match are deleted one by one, each by
its tuple, zone and id, so that one that took another's place meanwhile is left alone. The kernel's own flush
is never used.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Callable, Iterator, NamedTuple, Sequence

from .client import expectation, messages
from .client.codec import Values
from .client.document import Document
from .client.errors import KernelError, NotFound, ResultUnknown
from .client.labels import LabelMap
from .client.match import Match
from .client.netlink import Message
from .client.session import Endpoints, carries
from .client.table import Table
from .failure import Failed
from .kinds import ENTRIES, EXPECTATIONS, Kind

METHOD = "delete"


class FlushFailed(Failed):
    """Not all that matches was removed."""


class Target(NamedTuple):
    """What is flushed: how it is read, what is kept of each that matches, and how those are removed.

    `remove` gives for each, in order, None or the error that befell it.
    """

    kind: Kind
    read: Callable[[Table], Iterator[Values]]
    doomed: Callable[[Values], Any]
    remove: Callable[[Table, Sequence[Any]], Iterator[KernelError | None]]


class Selection:
    """What is to be removed, and what of it is to be shown.

    Of each only what `Target.doomed` makes of it is kept, for there may be a million; and not even
    that beyond `most`, where nothing will be removed.
    """

    def __init__(self, target: Target, report_limit: int, most: float) -> None:
        self.doomed: list[Any] = []
        self.shown: list[Values] = []
        self.count = 0
        self.kept = 0
        self._target = target
        self._report_limit = report_limit
        self._most = most

    def add(self, thing: Values) -> None:
        self.count += 1
        if self.count <= self._most:
            self.doomed.append(self._target.doomed(thing))
        else:
            self.doomed.clear()
        if len(self.shown) < self._report_limit:
            self.shown.append(thing)


def _remove_entries(table: Table, requests: Sequence[Message]) -> Iterator[KernelError | None]:
    for request, error in zip(requests, table.send_all("deleting", requests)):
        if isinstance(error, ResultUnknown):
            entry = messages.parse_entry(request)
            yield _remove_again(functools.partial(table.delete, entry))
        else:
            yield error


def _remove_again(delete: Callable[[], None]) -> KernelError | None:
    """A deletion whose answer was lost was carried out, unless what it was about is still there."""
    try:
        delete()
    except NotFound:
        return None
    except KernelError as error:
        return error
    return None


def _remove_expectations(table: Table, doomed: Sequence[Values]) -> Iterator[KernelError | None]:
    for one in doomed:
        try:
            expectation.delete(table, one)
        except ResultUnknown:
            yield _remove_again(functools.partial(expectation.delete, table, one))
        except KernelError as error:
            yield error
        else:
            yield None


#: What can be flushed, by the name of the option.
TARGETS: dict[str, Target] = {
    "conntrack": Target(ENTRIES, Table.dump, messages.delete, _remove_entries),
    "expect": Target(
        EXPECTATIONS,
        lambda table: expectation.located(table, expectation.read_all(table)),
        lambda thing: thing,
        _remove_expectations,
    ),
}


def select(
    table: Table,
    match: Match,
    keep: frozenset[Endpoints],
    report_limit: int,
    target: Target,
    most: float = math.inf,
) -> Selection:
    """What matches, without the flows that carry one of the connections in `keep`."""
    selection = Selection(target, report_limit, most)
    matches = target.kind.ask(match)
    for thing in target.read(table):
        if not matches(thing):
            continue
        if keep and target.kind is ENTRIES and carries(thing, keep):
            selection.kept += 1
        else:
            selection.add(thing)
    return selection


def flush(
    table: Table,
    match: Match,
    keep: frozenset[Endpoints],
    limit: int | None,
    report_limit: int,
    labels: LabelMap,
    check_mode: bool,
    target: Target = TARGETS["conntrack"],
) -> Document:
    """Remove what matches and return what was done, in the form of a module's result.

    Raises `FlushFailed` where more than `limit` match, before anything is removed, and where the
    kernel refused a deletion, after all others.
    """
    most = 0 if check_mode else math.inf if limit is None else limit
    selection = select(table, match, keep, report_limit, target, most)
    noun = target.kind.noun
    result: Document = {
        "changed": False,
        "flushed": 0,
        "kept": selection.kept,
        "gone": 0,
        "entries": [target.kind.present(thing, labels) for thing in selection.shown],
        "method": METHOD,
    }
    if limit is not None and selection.count > limit:
        raise FlushFailed(
            f"{selection.count} {noun} match, more than the limit of {limit}. Nothing was removed: "
            "narrow the match or raise the limit",
            result,
        )
    if check_mode:
        result["flushed"] = selection.count
    else:
        failures = _remove(table, target, selection, result)
        if failures:
            raise FlushFailed(
                f"{len(failures)} of {selection.count} {noun} were not removed, the first because: {failures[0]}",
                {**result, "changed": result["flushed"] > 0},
            )
    result["changed"] = result["flushed"] > 0
    result["diff"] = {"before": "".join(_lines(target, selection.shown)), "after": ""}
    return result


def _remove(table: Table, target: Target, selection: Selection, result: dict[str, Any]) -> list[KernelError]:
    failures = []
    for error in target.remove(table, selection.doomed):
        if error is None:
            result["flushed"] += 1
        elif isinstance(error, NotFound):
            result["gone"] += 1
        else:
            failures.append(error)
    return failures


def _lines(target: Target, shown: list[Values]) -> Iterator[str]:
    for line in sorted(map(target.kind.describe, shown)):
        yield line + "\n"
