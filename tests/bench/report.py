# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was found, as a table to read and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .rows import Limit, Results, Row, Side

NAME, VALUE = 46, 14
DIGITS = 3


def text(results: Results) -> str:
    """The table: each row with its sides, the ratios, the limits and whether they were kept."""
    return "\n".join(_lines(results))


def json_text(results: Results) -> str:
    """The same for programs, with the values of every run."""
    return json.dumps(results.as_document(), indent=2, ensure_ascii=False) + "\n"


def number(value: float) -> str:
    """Three digits that count, never as a power of ten."""
    if value >= 1000:
        return f"{value:,.0f}"
    shown = f"{value:.{DIGITS}g}"
    return f"{value:.6f}".rstrip("0").rstrip(".") if "e" in shown else shown


def promise(row: Row, limit: Limit) -> str:
    """A limit in words."""
    return f"at most {limit.at_most:g} {f'of {limit.side}' if limit.side else row.unit}"


def verdict(row: Row, limit: Limit) -> str:
    """Whether a limit was kept, and in how many runs where there were several."""
    holds = row.holds(limit)
    if holds is None:
        return "not compared"
    runs = f" ({sum(holds)} of {len(holds)} runs)" if len(holds) > 1 else ""
    return ("holds" if row.kept(limit) else "BROKEN") + runs


def _lines(results: Results) -> Iterator[str]:
    about = results.machine
    yield (
        f"Linux {about['kernel']}, {about['processors']} processors, Python {about['python']}, "
        f"conntrack {about['conntrack'] or 'absent'}, pyroute2 {about['pyroute2']}, "
        f"ansible-core {about['ansible_core']}; load {about['load_at_start']} when it began"
    )
    if results.options["quick"]:
        yield "Quick: the tables are so small that the figures mean little."
    yield "Each figure is the best of its turns, unless it says otherwise; memory is the most that the process had."
    for row in results.rows:
        yield ""
        yield row.work + (f" [{row.note}]" if row.note else "")
        for side in row.sides:
            yield _side(row, side)
    for curve in results.curves:
        yield ""
        yield f"{curve.name}, by entries: " + ", ".join(
            f"{entries:,} {number(seconds)} s ({number(seconds / entries * 1e6)} µs each)"
            for entries, seconds in zip(curve.entries, curve.best(), strict=True)
        )
    for reason in results.missing + results.failures:
        yield ""
        yield f"Not measured: {reason}"
    yield ""
    limits = [limit for row in results.rows for limit in row.limits if row.measured(limit)]
    broken = results.broken()
    yield f"{len(limits) - len(broken)} of {len(limits)} limits hold."
    for row, limit in broken:
        yield f"  BROKEN  {row.name}: {_measured(row, limit)}, {promise(row, limit)}"


def _side(row: Row, side: Side) -> str:
    line = f"  {side.name:{NAME}}{_values(side.values)} {row.unit:3}"
    if side.cpu:
        line += f"   cpu {number(min(side.cpu)):>7} s"
    if side.memory:
        line += f"{number(max(side.memory)):>8} MB"
    if side is not row.sides[0]:
        line += f"   ratio {_values(row.ratios(side))}"
    limits = [limit for limit in row.limits if limit.side == (None if side is row.sides[0] else side.name)]
    for limit in limits:
        line += f"   {promise(row, limit)}: {verdict(row, limit)}"
    return line.rstrip()


def _measured(row: Row, limit: Limit) -> str:
    measured: Any = row.measured(limit)
    return ", ".join(number(value) for value in measured)


def _values(values: list[float]) -> str:
    """The middle of the runs' values, with the lowest and the highest where there are several."""
    middle = number(sorted(values)[len(values) // 2])
    if len(values) > 1:
        middle += f" ({number(min(values))} to {number(max(values))})"
    return f"{middle:>{VALUE}}" if len(values) == 1 else middle
