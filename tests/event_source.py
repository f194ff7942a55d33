# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The documentation page of the event source. `python -m tests.event_source` writes it from its DOCUMENTATION.

antsibull-docs generates pages for plugins of Ansible, but not for plugins of Event-Driven Ansible.
"""

from __future__ import annotations

import json
import re
import runpy
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).parents[1]
SOURCE = CHECKOUT / "extensions/eda/plugins/event_source/conntrack.py"
PUBLISHED = CHECKOUT / "docs/docsite/rst/event_source.rst"
WIDTH = 120
TYPES = {"raw": "any", "str": "string", "int": "integer", "float": "number", "bool": "boolean", "dict": "dictionary"}

_START = """\
..
  SPDX-FileCopyrightText: netops.conntrack contributors
  SPDX-License-Identifier: GPL-3.0-or-later

  python -m tests.event_source writes this page from extensions/eda/plugins/event_source/conntrack.py.

.. _ansible_collections.netops.conntrack.docsite.event_source:

The event source conntrack
==========================

This page lists all options of the event source ``netops.conntrack.conntrack`` for Event-Driven Ansible.
:ref:`ansible_collections.netops.conntrack.docsite.guide_events` explains how to use it.
"""


def text() -> str:
    """Return the whole page."""
    plugin = runpy.run_path(str(SOURCE))
    about = yaml.safe_load(plugin["DOCUMENTATION"])
    sections = {
        "Options": _table(about["options"]),
        "Requirements": _list(about["requirements"]),
        "Notes": _list(about["notes"]),
        "Examples": [".. code-block:: yaml", "", textwrap.indent(plugin["EXAMPLES"].strip("\n"), " " * 4)],
    }
    parts = [_START, *_paragraphs(about["description"], "", "")]
    for heading, lines in sections.items():
        parts += ["", heading, "-" * len(heading), "", *lines]
    return "\n".join(parts) + "\n"


def _table(options: Mapping[str, Any]) -> Iterator[str]:
    yield ".. list-table::"
    yield "    :header-rows: 1"
    yield "    :widths: 25 75"
    yield ""
    yield "    * - Option"
    yield "      - Description"
    for name, option in options.items():
        yield from _row(name, option)
        for below, suboption in option.get("suboptions", {}).items():
            yield from _row(f"{name}.{below}", suboption)


def _row(name: str, option: Mapping[str, Any]) -> Iterator[str]:
    kind = TYPES.get(option["type"], option["type"])
    if kind == "list":
        kind = f"list of {TYPES[option['elements']]}s"
    yield f"    * - ``{name}``"
    yield ""
    yield f"        {kind}, required" if option.get("required") else f"        {kind}"
    described = option["description"]
    described = [described] if isinstance(described, str) else list(described)
    if "choices" in option:
        described.append("Choices: " + ", ".join(f"C({choice})" for choice in option["choices"]))
    if "default" in option:
        described.append(f"Default: C({json.dumps(option['default'])})".replace('"', ""))
    yield from _paragraphs(described, "      - ", " " * 8)


def _paragraphs(described: list[str], first: str, indent: str) -> Iterator[str]:
    for number, paragraph in enumerate(described):
        if number:
            yield ""
        yield from _wrapped(paragraph, indent if number else first, indent)


def _list(items: list[str]) -> Iterator[str]:
    for item in items:
        yield from _wrapped(item, "- ", "  ")


def _wrapped(paragraph: str, first: str, indent: str) -> list[str]:
    return textwrap.wrap(
        _rst(paragraph), WIDTH, initial_indent=first, subsequent_indent=indent, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _rst(described: str) -> str:
    """Return the markup of Ansible's documentation as reStructuredText."""
    linked = re.sub(r"M\(([\w.]+)\)", r":ansplugin:`\1#module`", described)
    return re.sub(r"[COV]\(([^)]+)\)", r"``\1``", linked)


if __name__ == "__main__":
    PUBLISHED.write_text(text(), encoding="utf-8")
