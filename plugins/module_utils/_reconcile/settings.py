# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Apply declared settings in the kernel and in the files that are read at boot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping

from ..client.errors import ConntrackError, InvalidValue, PartialFailure
from ..client.host import sysctl
from ..client.host.sysctl import DIRECTORY

if TYPE_CHECKING:
    from ..client.entry.nested import Document
    from .sysctl_files import Edit

KERNEL = "kernel"


class SettingsFailed(PartialFailure):
    """Not all settings are as declared."""


def load() -> None:
    """Make the kernel load connection tracking if it has not. Without it there are no settings."""
    if sysctl.read("max") is None:
        from ..client.table import Table

        with Table() as table:
            table.count()


def declared_settings(params: Mapping[str, Any]) -> dict[str, int]:
    """Return the settings that a module's parameters declare, by name.

    Raises `InvalidValue` for an invalid value, and if no setting is declared.
    """
    declared = sysctl.parse(params)
    if not declared:
        raise InvalidValue("", "No setting is declared; write at least one, such as max or accounting")
    return declared


def reconcile(
    declared: Mapping[str, int], persist_in: str | None, check_mode: bool, directory: str = DIRECTORY
) -> Document:
    """Apply the declared settings, with `persist_in` also for the next boot, and return the module's result.

    `warnings` contains the warnings for the user. Everything is checked before anything is written. Raises
    `CannotSet` if /proc is not mounted, `InvalidValue` before any change, and `SettingsFailed` with the changes that
    were made before the error.
    """
    sysctl.check_mounted(directory)
    before = sysctl.read_all(directory)
    result: Document = {"changed": False, "before": before, "settings": before, "changes": []}
    edits: list[Edit] = []
    try:
        files = _files(declared, directory)
        if persist_in is not None:
            from . import sysctl_files  # imported here because most tasks persist nothing

            sysctl_files.check_directory(persist_in)
            edits = sysctl_files.plan(files, persist_in)
        there = sysctl.flat(before)
        differing = {
            name: value for name, value in declared.items() if not sysctl.is_as_declared(name, value, there.get(name))
        }
        sysctl.check_values(differing, there)
        sysctl.check_room(differing, directory)
        for name in differing:
            sysctl.check_writable(name, directory)
    except InvalidValue:
        raise
    except ConntrackError as error:
        raise SettingsFailed(f"{error}. Nothing was changed.", result) from error

    if check_mode:
        changes = [_change(name, KERNEL, there.get(name), value) for name, value in sysctl.in_order(differing, there)]
        changes += [_change(where=edit.path, **change) for edit in edits for change in edit.changes]
        result["settings"] = _predicted(before, differing)
    else:
        changes = _write(differing, edits, there, directory, result)
        result["settings"] = sysctl.read_all(directory)
    result["changed"] = bool(changes)
    result["changes"] = changes
    result["warnings"] = [] if persist_in is None else sysctl_files.overriding(files, persist_in)
    result["diff"] = [_diff(declared, there, differing)] + [
        {"before": edit.before, "after": edit.after, "before_header": edit.path, "after_header": edit.path}
        for edit in edits
    ]
    return result


def _files(declared: Mapping[str, int], directory: str) -> dict[str, int]:
    """Return the declared values by the files of their settings. Raises `CannotSet` if the kernel lacks a file."""
    files = {}
    for name, value in declared.items():
        file = sysctl.file_of(name, directory)
        if file is None:
            sentence = f"{name}: this kernel has no such setting"
            if name.startswith("timeouts."):
                sentence += f"; it has timeouts of {', '.join(sysctl.read_timeouts(directory))}"
            raise sysctl.CannotSet(sentence)
        files[file] = value
    return files


def _write(
    differing: Mapping[str, int],
    edits: list[Edit],
    there: Mapping[str, int],
    directory: str,
    result: Document,
) -> list[Document]:
    """Write the kernel's settings, then the files, and return the changes. Raises `SettingsFailed`."""
    done: list[Document] = []
    try:
        for name, value in sysctl.in_order(differing, there):
            sysctl.write(name, value, directory)
            done.append(_change(name, KERNEL, there.get(name), value))
        now = sysctl.flat(sysctl.read_all(directory))
        for name, value in differing.items():
            if not sysctl.is_as_declared(name, value, now.get(name)):
                raise sysctl.CannotSet(f"{name}: the kernel made {now.get(name)} of {value}")
        for edit in edits:
            from . import sysctl_files

            sysctl_files.write(edit)
            done += [_change(where=edit.path, **change) for change in edit.changes]
    except ConntrackError as error:
        written = ", ".join(f"{change['key']} ({change['where']})" for change in done) or "nothing"
        raise SettingsFailed(
            f"{error}. These were changed: {written}.",
            {**result, "changed": bool(done), "changes": done, "settings": sysctl.read_all(directory)},
        ) from error
    return done


# The result


def _change(key: str, where: str, before: Any, after: Any) -> Document:
    return {"key": key, "where": where, "before": before, "after": after}


def _predicted(before: Document, differing: Mapping[str, int]) -> Document:
    predicted = {**before, "timeouts": dict(before["timeouts"])}
    for name, value in differing.items():
        group, dot, state = name.partition(".")
        (predicted[group] if dot else predicted)[state or group] = value
    return predicted


def _diff(declared: Mapping[str, int], there: Mapping[str, int], differing: Mapping[str, int]) -> Document:
    before = {name: there.get(name) for name in sorted(declared)}
    return {
        "before": before,
        "after": {name: differing.get(name, value) for name, value in before.items()},
        "before_header": "net.netfilter",
        "after_header": "net.netfilter",
    }
