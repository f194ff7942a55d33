# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A folder with the results of several machines in `bench.json` and a drawing of them in `bench.svg`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import machine, plot
from .rows import Results

FORMAT = 2
DATA, DRAWING = "bench.json", "bench.svg"

Document = dict[str, Any]


class Unreadable(RuntimeError):
    """A file that contains no results, or results in another format."""


def read(folder: Path) -> list[Document]:
    """Return the results of all machines. A folder without the file has no results.

    :raises Unreadable: if the file cannot be extended.
    """
    path = folder / DATA
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except ValueError as reason:
        raise Unreadable(f"{path} is not JSON ({reason}): move it away, or name another folder with --output") from None
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise Unreadable(f"{path} has format {found} instead of {FORMAT}: move it away, or use --output")
    machines: list[Document] = document["machines"]
    return machines


def add(folder: Path, results: Results) -> None:
    """Write the results of one machine beside those of others, and replace its own earlier results."""
    added = results.as_document()
    others = [one for one in read(folder) if machine.key(one["machine"]) != machine.key(added["machine"])]
    machines = sorted([*others, added], key=lambda one: machine.key(one["machine"]))
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": FORMAT, "machines": machines}, indent=2, ensure_ascii=False) + "\n"
    _write(folder / DATA, text)
    draw(folder)


def draw(folder: Path) -> None:
    """Draw the results in a folder."""
    _write(folder / DRAWING, plot.svg([Results.from_document(one) for one in read(folder)]))


def _write(path: Path, text: str) -> None:
    """Replace a file in one step, so that an interruption cannot destroy the results of other machines."""
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
