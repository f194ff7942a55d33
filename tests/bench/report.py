# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The results of one machine as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import machine
from .rows import Curve, Limit, Results, Row, Side

NAME, VALUE, SHORT = 46, 14, 6
DIGITS = 3


def text(results: Results) -> str:
    """Return a table: each row with its sides, ratios and limits, and whether each limit is kept."""
    return "\n".join(_lines(results))


def number(value: float) -> str:
    """Format with three significant digits, never in scientific notation."""
    if value >= 1000:
        return f"{value:,.0f}"
    shown = f"{value:.{DIGITS}g}"
    return f"{value:.6f}".rstrip("0").rstrip(".") if "e" in shown else shown


def promise(row: Row, limit: Limit) -> str:
    """Describe a limit in words."""
    of = f"of {limit.side}" if limit.side else row.unit
    return f"{'processor time ' if limit.processor else ''}at most {limit.at_most:g} {of}"


def verdict(row: Row, limit: Limit) -> str:
    """Describe whether a limit was kept, and in how many runs if there were several."""
    holds = row.holds(limit)
    if holds is None:
        return "not compared"
    runs = f" ({sum(holds)} of {len(holds)} runs)" if len(holds) > 1 else ""
    return ("holds" if row.kept(limit) else "BROKEN") + runs


def _lines(results: Results) -> Iterator[str]:
    about = results.machine
    steal = about["steal_percent"]
    yield machine.label(about)
    yield (
        f"Linux {about['kernel']}, Python {about['python']}, conntrack {about['conntrack'] or 'absent'}, "
        f"pyroute2 {about['pyroute2']}, vishvananda/netlink {about['vishvananda_netlink'] or 'absent'}, "
        f"ansible-core {about['ansible_core']}; load {about['load_at_start']} before the run, "
        f"steal {'unknown' if steal is None else f'{steal:g} %'}"
    )
    for doubt in machine.doubts(about):
        yield f"DOUBTFUL: {doubt}. Repeat the run when nothing else runs."
    if results.options["quick"]:
        yield "Quick: the tables are so small that the figures mean little."
    yield "Each time is the shortest of its turns, unless a note says otherwise. Memory is the peak of the process."
    yield "Processor time is the user and system time of all threads and child processes."
    yield "The start of Python and its imports are not included, unlike the start of conntrack."
    for row in results.rows:
        yield ""
        yield row.work + (f" [{row.note}]" if row.note else "")
        for side in row.sides:
            yield _side(row, side)
    for curve in results.curves:
        yield ""
        yield f"{curve.name}, by entries: " + ", ".join(
            f"{entries:,} {number(seconds)} s ({number(seconds / entries * 1e6)} µs each{processor})"
            for entries, seconds, processor in zip(curve.entries, curve.best(), _processor(curve), strict=True)
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


def _processor(curve: Curve) -> list[str]:
    """Describe the processor time per entry, for each number of entries."""
    if not curve.processor:
        return [""] * len(curve.entries)
    times = zip(curve.entries, curve.best_processor(), strict=True)
    return [f", processor {number(seconds / entries * 1e6)} µs" for entries, seconds in times]


def _side(row: Row, side: Side) -> str:
    line = f"  {side.name:{NAME}}{_values(side.values)} {row.unit:3}"
    if side.processor:
        line += f"   processor {_values(side.processor, SHORT)} {row.unit}"
    if side.memory:
        line += f"{number(max(side.memory)):>8} MB"
    if side is not row.sides[0]:
        line += f"   ratio {_values(row.ratios(side), SHORT)}"
        if of_processor := row.ratios(side, processor=True):
            line += f", processor {_values(of_processor, SHORT)}"
    limits = [limit for limit in row.limits if limit.side == (None if side is row.sides[0] else side.name)]
    for limit in limits:
        line += f"   {promise(row, limit)}: {verdict(row, limit)}"
    return line.rstrip()


def _measured(row: Row, limit: Limit) -> str:
    measured: Any = row.measured(limit)
    return ", ".join(number(value) for value in measured)


def _values(values: list[float], width: int = VALUE) -> str:
    """Return the median of the runs' values, with the lowest and the highest if there are several."""
    middle = number(sorted(values)[len(values) // 2])
    if len(values) > 1:
        middle += f" ({number(min(values))} to {number(max(values))})"
    return f"{middle:>{width}}" if len(values) == 1 else middle
