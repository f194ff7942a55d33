# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guide to libnetfilter_conntrack contains every name of the C side, and its equivalents exist."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.entry import ENTRY
from ansible_collections.netops.conntrack.plugins.module_utils._argspec.expectation import EXPECTATION
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec import attributes, types
from ansible_collections.netops.conntrack.plugins.module_utils.client.match import keys, match

CHECKOUT = Path(__file__).parents[3]
GUIDE = CHECKOUT / "docs/docsite/rst/guide_libnetfilter_conntrack.rst"
NAMES = Path(__file__).parent / "libnetfilter_conntrack.txt"
EXAMPLES = CHECKOUT / "docs/examples"
PLUGINS = "ansible_collections.netops.conntrack.plugins"


class Cell(NamedTuple):
    """A cell of a table in the guide: the heading of its column, and its text."""

    heading: str
    text: str

    def names(self) -> list[str]:
        return [" ".join(name.split()) for name in re.findall(r"``(.+?)``", self.text, re.DOTALL)]


Row = list[Cell]


def rows() -> Iterator[Row]:
    """Yield the rows of all tables."""
    for table in re.findall(r"^\.\. list-table::\n    :header-rows: 1\n\n((?: {4}.*\n)+)", GUIDE.read_text(), re.M):
        heads, *others = [
            [cell.strip() for cell in re.split(r"^ {6}-(?=\s)", row, flags=re.M)]
            for row in re.split(r"^ {4}\* -", table, flags=re.M)[1:]
        ]
        for cells in others:
            yield [Cell(*cell) for cell in zip(heads, cells, strict=True)]


ROWS = list(rows())


def names_in_column(heading: str) -> list[str]:
    """Return every name in the columns with this heading."""
    return [name for row in ROWS for cell in row if cell.heading == heading for name in cell.names()]


def facts() -> dict[str, list[str]]:
    """Return the names of the C side by the heading of their column."""
    found: dict[str, list[str]] = {}
    for line in NAMES.read_text().splitlines():
        if line.startswith("["):
            names = found.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            names += [line] if "nfct" in list(found)[-1] else line.split()
    return found


FACTS = facts()


def test_every_column_is_checked() -> None:
    headings = {cell.heading for row in ROWS for cell in row}
    assert headings - {"How", "Remark", "Topic"} == {*FACTS, *POINTERS, "Example"}


@pytest.mark.parametrize("heading", FACTS)
def test_guide_lists_exactly_the_existing_names(heading: str) -> None:
    assert sorted(set(names_in_column(heading))) == sorted(FACTS[heading])


# Equivalents


def keys_of(spec: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Return the keys of a document, as paths."""
    for name, option in spec.items():
        yield prefix + name
        yield from keys_of(option.get("options", {}), f"{prefix}{name}.")


def options() -> Iterator[str]:
    """Return the modules, the filters and the event source, and their options as `module: option`."""
    source = CHECKOUT / "extensions/eda/plugins/event_source/conntrack.py"
    named = {f"netops.conntrack.{source.stem}": source}
    for folder, pattern in (("modules", "conntrack_*.py"), ("filter", "*_conntrack.py")):
        named |= {path.stem: path for path in (CHECKOUT / "plugins" / folder).glob(pattern)}
    for name, path in named.items():
        yield name
        document = documentation(path)
        for one in (document, *map(fragment, document.get("extends_documentation_fragment", []))):
            for option in one.get("options", {}):
                yield f"{name}: {option}"


def documentation(path: Path) -> dict[str, Any]:
    """Return the DOCUMENTATION of a plugin."""
    (text,) = (
        ast.literal_eval(node.value)
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DOCUMENTATION"
    )
    return yaml.safe_load(text)


def fragment(name: str) -> dict[str, Any]:
    file, _dot, part = name.removeprefix("netops.conntrack.").partition(".")
    fragments = importlib.import_module(f"{PLUGINS}.doc_fragments.{file}").ModuleDocFragment
    return yaml.safe_load(getattr(fragments, part.upper() or "DOCUMENTATION"))


def in_client(name: str) -> bool:
    steps = name.split(".")
    file = ["module_utils", "client"]
    while steps and not CHECKOUT.joinpath("plugins", *file).with_suffix(".py").is_file():
        file.append(steps.pop(0))
    thing: Any = importlib.import_module(".".join([PLUGINS, *file]))
    for step in steps:
        thing = getattr(thing, step, None)
    return bool(steps) and thing is not None


_rows = {row.key for row in attributes.ENTRY}
KEYS = {*keys_of(ENTRY), *_rows, *(key.rpartition(".")[0] for key in _rows)}
POINTERS = {
    "Client": in_client,
    "Key": KEYS.__contains__,
    "Key of an expectation": {*keys_of(EXPECTATION)}.__contains__,
    "Match": keys.KEYS.__contains__,
    "Module": {*options()}.__contains__,
}


@pytest.mark.parametrize("heading", POINTERS)
def test_equivalents_exist(heading: str) -> None:
    names = names_in_column(heading)
    assert names
    assert [name for name in names if not POINTERS[heading](name)] == []


def test_name_without_an_equivalent_has_a_reason() -> None:
    pointing = {*POINTERS, "Example"}
    without = [row for row in ROWS if not any(cell.text for cell in row[1:] if cell.heading in pointing)]
    assert [row[0].text for row in without if not row[-1].text] == []
    refusals = [row[-1].text for row in ROWS if re.search(r"\bnot (available|there|yet|supported)\b", row[-1].text)]
    assert refusals
    assert [text for text in refusals if not re.match(r"not available: \w", text)] == []
    assert [row[0].text for row in ROWS if row[-1].text in refusals and row not in without] == []


@pytest.mark.parametrize("package", ["libnetfilter_conntrack", "conntrack-tools"])
def test_guide_and_list_of_names_have_the_same_version(package: str) -> None:
    versions = [re.findall(rf"\b{package} ([0-9.]+[0-9])", path.read_text())[0] for path in (GUIDE, NAMES)]
    assert versions[0] == versions[1]


def test_values_are_accepted_in_lower_case() -> None:
    """The client has every state of conntrack(8), and a match accepts it."""
    tables = [name for name in vars(types) if name.endswith("_STATES")]
    seen = set()
    for row in ROWS:
        cells = {cell.heading: cell for cell in row}
        if "Value" not in cells or cells["Match"].names() != ["state"]:
            continue
        (table,) = (name.removeprefix("codec.types.") for name in cells["Client"].names())
        seen.add(table)
        for name in cells["Value"].names():
            assert name.lower() in getattr(types, table)
            match.parse_match({"state": name.lower()})
    assert sorted(seen) == sorted(tables)


# Examples


def test_every_example_names_its_equivalents() -> None:
    beside = {row[0].names()[0]: row for row in ROWS if row[0].heading == "Program"}
    listed = {example: set(row[0].names()) for row in beside.values() for example in row[1].names()}
    for path in sorted(EXAMPLES.glob("*.py")):
        docstring = path.read_text().split('"""')[1]
        assert set(re.findall(r"[\w-]+\.c\b", docstring)) == listed.pop(path.name, set()), path.name
    assert not listed, "the guide names examples that do not exist"
