# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the task of a module in several network namespaces, and combine the results.

The task runs in each namespace as it would run in it alone. The combined result has the result of each namespace in the
list `namespaces`, and sums. It is a list because a namespace may have several names, or none that lasts.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Callable, Sequence

from ..client.errors import NAMED, ConntrackError, InvalidValue, PartialFailure, named
from ..client.host.namespaces import HostNamespace, Unreadable, cannot_enter, find, find_all, processes_of, visit
from ..client.table_reader import UNLIMITED
from .resource import resource_of

if TYPE_CHECKING:
    from ..client.entry.nested import Document

#: The results that are added.
_SUMS = ("matched", "flushed", "kept", "gone", "total", "count", "will_return", "ended_sockets")
#: The results that are true if they are true for one namespace.
_ANY = ("changed", "truncated")
#: The facts that do not depend on the namespace.
_OF_THE_KERNEL = ("capabilities",)


class SomeFailed(PartialFailure):
    """The task failed in some of the namespaces. The result has the results of all namespaces."""


class _Results:
    """The results of a task in the namespaces."""

    def __init__(self) -> None:
        self.items: dict[tuple[int, int], Document] = {}
        self.failures: list[Document] = []
        #: The wrong options. If every namespace reports one, the task itself is wrong.
        self._invalid: list[InvalidValue] = []
        self._diffs: dict[tuple[int, int], Document] = {}
        self._warnings: dict[str, None] = {}
        self._of_facts = False
        self._shared: Document = {}

    def hidden(self, unreadable: Unreadable) -> None:
        """Add the processes whose namespaces cannot be identified."""
        self.failures.append({"netns": unreadable.path, "msg": str(unreadable)})

    def add(self, one: HostNamespace, result: Document, failure: ConntrackError | None = None) -> Document:
        """Add the result in a namespace, or replace it."""
        facts = result.pop("ansible_facts", None)
        if facts is not None:
            self._of_facts = True
            result.update(facts["conntrack"])
            self._shared.update({key: result.pop(key) for key in _OF_THE_KERNEL if key in result})
        self._warnings.update(dict.fromkeys(f"{one.netns}: {text}" for text in result.pop("warnings", ())))
        self._diffs[one.identity] = {"before_header": one.netns, "after_header": one.netns, **result.pop("diff", {})}
        item = {"netns": one.netns, "processes": processes_of(one), **result}
        if failure is not None:
            item["msg"] = str(failure)
            self.failures.append(item)
            if isinstance(failure, InvalidValue):
                self._invalid.append(failure)
        self.items[one.identity] = item
        return item

    def remove(self, one: HostNamespace) -> None:
        """Remove the result in a namespace."""
        del self.items[one.identity], self._diffs[one.identity]

    def check_options(self) -> None:
        """Raise `InvalidValue` if the options are wrong in every namespace."""
        if self._invalid and len(self._invalid) == len(self.items):
            raise self._invalid[0]

    def sum(self, key: str) -> int:
        """Return the sum of a number."""
        return sum(item.get(key, 0) for item in self.items.values())

    def _known_sum(self, key: str) -> int | None:
        """Return the sum of a number, None if it is unknown in a namespace."""
        return None if any(item.get(key, 0) is None for item in self.items.values()) else self.sum(key)

    def document(self) -> Document:
        """Return the combined result."""
        listed = self._listed()
        keys = {key for item in listed for key in item}
        result: Document = {key: self._known_sum(key) for key in _SUMS if key in keys}
        result.update({key: any(item.get(key) for item in listed) for key in _ANY if key in keys})
        if "verdicts" in keys:
            verdicts: Counter[str] = Counter()
            for item in listed:
                verdicts.update(item.get("verdicts", {}))
            result["verdicts"] = dict(verdicts)
        result.update(self._shared)
        result["namespaces"] = listed
        if self._of_facts:
            result = {"ansible_facts": {"conntrack": result}}
        if self._warnings:
            result["warnings"] = list(self._warnings)
        diffs = [diff for diff in self._diffs.values() if "before" in diff]
        return {**result, "diff": diffs} if diffs else result

    def finish(self) -> Document:
        """Return the combined result. Raises `SomeFailed` if there are failures."""
        if not self.failures:
            return self.document()
        first = self.failures[0]
        raise SomeFailed(
            f"netns: the task failed in {len(self.failures)} of {len(self._listed())} namespaces, first in "
            f"{first['netns']}: {first['msg']}. See the key namespaces for the result of each",
            self.document(),
        )

    def _listed(self) -> list[Document]:
        return [*self.items.values(), *(item for item in self.failures if "processes" not in item)]


