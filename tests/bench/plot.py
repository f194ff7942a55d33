# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was found, as a drawing: how the cost grows with the table, and every promise against its limit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from xml.sax.saxutils import escape

from .report import number, promise
from .rows import Curve, Limit, Results, Row

WIDTH = 1000
MARGIN = 24
LEFT, TOP, PLOT_WIDTH, PLOT_HEIGHT = 84, 92, 650, 330
BAR_LEFT, BAR_WIDTH, BAR_STEP, BAR_HEIGHT = 450, 330, 26, 14
#: The limits are all at the same place, and a bar ends at the latest at this many times its limit.
LONGEST = 1.6
COLOURS = ("a", "b", "c", "d", "e")

STYLE = """
    svg { font: 13px system-ui, sans-serif; }
    .ground { fill: #ffffff; } text { fill: #1f2328; } .quiet { fill: #59636e; }
    .grid { stroke: #d1d9e0; } .axis { stroke: #59636e; }
    .line { fill: none; stroke-width: 2; } .dashed { stroke-dasharray: 6 4; }
    .a { stroke: #0550ae; } .b { stroke: #6e7781; } .c { stroke: #116329; } .d { stroke: #953800; }
    .e { stroke: #8250df; }
    .kept { fill: #2da44e; } .broken { fill: #cf222e; } .limit { stroke: #1f2328; stroke-width: 2; }
    @media (prefers-color-scheme: dark) {
      .ground { fill: #0d1117; } text { fill: #e6edf3; } .quiet { fill: #9198a1; }
      .grid { stroke: #3d444d; } .axis { stroke: #9198a1; }
      .a { stroke: #58a6ff; } .b { stroke: #9198a1; } .c { stroke: #3fb950; } .d { stroke: #f0883e; }
      .e { stroke: #bc8cff; }
      .kept { fill: #3fb950; } .broken { fill: #f85149; } .limit { stroke: #e6edf3; }
    }
"""


def svg(results: Results) -> str:
    """The drawing as a file that stands alone."""
    return "\n".join(_document(results)) + "\n"


def _document(results: Results) -> Iterator[str]:
    bars = [(row, limit) for row in results.rows for limit in row.limits if row.measured(limit)]
    bars_top = TOP + PLOT_HEIGHT + 110 if results.curves else 60
    height = bars_top + BAR_STEP * len(bars) + 56
    broken = len(results.broken())
    about = results.machine
    # REUSE-IgnoreStart
    yield "<!-- SPDX-FileCopyrightText: netops.conntrack contributors -->"
    yield "<!-- SPDX-License-Identifier: GPL-3.0-or-later -->"
    # REUSE-IgnoreEnd
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" aria-labelledby="title description">'
    )
    yield '  <title id="title">netops.conntrack measured against its limits</title>'
    yield f'  <desc id="description">{escape(_description(results))}</desc>'
    yield f"  <style>{STYLE}  </style>"
    yield f'  <rect class="ground" width="{WIDTH}" height="{height}"/>'
    if results.curves:
        yield from _curves(results.curves)
    yield _text(MARGIN, bars_top - 28, "Each promise, against its limit", "", "font-size:17px;font-weight:600")
    for position, (row, limit) in enumerate(bars):
        yield from _bar(row, limit, bars_top + position * BAR_STEP)
    bottom = bars_top + BAR_STEP * len(bars)
    at = BAR_LEFT + BAR_WIDTH / LONGEST
    yield f'  <line class="limit" x1="{at:.1f}" x2="{at:.1f}" y1="{bars_top - 8}" y2="{bottom - 4}"/>'
    yield _text(at, bottom + 12, "limit", "quiet", "text-anchor:middle")
    yield _text(
        MARGIN,
        bottom + 38,
        f"{len(bars) - broken} of {len(bars)} hold. Linux {about['kernel']}, {about['processors']} processors, Python "
        f"{about['python']}, conntrack {about['conntrack']}, {results.options['runs']} "
        f"run{'s' * (results.options['runs'] > 1)}, {about['date']}{'; quick' if results.options['quick'] else ''}",
        "quiet",
    )
    yield "</svg>"


def _description(results: Results) -> str:
    """The same in words, for those who do not see it."""
    parts = []
    for curve in results.curves:
        first, last = curve.best()[0], curve.best()[-1]
        parts.append(
            f"{curve.name}: {number(first)} s for {curve.entries[0]:,} entries, {number(last)} s for "
            f"{curve.entries[-1]:,}."
        )
    parts += [
        f"{row.name}: {number(_middle(row, limit))}, {promise(row, limit)}."
        for row in results.rows
        for limit in row.limits
        if row.measured(limit)
    ]
    return " ".join(parts)


