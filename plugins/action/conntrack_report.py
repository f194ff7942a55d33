# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write a report on the connection tracking of many hosts, on the controller."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.validation import check_type_dict
from ansible.plugins.action import ActionBase

from ansible_collections.netops.conntrack.plugins.module_utils._atomic_file import Place, Replacement
from ansible_collections.netops.conntrack.plugins.module_utils.client import input_file
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.nested import no_such_key
from ansible_collections.netops.conntrack.plugins.plugin_utils._report import formatting, junit, page, thresholds
from ansible_collections.netops.conntrack.plugins.plugin_utils._report.model import report

OPTIONS: dict[str, dict[str, Any]] = {
    "hosts": {"type": "dict", "required": True},
    "path": {"type": "path"},
    "json_path": {"type": "path"},
    "junit_path": {"type": "path"},
    "fail_when": {"type": "dict", "options": {name: {"type": "float"} for name in thresholds.NAMES}},
    "title": {"type": "str", "default": "Connection tracking"},
    "gathered": {"type": "str"},
    "origin": {"type": "str"},
}
#: The options that name a file; at least one is given.
PATHS = ("path", "json_path", "junit_path")
#: Every key of the result if the task fails before it writes a file.
NOTHING_DONE: dict[str, Any] = {"changed": False, "files": [], "summary": {}, "attention": [], "exceeded": []}
#: Maximum number of hosts that need attention and of exceeded thresholds in the result, and maximum number of
#: thresholds in the message. The report is complete.
MOST, SENTENCES = 100, 5


class NoReport(Exception):
    """The report cannot be created from the options. The message is a complete sentence."""


