# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write a report on the connection tracking of many hosts, on the controller."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase

from ansible_collections.netops.conntrack.plugins.plugin_utils.report import junit, page, thresholds, words
from ansible_collections.netops.conntrack.plugins.plugin_utils.report.document import report

OPTIONS: dict[str, dict[str, Any]] = {
    "hosts": {"type": "dict", "required": True},
    "path": {"type": "path", "required": True},
    "json_path": {"type": "path"},
    "junit_path": {"type": "path"},
    "fail_when": {"type": "dict", "options": {name: {"type": "float"} for name in thresholds.NAMES}},
    "title": {"type": "str", "default": "Connection tracking"},
    "gathered": {"type": "str"},
    "origin": {"type": "str"},
}
#: Every key of a result where nothing was done.
NOTHING_DONE: dict[str, Any] = {"changed": False, "files": [], "summary": {}, "attention": [], "exceeded": []}
#: So many hosts that need attention, thresholds exceeded and sentences on those are in a result; all are in the report.
MOST, SENTENCES = 100, 5


class NoReport(Exception):
    """What was given makes no report; the text is a whole sentence."""


class ActionModule(ActionBase):
    """Everything is done here; no host is asked for anything."""

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
            result.update(told(document))
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
        """The options, checked; what hosts have sent is not copied for that."""
        hosts = self._task.args.get("hosts")
        given = {**self._task.args, **({"hosts": {}} if isinstance(hosts, Mapping) else {})}
        checked = ArgumentSpecValidator(OPTIONS).validate(given)
        if checked.error_messages:
            raise NoReport(f"{'. '.join(checked.error_messages)}.")
        options = {**checked.validated_parameters, "hosts": hosts}
        try:
            options["fail_when"] = thresholds.parse(options["fail_when"] or {})
        except thresholds.BadThreshold as problem:
            raise NoReport(f"{problem}.") from problem
        if options["gathered"]:
            try:
                options["gathered"] = words.utc(options["gathered"])
            except ValueError as problem:
                given = options["gathered"]
                raise NoReport(
                    f"gathered: {given!r} is no moment; write one such as 2026-03-14T09:26:53Z."
                ) from problem
        paths = [os.path.abspath(options[name]) for name in ("path", "json_path", "junit_path") if options[name]]
        if len(set(paths)) < len(paths):
            raise NoReport("path, json_path and junit_path: two of them are one file; write different ones.")
        return options


class File:
    """A file as it is, and as it shall be."""

    def __init__(self, path: str, text: str) -> None:
        self.path = os.path.abspath(path)
        self.text = text.encode()
        try:
            with open(self.path, "rb") as file:
                self.before: bytes | None = file.read()
        except FileNotFoundError:
            self.before = None
        except OSError as error:
            raise NoReport(f"{self.path}: {error.strerror}. Nothing was written.") from error

    @property
    def changed(self) -> bool:
        return self.before != self.text

    def diff(self) -> dict[str, str]:
        """That they differ, and not how: they are for other programs to show."""
        return {
            "before_header": self.path,
            "after_header": self.path,
            "before": _outline(self.before),
            "after": _outline(self.text),
        }

    def write(self) -> None:
        """All of it at once: whoever reads it meanwhile has the old one or the new one."""
        folder = os.path.dirname(self.path)
        temporary = None
        try:
            os.makedirs(folder, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".report-", delete=False) as file:
                temporary = file.name
                file.write(self.text)
            os.chmod(temporary, self._mode())
            os.replace(temporary, self.path)
        except OSError as error:
            if temporary is not None and os.path.exists(temporary):
                os.unlink(temporary)
            raise NoReport(f"{self.path}: {error.strerror}. Those named in files were written.") from error

    def _mode(self) -> int:
        """As it was, or as a new file would be."""
        if self.before is not None:
            return os.stat(self.path).st_mode & 0o7777
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def _texts(document: dict[str, Any], options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The path and the text of each file; the page refers to the JSON if that is in the same folder."""
    path, json_path, junit_path = options["path"], options["json_path"], options["junit_path"]
    data = None
    if json_path and os.path.dirname(os.path.abspath(json_path)) == os.path.dirname(os.path.abspath(path)):
        data = os.path.basename(json_path)
    texts = [(path, page.render(document, data))]
    if json_path:
        texts.append((json_path, json.dumps(document, indent=1, allow_nan=False) + "\n"))
    if junit_path:
        texts.append((junit_path, junit.render(document)))
    return texts


def _outline(text: bytes | None) -> str:
    if text is None:
        return ""
    return f"{len(text)} bytes, sha256 {hashlib.sha256(text).hexdigest()}\n"


def told(document: dict[str, Any]) -> dict[str, Any]:
    """What a play may want to know of the report."""
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
    """Which thresholds are exceeded, where, and by how much."""
    said = []
    for one in exceeded[:SENTENCES]:
        value, limit = (thresholds.shown(one["threshold"], one[key]) for key in ("value", "limit"))
        said.append(f"{one['threshold']} ({limit}) with {value}{' on ' + one['host'] if one['host'] else ''}")
    more = len(exceeded) - len(said)
    return f"Exceeded is {', '.join(said)}{f' and {more} more' if more else ''}."
