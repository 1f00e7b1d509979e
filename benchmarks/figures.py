"""What a measure comes to: figures of several runs, beside a baseline's, with a goal."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One number, measured several times."""

    values: tuple[float, ...]
    unit: str

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def least(self) -> float:
        return min(self.values)

    @property
    def most(self) -> float:
        return max(self.values)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "unit": self.unit,
            "median": self.median,
            "min": self.least,
            "max": self.most,
            "values": list(self.values),
        }

    def __str__(self) -> str:
        spread = f" ({number(self.least)}…{number(self.most)})" if len(self.values) > 1 else ""
        return f"{number(self.median)} {self.unit}{spread}"


@dataclass(frozen=True)
class Row:
    """A line of the table. Measure and baseline were taken in turns: `ratio` pairs them."""

    name: str
    figure: Figure
    baseline: Figure | None = None
    goal: float | None = None
    note: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> Figure | None:
        """Of each pair of neighbours, so that what slows both down slows down neither."""
        if self.baseline is None:
            return None
        pairs = zip(self.figure.values, self.baseline.values, strict=True)
        return Figure(tuple(mine / bare for mine, bare in pairs), "×")

    @property
    def verdict(self) -> str:
        """`ok`, `below`, or nothing where there is no goal."""
        if self.goal is None or self.ratio is None:
            return ""
        return "ok" if self.ratio.median >= self.goal else "below"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            **self.figure.as_dict(),
            "baseline": self.baseline.as_dict() if self.baseline else None,
            "ratio": self.ratio.as_dict() if self.ratio else None,
            "goal": self.goal,
            "verdict": self.verdict,
            "note": self.note,
            "facts": self.facts,
        }


def number(value: float) -> str:
    """Three digits that say something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