def run_in_each(module: Any, task: Callable[[Any], Document]) -> Document:
    """Run the task of a module that reads in each of its namespaces, and return the combined result."""
    if module.params.get("ruleset"):
        raise InvalidValue(
            "ruleset",
            "is the ruleset of one namespace, and netns names several; write one namespace in netns, or leave ruleset "
            "out",
        )
    results = _Results()
    namespaces = _namespaces_of(module, results)
    _run(module, task, namespaces, results)
    _report_ended(module, namespaces, results)
    return results.finish()


def flush_in_each(module: Any, task: Callable[[Any], Document]) -> Document:
    """Run the task of a module that removes entries in each of its namespaces, and return the combined result.

    With a limit, the task first counts in every namespace, and removes nothing if all together exceed the limit.
    """
    params = module.params
    written = {name: params[name] for name in ("limit", "report_limit")}
    try:
        return _flush_in_each(module, task)
    finally:
        params.update(written)


def _flush_in_each(module: Any, task: Callable[[Any], Document]) -> Document:
    params, limit = module.params, module.params["limit"]
    report_limit = params["report_limit"]
    results = _Results()
    namespaces = _namespaces_of(module, results)
    if limit is None or not 0 <= limit < UNLIMITED:
        _run(module, task, namespaces, results)
        _report_ended(module, namespaces, results)
        return results.finish()
    check_mode, module.check_mode, params["limit"] = module.check_mode, True, UNLIMITED
    _run(module, task, namespaces, results)
    if results.sum("flushed") > limit:
        raise _too_many(results, limit, resource_of(params["table"]).noun)
    if not check_mode:
        module.check_mode, params["limit"], params["report_limit"] = False, limit, report_limit
        chosen = [one for one in namespaces if results.items.get(one.identity, {}).get("flushed")]
        predicted = [results.items[one.identity] for one in chosen]
        _run(module, task, chosen, results)
        for one, item in zip(chosen, predicted):
            if results.items[one.identity] is item:  # the namespace has ended
                results.remove(one)
    _report_ended(module, namespaces, results)
    return results.finish()


def _namespaces_of(module: Any, results: _Results) -> list[HostNamespace]:
    wanted = module.params["netns"]
    if wanted != "all":
        return find(wanted)
    namespaces, unreadable = find_all()
    if unreadable is not None:
        results.hidden(unreadable)
    return namespaces


def _run(module: Any, task: Callable[[Any], Document], namespaces: Sequence[HostNamespace], results: _Results) -> None:
    """Run the task in namespaces, and add the results. Numbers that all namespaces share are counted down."""
    params = module.params
    for one, error in visit(namespaces):
        if error is not None:
            results.add(one, {}, ConntrackError(cannot_enter(one.paths[0], error.strerror)))
            continue
        try:
            item = results.add(one, task(module))
        except ConntrackError as failure:
            done = dict(failure.result) if isinstance(failure, PartialFailure) else {}
            item = results.add(one, done, failure)
        if "report_limit" in params and "entries" in item:
            params["report_limit"] = max(params["report_limit"] - len(item["entries"]), 0)
            if params["limit"] < UNLIMITED:
                params["limit"] -= item["flushed"]
    results.check_options()


def _report_ended(module: Any, namespaces: Sequence[HostNamespace], results: _Results) -> None:
    """Add a failure for each namespace that a list names and that has ended. With `all`, these are left out."""
    for one in namespaces if module.params["netns"] != "all" else ():
        if one.identity not in results.items:
            results.add(one, {}, ConntrackError(f"netns: {one.netns} ended during the task; leave it out of the list"))


def _too_many(results: _Results, limit: int, noun: str) -> SomeFailed:
    """Return the error if more entries match than the limit. Nothing was removed."""
    items = sorted((item for item in results.items.values() if item.get("flushed")), key=lambda item: -item["flushed"])
    count = results.sum("flushed")
    names = [f"{item['flushed']} in {item['netns']}" for item in items]
    for item in items:
        item.update(changed=False, flushed=0, entries=item["entries"][:NAMED])
        item.update({key: 0 for key in ("will_return", "ended_sockets") if key in item})
    document = results.document()
    document.pop("diff", None)
    return SomeFailed(
        f"{count} {noun} match in {len(items)} namespaces, more than the limit of {limit}"
        f"{named(names, len(names))}. Nothing was removed: narrow the match or raise the limit",
        document,
    )
