# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is measured: rows of sides, and what each row promises. Several runs of a row become one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

OURS = "this collection"
#: The part of the runs in which a limit has to be kept: four of five, for a machine is never quite quiet.
RUNS = 0.8


@dataclass
class Side:
    """One contender in a row: a value for each run, in the row's unit."""

    name: str
    values: list[float]
    #: seconds of the processors, and the most memory in MB, where known
    cpu: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    #: entries, where it had other ones than the row says; it is compared by what one entry takes
    entries: int | None = None


@dataclass
class Limit:
    """What is promised: at most so much, of another side if one is named, of the row's unit else."""

    at_most: float
    side: str | None = None


@dataclass
class Row:
    """One work, done by several."""

    name: str
    work: str
    sides: list[Side]
    limits: list[Limit] = field(default_factory=list)
    unit: str = "s"
    entries: int | None = None
    note: str = ""

    def side(self, name: str) -> Side | None:
        return next((side for side in self.sides if side.name == name), None)

    def per_entry(self, side: Side) -> list[float]:
        """Values that can be compared, whatever number of entries each side had."""
        entries = side.entries or self.entries
        return [value / entries for value in side.values] if entries else side.values

    def ratios(self, side: Side) -> list[float]:
        """The first side's values divided by another's, run by run."""
        pairs = zip(self.per_entry(self.sides[0]), self.per_entry(side), strict=True)
        return [ours / theirs for ours, theirs in pairs]

    def measured(self, limit: Limit) -> list[float] | None:
        """What a limit is about, run by run; None where the other side was not there."""
        if limit.side is None:
            return self.sides[0].values
        side = self.side(limit.side)
        return None if side is None else self.ratios(side)

    def holds(self, limit: Limit) -> list[bool] | None:
        """Whether a limit is kept, run by run."""
        measured = self.measured(limit)
        return None if measured is None else [value <= limit.at_most for value in measured]

    def kept(self, limit: Limit) -> bool:
        """Whether a limit is kept, in so many runs that it counts; where nothing was compared, it is not broken."""
        holds = self.holds(limit)
        return holds is None or sum(holds) >= RUNS * len(holds)


@dataclass
class Curve:
    """What one work takes by the number of entries: seconds for each number, in each run."""

    name: str
    entries: list[int]
    seconds: list[list[float]]

    def best(self) -> list[float]:
        return [min(values) for values in zip(*self.seconds, strict=True)]


@dataclass
class Results:
    """All that a bench has found, of so many runs."""

    machine: dict[str, Any]
    options: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    #: what was not measured: for want of something, or because it failed
    missing: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    interrupted: bool = False

    def add(self, row: Row) -> None:
        """Add a row, or a further run of one."""
        known = next((one for one in self.rows if one.name == row.name), None)
        if known is None:
            self.rows.append(row)
            return
        for mine, more in zip(known.sides, row.sides, strict=True):
            mine.values += more.values
            mine.cpu += more.cpu
            mine.memory += more.memory

    def add_curve(self, curve: Curve) -> None:
        """Add a curve, or a further run of one."""
        known = next((one for one in self.curves if one.name == curve.name), None)
        if known is None:
            self.curves.append(curve)
        else:
            known.seconds += curve.seconds

    def broken(self) -> list[tuple[Row, Limit]]:
        """Limits that were not kept."""
        return [(row, limit) for row in self.rows for limit in row.limits if not row.kept(limit)]

    def as_document(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "format": 1,
            "machine": self.machine,
            "options": self.options,
            "rows": [_row(row) for row in self.rows],
            "curves": [
                {"name": curve.name, "entries": curve.entries, "seconds": _rounded(curve.seconds)}
                for curve in self.curves
            ],
            "missing": self.missing,
            "failures": self.failures,
        }


def _row(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "work": row.work,
        "unit": row.unit,
        "entries": row.entries,
        "note": row.note,
        "sides": [
            {
                "name": side.name,
                "entries": side.entries or row.entries,
                "values": _rounded(side.values),
                "cpu_seconds": _rounded(side.cpu),
                "peak_memory_mb": _rounded(side.memory),
                "ratios": None if side is row.sides[0] else _rounded(row.ratios(side)),
            }
            for side in row.sides
        ],
        "limits": [
            {
                "at_most": limit.at_most,
                "of": limit.side,
                "measured": _rounded(row.measured(limit)),
                "holds": row.holds(limit),
                "kept": row.kept(limit),
            }
            for limit in row.limits
        ],
    }


def _rounded(values: Any) -> Any:
    """Four digits that count: what is beyond is noise."""
    if isinstance(values, Iterable):
        return [_rounded(value) for value in values]
    return None if values is None else float(f"{values:.4g}")
