# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Draw the results of all machines: ratios to other programs, values with limits, times by table size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape

from . import machine
from .report import number
from .rows import Curve, Limit, Results, Row, Side

WIDTH = 1000
MARGIN = 24
#: Bars: their start, the length of 1, and the maximum length; then two text columns, elapsed and processor time
BAR_LEFT, ONE, LONGEST = 270, 140, 2.0
COLUMNS = (570, 785)
BAR_HEIGHT, BAR_STEP, LINE = 8, 9, 24
#: Curves
LEFT, PLOT_WIDTH, PLOT_HEIGHT = 84, 650, 300
COLOURS = ("a", "b", "c", "d", "e", "f")

HEADING, SMALL = "font-size:17px;font-weight:600", "font-size:12px"
STYLE = """
    svg { font: 13px system-ui, sans-serif; }
    .ground { fill: #ffffff; } text { fill: #1f2328; } .quiet { fill: #59636e; }
    .grid { stroke: #d1d9e0; } .axis { stroke: #59636e; }
    .line { fill: none; stroke-width: 2; } .dashed { stroke-dasharray: 6 4; }
    .a { stroke: #0550ae; } .b { stroke: #6e7781; } .c { stroke: #116329; } .d { stroke: #953800; }
    .e { stroke: #8250df; } .f { stroke: #bf3989; }
    .kept { fill: #2da44e; } .broken { fill: #cf222e; } .plain { fill: #8c959f; } .processor { opacity: 0.55; }
    .limit { stroke: #1f2328; stroke-width: 2; }
    @media (prefers-color-scheme: dark) {
      .ground { fill: #0d1117; } text { fill: #e6edf3; } .quiet { fill: #9198a1; }
      .grid { stroke: #3d444d; } .axis { stroke: #9198a1; }
      .a { stroke: #58a6ff; } .b { stroke: #9198a1; } .c { stroke: #3fb950; } .d { stroke: #f0883e; }
      .e { stroke: #bc8cff; } .f { stroke: #f778ba; }
      .kept { fill: #3fb950; } .broken { fill: #f85149; } .plain { fill: #768390; } .limit { stroke: #e6edf3; }
    }
"""


@dataclass
class Bar:
    """A measured value: its length, its text, whether it is within its limit, and the position of the limit."""

    length: float
    text: str
    kept: bool | None = None
    limit: float | None = None

    @property
    def kind(self) -> str:
        return {None: "plain", True: "kept", False: "broken"}[self.kept]


@dataclass
class Group:
    """A row compared with one of its sides or with its own limit, for every machine that measured it."""

    name: str
    against: str
    #: by the letter of the machine
    bars: dict[str, Bars]


#: Elapsed time (or memory) and processor time
Bars = tuple[Bar | None, Bar | None]
Groups = Callable[[Row], Iterable[tuple[str, Bars]]]


def svg(machines: list[Results]) -> str:
    """Return the drawing as a standalone SVG file."""
    lettered = {chr(ord("A") + position): results for position, results in enumerate(machines)}
    comparisons, values = _groups(lettered, _comparisons), _groups(lettered, own_values)
    body: list[str] = []
    y = _legend(lettered, body)
    if comparisons:
        y = _section(
            "Time compared with other programs",
            "ratio of the time of this collection to that of the other program; at 1, both take the same time",
            "elapsed time",
            comparisons,
            y,
            body,
        )
    if values:
        y = _section("Values with a limit", "share of the limit", "elapsed time or memory", values, y, body)
    for letter, results in lettered.items():
        if results.curves:
            y = _curves(letter, results.curves, y, body)
    return "\n".join([*_head(y, _description(lettered, [*comparisons, *values])), *body, "</svg>"]) + "\n"


def _head(height: float, description: str) -> Iterator[str]:
    # REUSE-IgnoreStart
    yield "<!-- SPDX-FileCopyrightText: netops.conntrack contributors -->"
    yield "<!-- SPDX-License-Identifier: GPL-3.0-or-later -->"
    # REUSE-IgnoreEnd
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
        f'height="{height:.0f}" role="img" aria-labelledby="title description">'
    )
    yield '  <title id="title">netops.conntrack: measured times and memory, and their limits</title>'
    yield f'  <desc id="description">{escape(description)}</desc>'
    yield f"  <style>{STYLE}  </style>"
    yield f'  <rect class="ground" width="{WIDTH}" height="{height:.0f}"/>'


def _description(lettered: dict[str, Results], groups: list[Group]) -> str:
    """Return a text with everything that the drawing shows."""
    parts = [f"{letter}: {'; '.join(about(results))}." for letter, results in lettered.items()]
    for group in groups:
        for letter, bars in group.bars.items():
            texts = [
                f"{kind} {drawn.text}" if kind else drawn.text
                for kind, drawn in zip(("", "processor time"), bars, strict=True)
                if drawn
            ]
            parts.append(f"{group.name}{f', {group.against}' * bool(group.against)}, {letter}: {', '.join(texts)}.")
    for letter, results in lettered.items():
        for curve in results.curves:
            first, last = curve.best()[0], curve.best()[-1]
            parts.append(
                f"{curve.name}, {letter}: {number(first)} s for {curve.entries[0]:,} entries, {number(last)} s for "
                f"{curve.entries[-1]:,}."
            )
    return " ".join(parts)


