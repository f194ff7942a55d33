# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read declarations from files in JSON, JSON lines or YAML, on the target or on the controller.

Ambiguous files are refused. For example, if a key occurs twice, most parsers silently use the last value.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, Mapping

from ..client import input_file
from ..client.errors import TOO_LONG, InvalidValue, quoted

_LINE_BY_LINE = (".jsonl", ".ndjson")
#: The maximum number of characters of a value in a message.
_SHOWN = 60


class SourceFault(InvalidValue):
    """A file that cannot be used. The message contains the file, the line if it is known, and a correction."""

    def __init__(self, sentence: str) -> None:
        super().__init__("", sentence)


def read(path: str, name: str | None = None) -> list[Any]:
    """Return the documents in a file: one in JSON, any number in YAML, and one per line in JSON lines.

    Raises `SourceFault` if the file cannot be read or parsed. Messages contain `name` instead of the path if it is
    given.
    """
    name = path if name is None else name
    try:
        with input_file.binary(path) as file:
            data = input_file.content(file)
    except OSError as error:
        raise _unreadable(name, error) from error
    return parse(data, name)


def check(path: str, option: str = "src") -> None:
    """Raise `SourceFault`, which names the option, if the path is not a regular file that can be read."""
    try:
        os.close(input_file.descriptor(path))
    except OSError as error:
        raise _unreadable(path, error, option) from error


def _unreadable(name: str, error: OSError, option: str = "src") -> SourceFault:
    return SourceFault(f"{option}: {name} cannot be read: {error.strerror}")


def entries_in(documents: list[Any], name: str) -> list[Any]:
    """Return the entries in documents: one list of entries, one list under `entries`, or one entry per document.

    Raises `SourceFault`.
    """
    found: Any = documents
    if len(documents) == 1:
        (found,) = documents
        if isinstance(found, Mapping):
            found = found.get("entries", documents)
    if not isinstance(found, list) or documents in ([], [None]):
        raise SourceFault(f"{name}: declares no list of entries; write one, [] for none")
    for place, entry in enumerate(found):
        if not isinstance(entry, Mapping):
            raise SourceFault(f"{name}: [{place}] is {shown(entry)}, not an entry; write a dictionary of its keys")
    return found


def config_in(documents: list[Any], name: str) -> dict[str, Any]:
    """Return the only document, which must be a dictionary. Raises `SourceFault`."""
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise SourceFault(f"{name}: is not a dictionary; write the sections and their declarations")
    found: dict[str, Any] = documents[0]
    return found


def shown(value: Any) -> str:
    """Return a value for a message, truncated if it is long."""
    text = quoted(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def parse(data: bytes, name: str) -> list[Any]:
    """Return the documents in the content of a file with this `name`. Raises `SourceFault`."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SourceFault(f"{name} line {line}: is not UTF-8; save it as UTF-8") from None
    ending = os.path.splitext(name)[1].lower()
    try:
        if ending in _LINE_BY_LINE or _has_json_in_its_first_line(text):
            return [_json(line, name, number) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        if ending == ".json":
            return [_json(text, name)]
        if text.lstrip()[:1] in ("{", "["):
            try:
                return [_json(text, name)]
            except SourceFault:
                return _yaml(text, name)  # YAML in flow style
        return _yaml(text, name)
    except RecursionError:
        raise SourceFault(f"{name}: is nested too deeply to declare anything") from None


# JSON


class _Refused(ValueError):
    """JSON that Python accepts and that a declaration must not contain. The message is the problem."""


class _Twice(_Refused):
    """A key occurs twice in an object."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _value in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Twice(f"the key {twice!r} occurs twice; write it once")
    return found


def _no_number(name: str) -> Any:
    """Refuse a constant that is valid in JavaScript but not in JSON, such as NaN."""
    raise _Refused(f"{name} is not a number")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_number)


def _json(text: str, name: str, line: int | None = None) -> Any:
    """Return the document in a file, or in a `line` of a file."""
    where = name if line is None else f"{name} line {line}"
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        where = f"{name} line {line or error.lineno}"
        raise SourceFault(f"{where}: is not valid JSON, column {error.colno}: {error.msg}") from None
    except _Refused as refusal:
        if line is None and isinstance(refusal, _Twice):
            with contextlib.suppress(ImportError):
                _yaml_by_its_reader(text, name)  # its error contains the line
        raise SourceFault(f"{where}: {refusal}") from None
    except ValueError:
        raise SourceFault(f"{where}: has {TOO_LONG}; no value is longer than 128 bits") from None


def _has_json_in_its_first_line(text: str) -> bool:
    first, _end, _rest = text.lstrip().partition("\n")
    if not first.startswith("{"):
        return False
    try:
        json.loads(first)
    except ValueError:
        return False
    return True


def _yaml(text: str, name: str) -> list[Any]:
    try:
        return _yaml_by_its_reader(text, name)
    except ImportError:
        raise SourceFault(
            f"{name}: is not valid JSON, and YAML requires PyYAML, which is not installed; write JSON"
        ) from None


def _yaml_by_its_reader(text: str, name: str) -> list[Any]:
    from . import yaml

    try:
        return yaml.documents(text)
    except yaml.Unreadable as fault:
        where = name if fault.line is None else f"{name} line {fault.line}"
        raise SourceFault(f"{where}: {fault.problem}") from None
