# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tables of the documentation page about performance: ratios to other programs, and values with limits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from . import plot
from .rows import Results, Side

PUBLISHED = Path(__file__).parents[2] / "docs/docsite/rst/guide_performance.rst"
#: Comments before and after the tables.
BEGIN = ".. 'make bench' writes the following tables from docs/bench.json.\n"
END = ".. This is the end of the tables from docs/bench.json.\n"


def write(machines: list[Results]) -> None:
    """Replace the tables of the page."""
    PUBLISHED.write_text(with_tables(PUBLISHED.read_text(encoding="utf-8"), machines), encoding="utf-8")


def with_tables(page: str, machines: list[Results]) -> str:
    """Return a page with the tables of these machines between its two comments."""
    before, begin, rest = page.partition(BEGIN)
    _old, end, after = rest.partition(END)
    for comment, found in ((BEGIN, begin), (END, end)):
        if not found:
            raise ValueError(f"{PUBLISHED.name} lacks the comment {comment.strip()!r}")
    return f"{before}{BEGIN}\n{tables(machines)}\n{END}{after}"


def tables(machines: list[Results]) -> str:
    """Return the tables of all machines."""
    return "\n".join(line for results in machines for line in _machine(results))


def _machine(results: Results) -> Iterator[str]:
    name, versions, *doubts = plot.about(results)
    yield from (name, "~" * len(name), "", f"{versions}.", "")
    for doubt in doubts:
        yield from (f"The figures are {doubt}.", "")
    compared = [
        (row.work, _name(side), _text(plot.ratio(row, side)), _text(plot.ratio(row, side, processor=True)))
        for row in results.rows
        for side in row.sides[1:]
    ]
    yield from _table(
        "Work", "Compared with", "Elapsed time", "Processor time", rows=[one for one in compared if one[2]]
    )
    own = [(row.work, _text(bars[0])) for row in results.rows for _against, bars in plot.own_values(row)]
    yield from _table("Work", "Value", rows=own)


def _table(*heads: str, rows: list[tuple[str, ...]]) -> Iterator[str]:
    if not rows:
        return
    yield from (".. list-table::", "    :header-rows: 1", "")
    for cells in (heads, *rows):
        for number, cell in enumerate(cells):
            yield f"    {'* -' if number == 0 else '  -'} {cell}".rstrip()
    yield ""


def _name(side: Side) -> str:
    """Return the name of a side, as code if it is a command."""
    return f"``{side.name}``" if " -" in side.name else side.name


def _text(drawn: plot.Bar | None) -> str:
    return drawn.text if drawn else ""