# machines


def _legend(lettered: dict[str, Results], body: list[str]) -> float:
    y = 32.0
    body.append(_text(MARGIN, y, "Machines", "", HEADING))
    for letter, results in lettered.items():
        first, *more = about(results)
        y += 26
        body.append(_text(MARGIN, y, f"{letter}: {first}"))
        for line in more:
            y += 18
            body.append(_text(MARGIN + 18, y, line, "quiet", SMALL))
    return y + 44


def about(results: Results) -> list[str]:
    """Return lines about a machine: processor, versions, number of runs, and limits."""
    described, options = results.machine, results.options
    limits = [limit for row in results.rows for limit in row.limits if row.measured(limit)]
    kept = f"{len(limits) - len(results.broken())} of {len(limits)} limits kept"
    runs = f"{options['runs']} run{'s' * (options['runs'] > 1)} on {described['date']}{', quick' * options['quick']}"
    library = described.get("vishvananda_netlink")  # absent in older results
    versions = (
        f"Linux {described['kernel']}, Python {described['python']}, conntrack {described['conntrack'] or 'absent'}"
        f"{f', vishvananda/netlink {library}' if library else ''}; {runs}; {kept}"
    )
    return [machine.label(described), versions, *(f"doubtful: {doubt}" for doubt in machine.doubts(described))]


# ratios and values


def _groups(lettered: dict[str, Results], of_row: Groups) -> list[Group]:
    """Collect the groups of all machines, in the order of the newest results."""
    found: dict[tuple[str, str], Group] = {}
    for results in sorted(lettered.values(), key=lambda one: str(one.machine["date"]), reverse=True):
        for row in results.rows:
            for against, _bars in of_row(row):
                found.setdefault((row.name, against), Group(row.name, against, {}))
    for letter, results in lettered.items():
        for row in results.rows:
            for against, bars in of_row(row):
                found[row.name, against].bars[letter] = bars
    return list(found.values())


def _comparisons(row: Row) -> Iterator[tuple[str, Bars]]:
    """Compare a row with each side that it has a limit for; on one core, with every side."""
    for side in row.sides[1:]:
        if row.processors or any(limit.side == side.name for limit in row.limits):
            yield f"against {side.name}", (ratio(row, side), ratio(row, side, processor=True))


def ratio(row: Row, side: Side, processor: bool = False) -> Bar | None:
    """Return the median of a row's ratios to another side, with its limit; None if it was not measured."""
    ratios = row.ratios(side, processor)
    if not ratios:
        return None
    value = _middle(ratios)
    limit = next((one for one in row.limits if (one.side, one.processor) == (side.name, processor)), None)
    if limit is None:
        return Bar(value, number(value))
    return Bar(value, _with_limit(number(value), row, limit), row.kept(limit), limit.at_most)


def own_values(row: Row) -> Iterator[tuple[str, Bars]]:
    """Show the row's own value if it has a limit, and its processor time beside it."""
    for limit in row.limits:
        if limit.side is None and not limit.processor:
            value = _middle(row.sides[0].values)
            text = _with_limit(f"{number(value)} {row.unit}", row, limit)
            drawn = Bar(value / limit.at_most, text, row.kept(limit), 1.0)
            processor = row.sides[0].processor
            used = _middle(processor) if processor else 0.0
            yield "", (drawn, Bar(used / limit.at_most, f"{number(used)} {row.unit}") if processor else None)


def _with_limit(text: str, row: Row, limit: Limit) -> str:
    return f"{text} (limit {limit.at_most:g}{'' if row.kept(limit) else ', exceeded'})"


def _section(title: str, subtitle: str, first: str, groups: list[Group], y: float, body: list[str]) -> float:
    body.append(_text(MARGIN, y, title, "", HEADING))
    body.append(_text(MARGIN, y + 22, subtitle, "quiet"))
    body.append(_text(MARGIN, y + 40, f"upper bar: {first}; lower bar: processor time; black mark: limit", "quiet"))
    for x, words in zip(COLUMNS, (first, "processor time"), strict=True):
        body.append(_text(x, y + 62, words, "quiet", SMALL))
    top = y = y + 74
    position = len(body)
    for group in groups:
        y = _group(group, y, body)
    x = BAR_LEFT + ONE
    # Below the bars
    body.insert(position, f'  <line class="grid" x1="{x}" x2="{x}" y1="{top - 6:.0f}" y2="{y - 6:.0f}"/>')
    body.insert(position, _text(x, top - 12, "1", "quiet", f"text-anchor:middle;{SMALL}"))
    return y + 44


