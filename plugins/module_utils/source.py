# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declarations in a file: JSON, JSON lines, or YAML where PyYAML is at hand."""

from __future__ import annotations

import json
from typing import Any

from .client.errors import InvalidValue


def read_entries(path: str) -> list[Any]:
    """The documents of the entries that a file declares.

    It is a list of them, one to a line, or a dictionary that has them under `entries`. Raises `InvalidValue`.
    """
    found = read(path)
    if isinstance(found, dict) and "entries" in found:
        found = found["entries"]
    elif isinstance(found, dict):
        found = [found]
    if not isinstance(found, list):
        raise InvalidValue("src", f"{path} has no list of entries; write a list, or a dictionary with one in entries")
    return found


def read(path: str) -> Any:
    """What a file declares; a list for JSON lines. Raises `InvalidValue` where it cannot be read."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue("src", f"{path} cannot be read ({error}); name a file of UTF-8 text") from error
    return parse(text, path)


def parse(text: str, name: str) -> Any:
    """What a text declares, which faults call `name`."""
    lines = text.splitlines()
    first = next((line for line in lines if line.strip()), "")
    if first.startswith("{") and first.rstrip().endswith("}"):
        try:
            json.loads(first)
        except ValueError:
            pass
        else:
            return _lines(lines, name)
    if first[:1] in ("{", "["):
        try:
            return json.loads(text)
        except ValueError as error:
            fault = error
        # flow style, which is YAML
        try:
            return _yaml(text, name)
        except InvalidValue:
            raise InvalidValue("src", f"{name} is no JSON: {fault}") from None
    return _yaml(text, name)


def _lines(lines: list[str], name: str) -> Any:
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(json.loads(line))
            except ValueError as error:
                raise InvalidValue("src", f"line {number} of {name} is no JSON: {error}") from None
    return found


def _yaml(text: str, name: str) -> Any:
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError:
        raise InvalidValue("src", f"{name} is no JSON, and YAML takes PyYAML, which is not here; write JSON") from None
    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise InvalidValue("src", f"{name} is no YAML: {error}") from None
