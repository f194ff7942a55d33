# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows of measurements: the compared sides, and limits. A row has the values of all runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

OURS = "this collection"
#: The fraction of the runs in which a limit must be kept. One run in five may fail, because no machine is ever idle.
RUNS = 0.8


@dataclass
class Side:
    """One contender in a row: a value for each run, in the row's unit."""

    name: str
    values: list[float]
    #: user and system time in the row's unit, for rows of elapsed time
    processor: list[float] = field(default_factory=list)
    #: peak memory in MB
    memory: list[float] = field(default_factory=list)
    #: number of entries, if it differs from that of the row; the comparison then uses the time per entry
    entries: int | None = None


@dataclass
class Limit:
    """A maximum for the ratio to another side, if one is named, otherwise for the first side's value."""

    at_most: float
    side: str | None = None
    #: whether the limit applies to processor time instead of elapsed time
    processor: bool = False


@dataclass
class Row:
    """One work, done by several contenders."""

    name: str
    work: str
    sides: list[Side]
    limits: list[Limit] = field(default_factory=list)
    unit: str = "s"
    entries: int | None = None
    note: str = ""
    #: number of processors that every side ran on; None means all processors of the machine
    processors: int | None = None

    def side(self, name: str) -> Side | None:
        return next((side for side in self.sides if side.name == name), None)

    def per_entry(self, side: Side, processor: bool = False) -> list[float]:
        """Return elapsed or processor time, per entry if the sides have different numbers of entries."""
        values = side.processor if processor else side.values
        entries = side.entries or self.entries
        return [value / entries for value in values] if entries else values

    def ratios(self, side: Side, processor: bool = False) -> list[float]:
        """Return the first side's values divided by another's, for each run; empty if one of them was not measured."""
        ours, theirs = (self.per_entry(one, processor) for one in (self.sides[0], side))
        if not ours or not theirs or not all(theirs):
            return []
        return [mine / other for mine, other in zip(ours, theirs, strict=True)]

    def measured(self, limit: Limit) -> list[float] | None:
        """Return the values that a limit applies to, for each run; None if the other side was not measured."""
        if limit.side is None:
            return (self.sides[0].processor if limit.processor else self.sides[0].values) or None
        side = self.side(limit.side)
        return (self.ratios(side, limit.processor) or None) if side else None

    def holds(self, limit: Limit) -> list[bool] | None:
        """Return for each run whether a limit is kept."""
        measured = self.measured(limit)
        return None if measured is None else [value <= limit.at_most for value in measured]

    def kept(self, limit: Limit) -> bool:
        """Return whether a limit is kept in enough runs. A limit without a comparison counts as kept."""
        holds = self.holds(limit)
        return holds is None or sum(holds) >= RUNS * len(holds)


@dataclass
class Curve:
    """The time of one work by the number of entries: seconds for each number, in each run."""

    name: str
    entries: list[int]
    seconds: list[list[float]]
    processor: list[list[float]] = field(default_factory=list)

    def best(self) -> list[float]:
        """Return the shortest elapsed time of all runs for each number of entries."""
        return [min(values) for values in zip(*self.seconds, strict=True)]

    def best_processor(self) -> list[float]:
        """Return the shortest processor time of all runs for each number of entries; empty if it was not measured."""
        return [min(values) for values in zip(*self.processor, strict=True)]


@dataclass
class Results:
    """The results of all runs on one machine."""

    machine: dict[str, Any]
    options: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    #: reasons why something was not measured: a missing requirement, or a failure
    missing: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    interrupted: bool = False

    def add(self, row: Row) -> None:
        """Add a row, or another run of an existing row."""
        known = next((one for one in self.rows if one.name == row.name), None)
        if known is None:
            self.rows.append(row)
            return
        for mine, more in zip(known.sides, row.sides, strict=True):
            mine.values += more.values
            mine.processor += more.processor
            mine.memory += more.memory

    def add_curve(self, curve: Curve) -> None:
        """Add a curve, or another run of an existing curve."""
        known = next((one for one in self.curves if one.name == curve.name), None)
        if known is None:
            self.curves.append(curve)
        else:
            known.seconds += curve.seconds
            known.processor += curve.processor

    def broken(self) -> list[tuple[Row, Limit]]:
        """Return the limits that were not kept."""
        return [(row, limit) for row in self.rows for limit in row.limits if not row.kept(limit)]

    def as_document(self) -> dict[str, Any]:
        """Return the results as plain data."""
        return {
            "machine": self.machine,
            "options": self.options,
            "rows": [_row(row) for row in self.rows],
            "curves": [
                {
                    "name": curve.name,
                    "entries": curve.entries,
                    "seconds": _rounded(curve.seconds),
                    "processor_seconds": _rounded(curve.processor),
                }
                for curve in self.curves
            ],
            "missing": self.missing,
            "failures": self.failures,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Results:
        """Read results from plain data. Ratios are computed again, from values with four digits."""
        curves = document["curves"]
        return cls(
            document["machine"],
            document["options"],
            [_row_from(row) for row in document["rows"]],
            [Curve(one["name"], one["entries"], one["seconds"], one["processor_seconds"]) for one in curves],
            document["missing"],
            document["failures"],
        )


def _row(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "work": row.work,
        "unit": row.unit,
        "entries": row.entries,
        "processors": row.processors,
        "note": row.note,
        "sides": [
            {
                "name": side.name,
                "entries": side.entries or row.entries,
                "values": _rounded(side.values),
                "processor_time": _rounded(side.processor),
                "peak_memory_mb": _rounded(side.memory),
                "ratios": None if side is row.sides[0] else _rounded(row.ratios(side)),
                "processor_ratios": None if side is row.sides[0] else _rounded(row.ratios(side, processor=True)),
            }
            for side in row.sides
        ],
        "limits": [
            {
                "at_most": limit.at_most,
                "of": limit.side,
                "processor_time": limit.processor,
                "measured": _rounded(row.measured(limit)),
                "holds": row.holds(limit),
                "kept": row.kept(limit),
            }
            for limit in row.limits
        ],
    }


def _row_from(document: dict[str, Any]) -> Row:
    sides = [
        Side(one["name"], one["values"], one["processor_time"], one["peak_memory_mb"], one["entries"])
        for one in document["sides"]
    ]
    limits = [Limit(one["at_most"], one["of"], one["processor_time"]) for one in document["limits"]]
    more = {name: document[name] for name in ("unit", "entries", "note", "processors")}
    return Row(document["name"], document["work"], sides, limits, **more)


def _rounded(values: Any) -> Any:
    """Round to four significant digits; further digits are noise."""
    if isinstance(values, Iterable):
        return [_rounded(value) for value in values]
    return None if values is None else float(f"{values:.4g}")
