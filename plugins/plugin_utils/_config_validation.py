# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Validate a declaration for a gateway on the controller."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.netops.conntrack.plugins.module_utils._argspec import config
from ansible_collections.netops.conntrack.plugins.module_utils._source.faults import ValidationErrors, is_within
from ansible_collections.netops.conntrack.plugins.module_utils._source.file import SourceFault, shown
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.nested import no_such_key
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import TOO_DEEP, InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import from_text
from ansible_collections.netops.conntrack.plugins.plugin_utils import _json_schema

#: JSON types as words in messages.
_KINDS = {
    "object": "a dictionary",
    "array": "a list",
    "string": "text",
    "integer": "a number",
    "boolean": "true or false",
    "null": "",
}

#: Integers with more bits are invalid in every key of a declaration.
_MOST_BITS = 1000


def faults_of(document: Any) -> ValidationErrors:
    """The faults that the schema and the client's parsers find, in the order of the document's sections.

    Names of labels and services and the features of the kernel depend on the target and are not checked.
    Raises `SourceFault` without the Python package jsonschema, and for a document that is nested too deeply.
    """
    try:
        return _faults_of(document)
    except RecursionError:
        raise SourceFault(f"The declaration {TOO_DEEP}; a match has at most 20 levels of except") from None


def _faults_of(document: Any) -> ValidationErrors:
    faults = config.read_declaration(_portable(document), _AnyLabel())[1]
    reported = [fault.key for fault in faults.found]
    for path, problem in _schema_faults(document):
        # The parser's message is more specific than that of the schema
        if not any(is_within(path, key) or is_within(key, path) for key in reported):
            faults.add(path, problem)
    return faults


class _AnyLabel(LabelMap):
    """Labels that accept any name, because the names of the target are not known."""

    def _bit(self, item: Any, key: str) -> int:
        name = re.compile(r"[^\s#](?:[^#\n]*[^\s#])?")
        if isinstance(item, str) and name.fullmatch(item) and not re.match(_json_schema.DIGITS, item):
            return 0
        return super()._bit(item, key)


def _schema_faults(document: Any) -> Iterator[tuple[str, str]]:
    try:
        from jsonschema import Draft202012Validator
    except ImportError:
        raise SourceFault(
            "This module requires the Python package jsonschema on the controller, which is not installed; "
            "install it beside ansible-core, for example with pip install jsonschema"
        ) from None
    for error in Draft202012Validator(_json_schema.of_config()).iter_errors(_printable(document)):
        yield from _path_and_problem(error)


def _path_and_problem(error: Any) -> Iterator[tuple[str, str]]:
    """The paths and problems of an error from jsonschema."""
    path, value, keyword = _path(error.absolute_path), error.instance, error.validator
    if keyword == "additionalProperties":
        known = error.schema["properties"]
        for key in value:
            if key not in known:
                fault = no_such_key(path, key, known)
                yield fault.key, fault.problem
    elif keyword == "required":
        for key in error.validator_value:
            if key not in value:
                yield _joined(path, key), "is missing"
    elif keyword == "enum":
        known = ", ".join(str(choice) for choice in error.validator_value if choice is not None)
        yield path, f"{shown(value)} is not a valid value; write one of {known}"
    elif keyword == "type":
        kinds = error.validator_value
        wanted = [_KINDS[kind] for kind in ([kinds] if isinstance(kinds, str) else kinds) if _KINDS[kind]]
        yield path, f"{shown(value)} is not a valid value; write {' or '.join(wanted)}"
    elif keyword == "pattern" and error.validator_value == _json_schema.DIGITS:
        yield path, f"{shown(value)} is not a number; write an integer"
    elif keyword in ("pattern", "minimum", "maximum"):
        yield path, f"{shown(value)} is neither; write true or false"
    else:
        yield path, "specifies nothing; write at least one"


def _path(steps: Any) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")


def _joined(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _printable(document: Any) -> Any:
    """The document with limited integers. Python refuses to print thousands of digits in messages of jsonschema."""
    if isinstance(document, Mapping):
        return {_printable(key): _printable(value) for key, value in document.items()}
    if isinstance(document, list):
        return list(map(_printable, document))
    if isinstance(document, int) and document.bit_length() > _MOST_BITS:
        return 1 << _MOST_BITS
    return document


def _portable(document: Any) -> Any:
    """The declaration with a number for each service name, because service names depend on the target."""
    if not isinstance(document, Mapping):
        return document
    found = dict(document)
    if isinstance(found.get("absent"), list):
        found["absent"] = [_without_services(match) for match in found["absent"]]
    if isinstance(found.get("entries"), Mapping) and "scope" in found["entries"]:
        found["entries"] = {**found["entries"], "scope": _without_services(found["entries"]["scope"])}
    return found


_SERVICE = re.compile(r"\s*[A-Za-z][\w.+-]*\s*")


def _without_services(match: Any) -> Any:
    with contextlib.suppress(InvalidValue):  # the parser reports it
        match = from_text(match, "")
    if isinstance(match, list):
        return [_without_services(one) for one in match]
    if not isinstance(match, Mapping):
        return match
    return {
        key: _without_services(value)
        if key in ("except", "master")
        else _as_port(value)
        if isinstance(key, str) and (key == "port" or key.endswith("_port"))
        else value
        for key, value in match.items()
    }


def _as_port(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_port(one) for one in value]
    return 1 if isinstance(value, str) and _SERVICE.fullmatch(value) else value