def _curves(curves: list[Curve]) -> Iterator[str]:
    """Seconds by entries, both as powers of ten: what grows linearly is a straight line of this slope."""
    sizes = curves[0].entries
    times = [seconds for curve in curves for seconds in curve.best()]
    x_low, x_high = math.log10(min(sizes)), math.log10(max(sizes))
    y_low, y_high = math.floor(math.log10(min(times))), math.ceil(math.log10(max(times)))

    def x_of(entries: float) -> float:
        return LEFT + (math.log10(entries) - x_low) / (x_high - x_low) * PLOT_WIDTH

    def y_of(seconds: float) -> float:
        return TOP + (y_high - math.log10(seconds)) / (y_high - y_low) * PLOT_HEIGHT

    bottom, right = TOP + PLOT_HEIGHT, LEFT + PLOT_WIDTH
    yield _text(MARGIN, 32, "How the cost grows with the table", "", "font-size:17px;font-weight:600")
    yield _text(MARGIN, 54, "seconds for the whole table, both axes logarithmic; flush removes half", "quiet")
    for exponent in range(y_low, y_high + 1):
        y = y_of(10**exponent)
        yield f'  <line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield _text(LEFT - 8, y + 4, f"{number(10**exponent)} s", "quiet", "text-anchor:end")
    for entries in sizes:
        x = x_of(entries)
        yield f'  <line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>'
        yield _text(x, bottom + 20, _short(entries), "quiet", "text-anchor:middle")
    yield f'  <path class="axis" fill="none" d="M{LEFT} {TOP}V{bottom}H{right}"/>'
    yield _text(LEFT + PLOT_WIDTH / 2, bottom + 42, "entries in the table", "quiet", "text-anchor:middle")
    labels: list[tuple[float, str, str]] = []
    for colour, curve in zip(COLOURS, curves, strict=False):
        points = list(zip(map(x_of, curve.entries), map(y_of, curve.best()), strict=True))
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        dashed = " dashed" if curve.name.startswith("bare") else ""
        yield f'  <path class="line {colour}{dashed}" d="{path}"/>'
        each = curve.best()[-1] / curve.entries[-1] * 1e6
        labels.append((points[-1][1], f"{curve.name}, {number(each)} µs each", colour))
    yield from _labels(labels, right + 10)


def _labels(labels: list[tuple[float, str, str]], x: float) -> Iterator[str]:
    """The names of the lines at their ends, moved apart where they would overlap."""
    lowest = -math.inf
    for y, label, colour in sorted(labels):
        at = max(y, lowest + 18)
        lowest = at
        yield f'  <line class="line {colour}" x1="{x}" x2="{x + 12}" y1="{at:.1f}" y2="{at:.1f}"/>'
        yield _text(x + 16, at + 4, label, "", "font-size:12px")


def _bar(row: Row, limit: Limit, y: float) -> Iterator[str]:
    share = _middle(row, limit) / limit.at_most
    kept = row.kept(limit)
    length = max(2.0, min(share, LONGEST) / LONGEST * BAR_WIDTH)
    versus = f", against {limit.side}" if limit.side else ""
    yield _text(BAR_LEFT - 10, y + 11, f"{row.name}{versus}", "", "text-anchor:end;font-size:12px")
    yield (
        f'  <rect class="{"kept" if kept else "broken"}" x="{BAR_LEFT}" y="{y}" width="{length:.1f}" '
        f'height="{BAR_HEIGHT}" rx="2"/>'
    )
    unit = "" if limit.side else f" {row.unit}"
    shown = f"{number(_middle(row, limit))}{unit}, at most {limit.at_most:g}{'' if kept else ': broken'}"
    yield _text(BAR_LEFT + BAR_WIDTH + 10, y + 11, shown, "quiet", "font-size:12px")


def _middle(row: Row, limit: Limit) -> float:
    measured = sorted(row.measured(limit) or [0.0])
    return measured[len(measured) // 2]


def _short(entries: int) -> str:
    if entries >= 1_000_000:
        return f"{entries / 1_000_000:g} million"
    return f"{entries:,}"


def _text(x: float, y: float, words: str, kind: str = "", style: str = "") -> str:
    attributes = (f' class="{kind}"' if kind else "") + (f' style="{style}"' if style else "")
    return f'  <text x="{x:.1f}" y="{y:.1f}"{attributes}>{escape(words)}</text>'