class ActionModule(ActionBase):
    """Runs on the controller only, without a connection to a host."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = {**super().run(tmp, task_vars), **NOTHING_DONE}
        try:
            options = self._options()
            document = report(
                options["hosts"],
                options["fail_when"],
                title=options["title"],
                gathered=options["gathered"],
                origin=options["origin"],
            )
            result.update(summary_of(document))
            files = [File(path, text) for path, text in _texts(document, options)]
            result["diff"] = [file.diff() for file in files if file.changed]
            for file in files:
                if file.changed and not self._task.check_mode:
                    file.write()
                result["changed"] |= file.changed
                result["files"] = [*result["files"], {"path": file.path, "changed": file.changed}]
        except NoReport as problem:
            return {**result, "failed": True, "msg": str(problem)}
        if document["exceeded"]:
            return {**result, "failed": True, "msg": sentence(document["exceeded"])}
        return result

    def _options(self) -> dict[str, Any]:
        """The validated options. The facts of the hosts are not validated, so that they are not copied."""
        hosts = self._task.args.get("hosts")
        given = {**self._task.args, **({"hosts": {}} if isinstance(hosts, Mapping) else {})}
        _check_names(given)
        checked = ArgumentSpecValidator(OPTIONS, required_one_of=[PATHS]).validate(given)
        if checked.error_messages:
            raise NoReport(f"{'. '.join(message.rstrip('.') for message in checked.error_messages)}.")
        options = {**checked.validated_parameters, "hosts": hosts}
        try:
            options["fail_when"] = thresholds.parse(options["fail_when"] or {})
        except thresholds.BadThreshold as problem:
            raise NoReport(f"{problem}.") from problem
        if options["gathered"]:
            try:
                options["gathered"] = formatting.utc(options["gathered"])
            except ValueError as problem:
                given = options["gathered"]
                raise NoReport(
                    f"gathered: {given!r} is not a time; write one such as 2026-03-14T09:26:53Z."
                ) from problem
        for name in PATHS:
            if options[name] == "":
                raise NoReport(f"{name}: is empty; write the path of a file, or leave it out.")
        places = [_place_of(options[name]) for name in PATHS if options[name]]
        if len(set(places)) < len(places):
            raise NoReport("path, json_path and junit_path: two of them are one file; write different ones.")
        return options


def _check_names(given: Mapping[str, Any]) -> None:
    """Raise `NoReport` for an option or a threshold that does not exist."""
    for name in given:
        if name not in OPTIONS:
            raise NoReport(f"{no_such_key('', name, OPTIONS)}.")
    try:
        limits = check_type_dict(given.get("fail_when") or {})
    except TypeError:
        raise NoReport("fail_when: is not a dictionary; write names of thresholds and numbers.") from None
    for name in limits:
        if name not in thresholds.NAMES:
            raise NoReport(f"{no_such_key('fail_when', name, thresholds.NAMES)}.")


class File:
    """The current and the new content of a file."""

    def __init__(self, path: str, text: str) -> None:
        self._given = path
        self.path = os.path.join(os.getcwd(), path) if path.endswith("/") else os.path.abspath(path)
        self.text = text.encode()
        self.before: bytes | None = None
        try:
            with Place(path) as place:
                self.before = place.read()
        except FileNotFoundError:
            pass  # also if the directory does not exist
        except OSError as error:
            raise NoReport(f"{self.path}: {error.strerror}. Nothing was written.") from error

    @property
    def changed(self) -> bool:
        return self.before != self.text

    def diff(self) -> dict[str, str]:
        """Sizes and checksums instead of the contents, which are not meant to be read as text."""
        return {
            "before_header": self.path,
            "after_header": self.path,
            "before": _outline(self.before),
            "after": _outline(self.text),
        }

    def write(self) -> None:
        """Replace the file atomically: a program that reads it gets the old or the new content."""
        try:
            with Place(self._given, make=0o777) as place, Replacement(place) as new:
                new.file.write(self.text)
                os.fchmod(new.file.fileno(), _mode(place))
                new.commit()
        except OSError as error:
            raise NoReport(f"{self.path}: {error.strerror}. The result lists the files that were written.") from error


def _place_of(path: str) -> tuple[Any, ...]:
    """A key that is equal for two paths of the same file."""
    try:
        with Place(path) as place:
            return place.key()
    except OSError:
        return (os.path.abspath(path),)


def _mode(place: Place) -> int:
    """The mode of the existing file, or the default for a new one. Raises `OSError` if it is not a regular file."""
    there = place.status()
    if there is not None:
        input_file.check_regular(there.st_mode)
        return there.st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _texts(document: dict[str, Any], options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The path and the text of each file. The page has a link to the JSON file if that is in the same directory."""
    path, json_path, junit_path = options["path"], options["json_path"], options["junit_path"]
    data = None
    if path and json_path and os.path.dirname(os.path.abspath(json_path)) == os.path.dirname(os.path.abspath(path)):
        data = os.path.basename(json_path)
    texts = [(path, page.render(document, data))] if path else []
    if json_path:
        texts.append((json_path, json.dumps(document, indent=1, allow_nan=False) + "\n"))
    if junit_path:
        texts.append((junit_path, junit.render(document)))
    return texts


def _outline(text: bytes | None) -> str:
    if text is None:
        return ""
    return f"{len(text)} bytes, sha256 {hashlib.sha256(text).hexdigest()}\n"


def summary_of(document: dict[str, Any]) -> dict[str, Any]:
    """The parts of the report that are in the result of the task."""
    fleet = document["fleet"]
    return {
        "summary": {name: fleet[name] for name in ("hosts", "with_facts", "without_facts", "by_level")},
        "attention": [
            {"host": host["name"], "level": host["level"], "reasons": [reason["text"] for reason in host["reasons"]]}
            for host in document["hosts"]
            if host["level"] in ("critical", "warning")
        ][:MOST],
        "exceeded": document["exceeded"][:MOST],
    }


def sentence(exceeded: list[dict[str, Any]]) -> str:
    """A message with the exceeded thresholds, their hosts and values."""
    said = []
    for one in exceeded[:SENTENCES]:
        value, limit = thresholds.compared(one["threshold"], one["value"], one["limit"])
        said.append(f"{one['threshold']} (limit {limit}), {value}{' on ' + one['host'] if one['host'] else ''}")
    if len(exceeded) > len(said):
        said.append(f"{len(exceeded) - len(said)} more")
    return f"Threshold{'s' if len(exceeded) > 1 else ''} exceeded: {'; '.join(said)}."
