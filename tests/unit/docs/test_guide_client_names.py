# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guide lists the public names of the client: each listed name exists, and no public name is missing."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[3]
CLIENT = CHECKOUT / "plugins/module_utils/client"
PAGE = (CHECKOUT / "docs/docsite/rst/guide_client_names.rst").read_text(encoding="utf-8")
PACKAGE = "ansible_collections.netops.conntrack.plugins.module_utils.client"

NAMES = re.findall(r"^    \* - ``(.+?)``$", PAGE, re.M)
NOT_PUBLIC = re.findall(r"``(.+?)``", PAGE.partition("\nNot public\n")[2])
#: Files of which the page mentions every class and function.
COMPLETE = sorted(
    ["conntrack.py", "errors.py", "entry/document.py", "match/match.py"]
    + [str(path.relative_to(CLIENT)) for path in (CLIENT / "events").glob("*.py")]
)


def found(name: str) -> Any:
    """Import the module, class or function of a name such as `events.follower.Follower`; None if it does not exist."""
    steps = name.split(".")
    module: list[str] = []
    while steps and not CLIENT.joinpath(*module).with_suffix(".py").is_file():
        module.append(steps.pop(0))
    if not CLIENT.joinpath(*module).with_suffix(".py").is_file():
        return None
    thing: Any = importlib.import_module(".".join([PACKAGE, *module]))
    for step in steps:
        thing = getattr(thing, step, None)
    return thing


def test_every_name_exists_once() -> None:
    assert NAMES
    assert [name for name in NAMES if found(name) is None] == []
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("file", COMPLETE)
def test_every_public_name_is_listed(file: str) -> None:
    tree = ast.parse((CLIENT / file).read_text(encoding="utf-8"))
    module = file[: -len(".py")].replace("/", ".")
    defined = [
        f"{module}.{node.name}"
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_")
    ]
    assert defined
    assert [name for name in defined if name not in NAMES and name not in NOT_PUBLIC] == []
    assert module in NAMES


def test_no_name_is_both_public_and_private() -> None:
    names = [name for name in NOT_PUBLIC if re.fullmatch(r"\w+\.[a-z_]\w+", name) and not name.endswith(".py")]
    assert "errors.quoted" in names
    assert [name for name in names if found(name) is None or name in NAMES] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_has_a_docstring(name: str) -> None:
    thing = found(name)
    if inspect.ismodule(thing) or inspect.isclass(thing) or inspect.isfunction(thing):
        assert thing.__doc__