def _group(group: Group, y: float, body: list[str]) -> float:
    body.append(_text(MARGIN, y + 12, group.name, "", SMALL))
    if group.against:
        body.append(_text(MARGIN, y + 27, group.against, "quiet", SMALL))
    for position, (letter, bars) in enumerate(group.bars.items()):
        top = y + position * LINE
        body.append(_text(BAR_LEFT - 18, top + 12, letter, "quiet", SMALL))
        for place, (drawn, column, kind) in enumerate(zip(bars, COLUMNS, ("", " processor"), strict=True)):
            if drawn:
                body.extend(_bar(drawn, top + place * BAR_STEP, kind))
                body.append(_text(column, top + 12, drawn.text, "quiet", SMALL))
    return y + max(LINE * len(group.bars), 34 if group.against else LINE) + 8


def _bar(drawn: Bar, y: float, kind: str) -> Iterator[str]:
    length = max(2.0, min(drawn.length, LONGEST) * ONE)
    size = f'width="{length:.1f}" height="{BAR_HEIGHT}"'
    yield f'  <rect class="{drawn.kind}{kind}" x="{BAR_LEFT}" y="{y:.0f}" {size} rx="2"/>'
    if drawn.limit is not None:
        x = BAR_LEFT + drawn.limit * ONE
        yield f'  <line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 1:.0f}" y2="{y + BAR_HEIGHT + 1:.0f}"/>'


def _middle(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


# times by the size of the table


def _curves(letter: str, curves: list[Curve], y: float, body: list[str]) -> float:
    """Draw seconds by entries on two logarithmic axes.

    Linear growth is a straight line with the same slope everywhere.
    """
    sizes = curves[0].entries
    times = [seconds for curve in curves for seconds in curve.best()]
    x_low, x_high = math.log10(min(sizes)), math.log10(max(sizes))
    y_low, y_high = math.floor(math.log10(min(times))), math.ceil(math.log10(max(times)))
    top = y + 56

    def x_of(entries: float) -> float:
        return LEFT + (math.log10(entries) - x_low) / (x_high - x_low) * PLOT_WIDTH

    def y_of(seconds: float) -> float:
        return top + (y_high - math.log10(seconds)) / (y_high - y_low) * PLOT_HEIGHT

    bottom, right = top + PLOT_HEIGHT, LEFT + PLOT_WIDTH
    body.append(_text(MARGIN, y, f"Elapsed time by the size of the table, machine {letter}", "", HEADING))
    body.append(
        _text(MARGIN, y + 22, "seconds for the whole table, both axes logarithmic; flush removes half", "quiet")
    )
    for exponent in range(y_low, y_high + 1):
        at = y_of(10**exponent)
        body.append(f'  <line class="grid" x1="{LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        body.append(_text(LEFT - 8, at + 4, f"{number(10**exponent)} s", "quiet", "text-anchor:end"))
    for entries in sizes:
        x = x_of(entries)
        body.append(f'  <line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.0f}" y2="{bottom:.0f}"/>')
        body.append(_text(x, bottom + 20, _short(entries), "quiet", "text-anchor:middle"))
    body.append(f'  <path class="axis" fill="none" d="M{LEFT} {top:.0f}V{bottom:.0f}H{right}"/>')
    body.append(_text(LEFT + PLOT_WIDTH / 2, bottom + 42, "entries in the table", "quiet", "text-anchor:middle"))
    labels: list[tuple[float, str, str]] = []
    for colour, curve in zip(itertools.cycle(COLOURS), curves, strict=False):
        points = list(zip(map(x_of, curve.entries), map(y_of, curve.best()), strict=True))
        path = "M" + "L".join(f"{x:.1f} {at:.1f}" for x, at in points)
        dashed = " dashed" if curve.name.startswith("bare") else ""
        body.append(f'  <path class="line {colour}{dashed}" d="{path}"/>')
        each = curve.best()[-1] / curve.entries[-1] * 1e6
        labels.append((points[-1][1], f"{curve.name}, {number(each)} µs each", colour))
    body.extend(_labels(labels, right + 10))
    return bottom + 92


def _labels(labels: list[tuple[float, str, str]], x: float) -> Iterator[str]:
    """Write the names of the lines at their ends, and move them apart if they would overlap."""
    lowest = -math.inf
    for y, label, colour in sorted(labels):
        at = max(y, lowest + 18)
        lowest = at
        yield f'  <line class="line {colour}" x1="{x}" x2="{x + 12}" y1="{at:.1f}" y2="{at:.1f}"/>'
        yield _text(x + 16, at + 4, label, "", SMALL)


def _short(entries: int) -> str:
    if entries >= 1_000_000:
        return f"{entries / 1_000_000:g} million"
    return f"{entries:,}"


def _text(x: float, y: float, words: str, kind: str = "", style: str = "") -> str:
    attributes = (f' class="{kind}"' if kind else "") + (f' style="{style}"' if style else "")
    return f'  <text x="{x:.1f}" y="{y:.1f}"{attributes}>{escape(words)}</text>'
