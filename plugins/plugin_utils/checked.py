# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that is wrong with a declaration for a gateway, as far as it can be known on the controller."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.netops.conntrack.plugins.module_utils.client.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.faults import Faults, is_within
from ansible_collections.netops.conntrack.plugins.module_utils.options import config
from ansible_collections.netops.conntrack.plugins.module_utils.source import SourceFault, shown
from ansible_collections.netops.conntrack.plugins.plugin_utils import schema

#: What a JSON type is called in a sentence.
_KINDS = {
    "object": "a dictionary",
    "array": "a list",
    "string": "text",
    "integer": "a number",
    "boolean": "true or false",
    "null": "",
}


def faults_of(document: Any) -> Faults:
    """The faults that the schema and the client's parsers find, in the order of the document's sections.

    What only the target knows is not asked here: the names of its labels and services, and what its kernel has.
    Raises `SourceFault` without the Python package jsonschema.
    """
    faults = config.read_declaration(_portable(document), _AnyLabel())[1]
    told = [fault.key for fault in faults.found]
    for path, problem in _schema_faults(document):
        # Of two sentences about one thing, the parser's says more
        if not any(is_within(path, key) or is_within(key, path) for key in told):
            faults.add(path, problem)
    return faults


class _AnyLabel(LabelMap):
    """Labels as a target may have named them."""

    def _bit(self, item: Any, key: str) -> int:
        if isinstance(item, str) and re.fullmatch(r"[^\s#]+", item) and not re.match(schema.DIGITS, item):
            return 0
        return super()._bit(item, key)


def _schema_faults(document: Any) -> Iterator[tuple[str, str]]:
    try:
        from jsonschema import Draft202012Validator
    except ImportError:
        raise SourceFault(
            "A declaration is checked with the Python package jsonschema on the controller, and it is not there; "
            "install it beside ansible-core, such as with pip install jsonschema"
        ) from None
    for error in Draft202012Validator(schema.of_config()).iter_errors(document):
        yield from _told(error)


def _told(error: Any) -> Iterator[tuple[str, str]]:
    """The paths and problems of an error of jsonschema's."""
    path, value, keyword = _path(error.absolute_path), error.instance, error.validator
    if keyword == "additionalProperties":
        known = ", ".join(sorted(error.schema["properties"]))
        for key in value:
            if key not in error.schema["properties"]:
                yield _joined(path, key), f"no such key; write one of {known}"
    elif keyword == "required":
        for key in error.validator_value:
            if key not in value:
                yield _joined(path, key), "is missing"
    elif keyword == "enum":
        known = ", ".join(str(choice) for choice in error.validator_value if choice is not None)
        yield path, f"{shown(value)} is none of them; write one of {known}"
    elif keyword == "type":
        kinds = error.validator_value
        wanted = [_KINDS[kind] for kind in ([kinds] if isinstance(kinds, str) else kinds) if _KINDS[kind]]
        yield path, f"{shown(value)} cannot be; write {' or '.join(wanted)}"
    elif keyword == "pattern" and error.validator_value == schema.DIGITS:
        yield path, f"{shown(value)} is not a number; write an integer"
    elif keyword in ("pattern", "minimum", "maximum"):
        yield path, f"{shown(value)} is neither; write true or false"
    else:
        yield path, "says nothing; write at least one"


def _path(steps: Any) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")


def _joined(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _portable(document: Any) -> Any:
    """A declaration with a number for each name of a service, which every host has a list of its own for."""
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
    if isinstance(match, list):
        return [_without_services(one) for one in match]
    if not isinstance(match, Mapping):
        return match
    return {
        key: _without_services(value)
        if key == "except"
        else _as_port(value)
        if isinstance(key, str) and (key == "port" or key.endswith("_port"))
        else value
        for key, value in match.items()
    }


def _as_port(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_port(one) for one in value]
    return 1 if isinstance(value, str) and _SERVICE.fullmatch(value) else value
