# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pictures are accessible, and each is on a page. The example in `concepts.rst` is what the filter prints."""

from __future__ import annotations

import importlib
import json
import re
import textwrap
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

from ansible_collections.netops.conntrack.tests import report_picture

to_conntrack = importlib.import_module("ansible_collections.netops.conntrack.plugins.filter.to_conntrack").to_conntrack

DOCS = Path(__file__).parents[3] / "docs"
PAGES = sorted((DOCS / "docsite/rst").glob("*.rst"))
SVG = "{http://www.w3.org/2000/svg}"
DRAWINGS = sorted(DOCS.rglob("*.svg"))
IMAGE = re.compile(r"^ *\.\. (?:image|figure):: (?P<path>\S+)\n(?P<options>(?: +\S.*\n)*)", re.MULTILINE)
ALT = re.compile(r"^ +:alt: (\S.*)", re.MULTILINE)

#: Font size by width of the drawing. 14 of 440 are 11 pixels on a phone with a column of 340 pixels.
LEGIBLE = 14 / 440


class Image(NamedTuple):
    """An image on a page. `file` is its file in the repository."""

    page: str
    path: str
    file: Path
    alternative: str | None


def images() -> list[Image]:
    return [
        Image(page.name, found["path"], (page.parent / found["path"]).resolve(), alternative and alternative[1])
        for page in PAGES
        for found in IMAGE.finditer(page.read_text(encoding="utf-8"))
        for alternative in [ALT.search(found["options"])]
    ]


def parsed(drawing: Path) -> ElementTree.Element:
    return ElementTree.parse(drawing).getroot()


@pytest.mark.parametrize("drawing", DRAWINGS, ids=lambda drawing: drawing.stem)
def test_a_drawing_has_a_title_a_description_and_a_size(drawing: Path) -> None:
    root = parsed(drawing)
    assert root.tag == f"{SVG}svg"
    # Screen readers read what `aria-labelledby` names
    named = [root.find(f"*[@id='{name}']") for name in root.attrib["aria-labelledby"].split()]
    assert [element.tag for element in named if element is not None] == [f"{SVG}title", f"{SVG}desc"]
    assert all((element.text or "").strip() for element in named if element is not None)
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    assert (left, top) == (0, 0)
    assert width > 0
    assert height > 0


@pytest.mark.parametrize("drawing", sorted((DOCS / "images").glob("*.svg")), ids=lambda drawing: drawing.stem)
def test_a_drawing_is_legible_on_a_phone_and_on_a_dark_page(drawing: Path) -> None:
    """It scales with the page, its letters are large enough, and it has a background of its own."""
    root = parsed(drawing)
    assert {"width", "height"} & set(root.attrib) == set()
    _left, _top, width, height = map(float, root.attrib["viewBox"].split())
    style = root.findtext(f"{SVG}style") or ""
    assert set(re.findall(r"font-family: ([\w-]+)", style)) == {"sans-serif"}
    assert min(map(float, re.findall(r"font-size: ([\d.]+)px", style))) / width >= LEGIBLE
    background = root.find(f"{SVG}rect")
    assert background is not None
    assert (float(background.attrib["width"]), float(background.attrib["height"])) == (width - 1, height - 1)
    assert background.attrib["fill"] != "none"


def test_the_picture_of_the_report_is_current() -> None:
    recorded = report_picture.recorded(report_picture.FILE.read_bytes())
    assert recorded == report_picture.digest(report_picture.page()), "run 'make picture'"


def test_each_picture_is_on_a_page() -> None:
    assert {image.file for image in images()} == {*DRAWINGS, *DOCS.rglob("*.png")}


def test_images_have_alternative_text() -> None:
    assert [image for image in images() if image.alternative is None] == []


def test_images_have_the_paths_of_the_site() -> None:
    """The session `docs` copies the pictures of docs/, with their paths relative to docs/docsite/rst."""
    assert [image for image in images() if not (image.path.startswith("../../") and image.file.is_file())] == []


class TestExample:
    """The entry that `concepts.rst` shows as a line, as JSON, and in a drawing."""

    page = (DOCS / "docsite/rst/concepts.rst").read_text(encoding="utf-8")

    def block(self, language: str) -> str:
        (text,) = re.findall(rf"^\.\. code-block:: {language}\n\n((?: {{4}}.*\n)+)", self.page, re.MULTILINE)
        return textwrap.dedent(text)

    def test_the_filter_prints_the_line(self) -> None:
        assert to_conntrack([json.loads(self.block("json"))]) == self.block("text")

    def test_the_drawing_of_source_nat_has_its_tuples(self) -> None:
        entry = json.loads(self.block("json"))
        texts = ["".join(text.itertext()) for text in parsed(DOCS / "images/nat.svg").iter(f"{SVG}text")]
        for direction in ("original", "reply"):
            shown = entry[direction]
            source = f"{shown['source']}:{shown['source_port']}"
            destination = f"{shown['destination']}:{shown['destination_port']}"
            first = texts.index(direction)
            assert texts[first : first + 4] == [direction, source, "→", destination]
