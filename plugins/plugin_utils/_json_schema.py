# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generate a JSON Schema from the options of the modules.

The schema accepts the same forms as the modules: numbers as strings of digits, null for an absent key, and a single
item instead of a list. It refuses the same unknown keys. The client's parsers check everything that depends on
values, such as ranges of ports and combinations of keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.config import CONFIG, WORDS
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.keys import KEYS
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.tuple_keys import MASTER_KEYS

Schema = dict[str, Any]

DRAFT = "https://json-schema.org/draft/2020-12/schema"
#: The address from which editors load the schema.
ADDRESS = "https://github.com/netops/conntrack/raw/main/docs/conntrack_config.schema.json"

#: A number in a string.
DIGITS = r"^\s*(-?[0-9]+|0[xX][0-9a-fA-F]+)\s*$"
_NUMBER: Schema = {"type": ["integer", "string"], "pattern": DIGITS}
_WORD: Schema = {"type": ["string", "integer"]}
_TRUTH: Schema = {
    "type": ["boolean", "integer", "string"],
    "minimum": 0,
    "maximum": 1,
    "pattern": f"^({'|'.join(WORDS)})$",
}
#: A keyword applies only to values of its type. For example, `pattern` does not restrict integers.
_TYPES: dict[str, Schema] = {
    "str": _WORD,
    "path": _WORD,
    "int": _NUMBER,
    "bool": _TRUTH,
    "dict": {"type": ["object"]},
    "list": {"type": ["array"]},
}
_MATCH = "#/$defs/match"


def of_config(documentation: Mapping[str, Any] | None = None) -> Schema:
    """The schema of a declaration for a gateway. `documentation` is that of its options, by name."""
    return {
        "$schema": DRAFT,
        "$id": ADDRESS,
        "title": "What netops.conntrack.conntrack_config takes",
        **_of_options(CONFIG, documentation or {}),
        "minProperties": 1,
        "$defs": _match_definitions(),
    }


def _of_options(options: Mapping[str, Any], documentation: Mapping[str, Any]) -> Schema:
    """The schema of a dictionary with these options as keys."""
    properties = {
        spelled: _of_option(option, documentation.get(name, {}))
        for name, option in options.items()
        for spelled in (name, *option.get("aliases", ()))
    }
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    required = [name for name, option in options.items() if option.get("required")]
    return {**schema, "required": required} if required else schema


def _of_option(option: Mapping[str, Any], documentation: Mapping[str, Any]) -> Schema:
    below = documentation.get("suboptions", {})
    if option["type"] == "raw":
        schema: Schema = {"$ref": _MATCH}
    elif "choices" in option:
        schema = {"enum": list(option["choices"])}
    elif option["type"] == "list":
        schema = _of_list(option, below)
    elif "options" in option:
        schema = _of_options(option["options"], below)
    else:
        schema = dict(_TYPES[option["type"]])
    if not option.get("required") and option["type"] != "raw":
        schema = _or_null(schema)
    if "default" in option:
        schema["default"] = option["default"]
    text = plain_text(documentation.get("description", ""))
    return {"description": text, **schema} if text else schema


def _of_list(option: Mapping[str, Any], below: Mapping[str, Any]) -> Schema:
    if option["elements"] == "raw":
        return {"type": ["array"], "items": {"$ref": _MATCH}}
    if option["elements"] == "dict":
        return {"type": ["array"], "items": _of_options(option["options"], below)}
    return {"type": ["array", *_WORD["type"]], "items": _TYPES[option["elements"]]}


def _or_null(schema: Schema) -> Schema:
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], None]}
    kinds = schema["type"]
    return {**schema, "type": [*([kinds] if isinstance(kinds, str) else kinds), "null"]}


def _match_definitions() -> Schema:
    """Definitions of a match. Empty matches are invalid, because they could select everything by mistake."""
    several: Schema = {"type": ["array", *_WORD["type"]], "minItems": 1, "items": _WORD}
    others = {
        "expected": {"type": "boolean"},
        "except": {"$ref": _MATCH},
        "master": {
            "if": {"type": "array"},
            "then": {"minItems": 1, "items": {"$ref": "#/$defs/master"}},
            "else": {"$ref": "#/$defs/master"},
        },
    }
    bounds = {name: _NUMBER for name in KEYS if name.endswith(("_below", "_above"))}
    return {
        "match": {
            "description": "Which entries: a dictionary of keys that must all hold, or a list of which one must.",
            "if": {"type": "array"},
            "then": {"minItems": 1, "items": {"$ref": "#/$defs/keys"}},
            "else": {"$ref": "#/$defs/keys"},
        },
        # A match, or its JSON text, which only the parser checks
        "keys": {
            "type": ["object", "string"],
            "minProperties": 1,
            "properties": {name: others.get(name, bounds.get(name, several)) for name in KEYS},
            "additionalProperties": False,
        },
        "master": {
            "type": ["object"],
            "minProperties": 1,
            "properties": dict.fromkeys(MASTER_KEYS, several),
            "additionalProperties": False,
        },
    }


# Descriptions

_MARKED = re.compile(r"\b(?:[VCBIOMPE]|RV)\(([^()]*(?:\([^()]*\)[^()]*)*)\)|\b[LR]\(([^,()]*),[^()]*\)")


def plain_text(description: Any) -> str:
    """A description without Ansible markup. An option of another module is reduced to its name."""
    paragraphs = [description] if isinstance(description, str) else description
    return "\n".join(_MARKED.sub(_unmarked, paragraph) for paragraph in paragraphs)


def _unmarked(found: re.Match[str]) -> str:
    text = found[1] or found[2] or ""
    return text.rpartition(":")[2] if found[0].startswith(("O(", "RV(")) else text
