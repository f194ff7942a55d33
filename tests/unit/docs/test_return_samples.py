# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each documented return value has a sample of the documented type."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.settings import SETTINGS

Document = dict[str, Any]
#: The path of a return value, and its documentation.
Value = tuple[str, Document]

PLUGINS = Path(__file__).parents[3] / "plugins"
TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "dict": (dict,),
    "float": (float, int),
    "int": (int,),
    "list": (list,),
    "raw": (object,),
    "str": (str,),
}


def values(documented: Document, path: str = "") -> Iterator[Value]:
    """Return values without contents of their own."""
    for key, value in documented.items():
        if "contains" in value:
            yield from values(value["contains"], f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def errors(path: str, documented: Document, sample: Any) -> Iterator[str]:
    """The parts of a sample that do not have the documented type. A value inside a sample may be null."""
    kind = documented["type"]
    if not isinstance(sample, TYPES[kind]) or (isinstance(sample, bool) and kind not in ("bool", "raw")):
        yield f"{path} is not of type {kind}: {sample!r}"
        return
    if sample not in documented.get("choices", [sample]):
        yield f"{path} is not one of the choices: {sample!r}"
    for place, element in enumerate(sample if kind == "list" else ()):
        yield from errors(f"{path}[{place}]", {**documented, "type": documented["elements"]}, element)
    for key, content in documented.get("contains", {}).items() if kind == "dict" else ():
        if sample.get(key) is not None:
            yield from errors(f"{path}.{key}", content, sample[key])


def with_samples(documented: Document, path: str = "") -> Iterator[Value]:
    """Return values that have a sample, at every level."""
    for key, value in documented.items():
        if "sample" in value:
            yield f"{path}{key}", value
        yield from with_samples(value.get("contains", {}), f"{path}{key}.")


def returned() -> dict[str, Document]:
    """Return the documented return values of each module and plugin."""
    found = {}
    for path in sorted(PLUGINS.glob("*/*.py")):
        for statement in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "RETURN":
                found[path.stem] = yaml.safe_load(ast.literal_eval(statement.value)) or {}
    return found


RETURNED = returned()


def test_all_modules_are_read() -> None:
    assert {path.stem for path in (PLUGINS / "modules").glob("conntrack_*.py")} <= set(RETURNED)


@pytest.mark.parametrize("name", RETURNED)
def test_each_return_value_has_a_sample(name: str) -> None:
    assert [path for path, value in values(RETURNED[name]) if "sample" not in value] == []


@pytest.mark.parametrize("name", RETURNED)
def test_each_sample_has_the_documented_type(name: str) -> None:
    found = [error for path, value in with_samples(RETURNED[name]) for error in errors(path, value, value["sample"])]
    assert found == []


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("conntrack_facts", "ansible_facts.conntrack.settings"),
        ("conntrack_settings", "before"),
        ("conntrack_settings", "settings"),
    ],
)
def test_returned_settings_are_valid_options(name: str, path: str) -> None:
    """The modules return the values of the kernel, 1 and 0, and accept them for boolean options."""
    settings = dict(values(RETURNED[name]))[path]["sample"]
    assert settings["accounting"] in (0, 1)
    assert not any(isinstance(value, bool) for value in settings.values())
    assert ArgumentSpecValidator(SETTINGS).validate(settings).error_messages == []
