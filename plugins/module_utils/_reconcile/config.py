# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Apply the declaration for a whole gateway, section by section.

A section may depend on the sections before it. Settings and timeout policies come before the connections that use
them. Entries that must be absent are deleted before others are created, to make room for them. Expectations come after
their masters. All sections are planned before the first is applied, each for the table as the sections before it leave
it.
"""

from __future__ import annotations

import contextlib
from typing import Callable, Iterator, Mapping, NamedTuple, Sequence

from .._operations.flush import DeletionPlan, DeletionProgress
from ..client.entry.entry import describe, identity
from ..client.entry.labels import LabelMap
from ..client.entry.nested import Document
from ..client.errors import ConntrackError, InvalidValue, KernelError, PartialFailure
from ..client.host.ssh_session import TcpConnection, match_connections
from ..client.host.sysctl import DIRECTORY
from ..client.match.expression import Or
from ..client.match.match import Match
from ..client.netlink.socket import Closing, NetlinkSocket
from ..client.table import Table
from .desired_config import Declaration
from .entries import NO_COUNTS, EntriesFailed, reconcile_all
from .plan import ProjectedTable
from .purge import deletions, purge_of

#: The initial result of every section.
_NOTHING: Document = {"outcome": "not declared", "changed": False, "counts": NO_COUNTS, "changes": [], "msg": ""}
#: The initial results of the sections, in the order in which they are applied.
SECTIONS: dict[str, Document] = {
    "settings": _NOTHING,
    "timeout_policies": _NOTHING,
    "absent": {**_NOTHING, "kept": 0},
    "entries": {**_NOTHING, "kept": 0, "failed_entries": []},
    "expectations": {**_NOTHING, "evicted": []},
}


#: The outcomes of sections in which nothing was done.
IDLE = ("not declared", "not reached")


class ConfigFailed(PartialFailure):
    """The declaration was not applied in full."""


class _SectionFailed(PartialFailure):
    """A section could not be applied. `result` contains what was done."""


class Context(NamedTuple):
    """The environment and the options with which a declaration is applied."""

    labels: LabelMap = LabelMap()
    keep: frozenset[TcpConnection] = frozenset()
    report_limit: int = 100
    connect: Callable[[], NetlinkSocket] = NetlinkSocket
    directory: str = DIRECTORY


def reconcile(declaration: Declaration, check_mode: bool, context: Context) -> Document:
    """Apply a declaration and return the module's result; `warnings` contains the warnings for the user.

    Raises `ConfigFailed`. If planning shows that a section cannot be applied, nothing was done. Otherwise the result
    contains what was done and which sections were not reached.
    """
    with _Run(declaration, context) as steps:
        predicted = steps.run(dry_run=True)
    if check_mode:
        return predicted
    with _Run(declaration, context) as steps:
        return steps.run(dry_run=False)


class _Run(Closing):
    """One pass through all sections, to predict or to apply them."""

    def __init__(self, declaration: Declaration, context: Context) -> None:
        self._declaration = declaration
        self._context = context
        self._table = Table(context.connect)
        self._absence = _either(declaration.absent or (), context.keep)
        #: In a dry run, the table after the sections that were planned so far.
        self._ahead = ProjectedTable(self._table, [self._absence] if declaration.absent else ())
        self._diff: list[Document] = []
        self._warnings: list[str] = []

    def close(self) -> None:
        self._table.close()

    def run(self, dry_run: bool) -> Document:
        """Return the result of all sections. Raises `ConfigFailed` at the first section that fails."""
        declaration = self._declaration
        steps: dict[str, tuple[object, Callable[[bool], Document]]] = {
            "settings": (declaration.settings, self._settings),
            "timeout_policies": (declaration.policies, self._policies),
            "absent": (declaration.absent, self._absent),
            "entries": (declaration.entries, self._entries),
            "expectations": (declaration.expectations, self._expectations),
        }
        sections = {
            name: {**blank, "outcome": "not declared" if steps[name][0] is None else "not reached"}
            for name, blank in SECTIONS.items()
        }
        untouched = {name: dict(section) for name, section in sections.items()}
        for name, (declared, step) in steps.items():
            if declared is None:
                continue
            try:
                sections[name].update(step(dry_run), outcome="applied")
            except ConntrackError as error:
                sentence = str(error) if isinstance(error, (InvalidValue, _SectionFailed)) else f"{name}: {error}"
                done = error.result if isinstance(error, _SectionFailed) else {"counts": {**NO_COUNTS, "failed": 1}}
                failed = {"outcome": "failed", "msg": sentence}
                if dry_run:
                    untouched[name].update(_undone(done), **failed)
                    raise ConfigFailed(f"{sentence}. Nothing was changed", self._of_failure(untouched)) from error
                sections[name].update(done, **failed)
                raise ConfigFailed(f"{sentence}. {_around(sections)}", self._of_failure(sections)) from error
        return {**_result(sections), "warnings": self._warnings, "diff": self._diff}

    def _of_failure(self, sections: Mapping[str, Document]) -> Document:
        """Return the result of a failure. Sections that were not declared or not reached have no counts."""
        return {
            **_result(sections),
            **{name: without_counts(section) for name, section in sections.items() if section["outcome"] in IDLE},
            "warnings": self._warnings,
        }

    def _settings(self, dry_run: bool) -> Document:
        from ..client.host import sysctl
        from .settings import SettingsFailed, reconcile

        declaration, directory = self._declaration, self._context.directory
        declared = declaration.settings or {}
        if sysctl.read("max", directory) is None:
            self._table.count()  # makes the kernel load connection tracking, without which there are no settings
        try:
            done = reconcile(declared, declaration.persist_in, dry_run, directory)
        except SettingsFailed as failure:
            sentence = str(failure.__cause__ if dry_run else failure).rstrip(".")
            raise _SectionFailed(f"settings: {sentence}", _of_settings(failure.result, len(declared), 1)) from failure
        self._diff += [diff for diff in done["diff"] if diff["before"] != diff["after"]]
        self._warnings += done["warnings"]
        return _of_settings(done, len(declared))

    def _policies(self, dry_run: bool) -> Document:
        from ..client.timeout_policy import describe, to_document
        from .timeout_policy import reconcile

        section = _Section("timeout_policies", self._context.report_limit)
        for place, (values, state, replace) in enumerate(self._declaration.policies or ()):
            with section.one(place, "policy", to_document(values)) as done:
                done.update(reconcile(self._table, values, state, replace, dry_run))
            self._show(done, describe(values))
        return section.result()

    def _absent(self, dry_run: bool) -> Document:
        context = self._context
        self._check_absence()
        match = _either(self._declaration.absent or ())
        purge = DeletionProgress(DeletionPlan(self._table, match, context.keep, context.report_limit))

        def result(failed: int = 0) -> Document:
            counts = {**NO_COUNTS, "deleted": purge.deleted, "failed": purge.failed + failed}
            changes = deletions(purge.plan, context.labels)
            return {"changed": purge.changed, "counts": counts, "changes": changes, "kept": purge.plan.kept}

        purge.plan.read(dry_run)
        try:
            purge.finish(dry_run)
        except ConntrackError as error:
            raise _SectionFailed(f"absent: {error}", result(failed=1)) from error
        if purge.failed:
            raise _SectionFailed(
                f"absent: {purge.failed} stay{purge.doubt}, the first because: {purge.failure}", result()
            )
        lines = "".join(sorted(describe(entry) + "\n" for entry in purge.plan.shown))
        self._show({"diff": {"before": lines, "after": ""}}, "absent")
        return result()

    def _check_absence(self) -> None:
        """Raise `InvalidValue` if a declared entry exists and is one of those that must be absent."""
        declared = self._declaration.entries or ()
        for place, (entry, answer) in enumerate(zip(declared, self._table.find_by_tuples(declared))):
            if isinstance(answer, KernelError) or identity(answer) != identity(entry) or not self._absence(answer):
                continue
            at = next(at for at, match in enumerate(self._declaration.absent or ()) if match(answer))
            raise InvalidValue(
                f"absent[{at}]",
                f"matches {describe(answer)}, which exists and which entries.declared[{place}] declares; "
                "narrow this match, or remove that declaration",
            )

    def _entries(self, dry_run: bool) -> Document:
        declaration, context = self._declaration, self._context
        declared, limit = declaration.entries or (), context.report_limit
        view = self._ahead if dry_run else None
        purge, scope = None, declaration.scope
        if scope is not None:
            scope = scope.but_not(self._absence) if dry_run else scope
            purge = purge_of(self._table, scope, declared, context.keep, limit)
        try:
            done = reconcile_all(self._table, declared, declaration.policy, context.labels, dry_run, purge, limit, view)
        except InvalidValue as fault:
            key = fault.key.replace("entries[", "entries.declared[", 1)
            raise InvalidValue(key, fault.problem) from fault
        except EntriesFailed as failure:
            raise _SectionFailed(_of_failed_entries(failure.result, dry_run), _of_entries(failure.result)) from failure
        self._show(done, "entries")
        return _of_entries(done)

    def _expectations(self, dry_run: bool) -> Document:
        from ..client.expectation.expectation import describe, to_document
        from .expectation import EVICTED, reconcile

        view = self._ahead if dry_run else None
        section = _Section("expectations", self._context.report_limit)
        section.more["evicted"] = []
        try:
            for place, (values, policy) in enumerate(self._declaration.expectations or ()):
                with section.one(place, "expectation", to_document(values)) as done:
                    done.update(reconcile(self._table, values, policy, dry_run, view))
                self._show(done, describe(values))
                if done["operation"] in ("deleted", "replaced"):
                    self._ahead.dropped_expectations.add(done["before"]["id"])
        finally:
            if section.more["evicted"]:
                self._warnings.append(EVICTED)
        return section.result()

    def _show(self, done: Document, what: str) -> None:
        diff = done["diff"]
        if diff["before"] != diff["after"]:
            self._diff.append({**diff, "before_header": what, "after_header": what})


class _Section:
    """The results of the resources of a section."""

    def __init__(self, name: str, report_limit: int) -> None:
        self._name = name
        self._report_limit = report_limit
        self._counts = dict(NO_COUNTS)
        self._changes: list[Document] = []
        #: Lists that only the results of this section have, with the items of all its resources.
        self.more: dict[str, list[Document]] = {}

    @contextlib.contextmanager
    def one(self, place: int, what: str, declared: Document) -> Iterator[Document]:
        """Record the result of one resource. The block puts it into the dictionary that this yields.

        Raises `_SectionFailed` for a `ConntrackError` in the block.
        """
        key = f"{self._name}[{place}]"
        done: Document = {}
        failure: ConntrackError | None = None
        try:
            yield done
        except ConntrackError as error:
            failure, done = error, getattr(error, "result", {})
        for name, found in self.more.items():
            found += done.get(name, [])
        operation = done.get("operation", "unchanged")
        self._counts[operation if failure is None else "failed"] += 1
        if operation != "unchanged":
            changes = done.get("changes", [])
            self._changes.append({"index": place, "operation": operation, what: declared, "changes": changes})
        if isinstance(failure, InvalidValue):
            raise _SectionFailed(str(failure.under(key)), self.result()) from failure
        if failure is not None:
            raise _SectionFailed(f"{key}: {failure}", self.result()) from failure

    def result(self) -> Document:
        shown = self._changes[: self._report_limit]
        return {"changed": bool(self._changes), "counts": self._counts, "changes": shown, **self.more}


# The selection of entries


def _either(matches: Sequence[Match], keep: frozenset[TcpConnection] = frozenset()) -> Match:
    """Return a match for entries that match one of `matches` and do not belong to a connection in `keep`."""
    match = Match(Or(tuple(match.term for match in matches)))
    return match.but_not(Match(match_connections(keep))) if keep else match


# The report


def _result(sections: Mapping[str, Document]) -> Document:
    counts = {key: sum(section["counts"][key] for section in sections.values()) for key in NO_COUNTS}
    return {"changed": any(section["changed"] for section in sections.values()), "counts": counts, **sections}


def without_counts(section: Document) -> Document:
    """Return a section of a result without its counts."""
    return {key: value for key, value in section.items() if key != "counts"}


def _around(sections: Mapping[str, Document]) -> str:
    """Return a sentence with the sections that were applied before the failed one, and those not reached."""
    names = {
        outcome: ", ".join(name for name, section in sections.items() if section["outcome"] == outcome)
        for outcome in ("applied", "not reached")
    }
    return f"Applied before: {names['applied'] or 'nothing'}. Not reached: {names['not reached'] or 'nothing'}"


def _undone(done: Document) -> Document:
    """Return the result of a section that failed in a dry run: only its failures remain."""
    counts = {**NO_COUNTS, "failed": done["counts"]["failed"]}
    return {"counts": counts, **{key: done[key] for key in ("failed_entries",) if key in done}}


def _of_settings(done: Document, declared: int, failed: int = 0) -> Document:
    """Return the result of the section. A setting counts once for the kernel and once for each changed file."""
    changes = done["changes"]
    here = sum(change["where"] == "kernel" for change in changes)
    counts = {**NO_COUNTS, "updated": len(changes), "unchanged": 0 if failed else declared - here, "failed": failed}
    return {"changed": done["changed"], "counts": counts, "changes": changes}


def _of_entries(done: Document) -> Document:
    return {key: done[key] for key in ("changed", "counts", "kept", "changes", "failed_entries")}


def _of_failed_entries(result: Document, dry_run: bool) -> str:
    counts = result["counts"]
    so = "cannot be" if dry_run else "are not"
    about = f"entries: {counts['failed']} of {sum(counts.values())} {so} as declared"
    for first in result["failed_entries"][:1]:
        place = "" if first["index"] is None else f"declared[{first['index']}]: "
        about += f", the first because: {place}{first['msg']}"
    return f"{about}; see failed_entries"
