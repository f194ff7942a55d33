# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guide lists the public names of the client: each listed name exists, and no public name is missing."""

from __future__ import annotations

import ast
import inspect
import re
from itertools import pairwise
from pathlib import Path

import pytest

from ansible_collections.netops.conntrack.tests.reference import CLIENT, NAME, PACKAGE, found, reference

CHECKOUT = Path(__file__).parents[3]
PAGE = (CHECKOUT / "docs/docsite/rst/guide_client_names.rst").read_text(encoding="utf-8")

NAMES = NAME.findall(PAGE)
NOT_PUBLIC = re.findall(r"``(.+?)``", PAGE.partition("\nNot public\n")[2])
#: Files of which the page mentions every class and function.
COMPLETE = sorted(
    ["conntrack.py", "errors.py", "entry/document.py", "match/match.py"]
    + [str(path.relative_to(CLIENT)) for path in (CLIENT / "events").glob("*.py")]
)


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


@pytest.mark.parametrize("name", NAMES)
def test_docstrings_mark_code_and_examples(name: str) -> None:
    """The reference shows code between backquotes, and an indented example after a paragraph that ends with `::`."""
    text = inspect.getdoc(found(name)) or ""
    assert text.count("`") % 2 == 0
    for before, after in pairwise(text.split("\n\n")):
        if after.startswith("    "):
            assert "`" not in after
            assert before.startswith("    ") or before.endswith("::")


def test_the_reference_has_each_name_and_a_link_to_it() -> None:
    page = reference(PAGE)
    described = re.findall(rf"^\.\. auto\w+:: {re.escape(PACKAGE)}\.(\S+)$", page, re.MULTILINE)
    assert set(NAMES) - set(described) == set()
    assert re.findall(rf"^    \* - :py:obj:`(\S+) <{re.escape(PACKAGE)}\.\1>`$", page, re.MULTILINE) == NAMES


def test_the_reference_describes_methods_of_bases_that_are_not_public() -> None:
    directive = reference(PAGE).partition(f".. autoclass:: {PACKAGE}.table.Table\n")[2]
    assert directive.startswith("    :members:\n    :inherited-members: object\n")
    directive = reference(PAGE).partition(f".. autoclass:: {PACKAGE}.errors.NotFound\n")[2]
    assert directive.startswith("    :members:\n    :inherited-members: KernelError, ConntrackError, ")
