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
    """A line of the table. Measure and baseline were taken in turns: `ratio` pairs them.

    `goal` is for the ratio, or for the figure where it has no baseline; `at_most`: less is better.
    """

    name: str
    figure: Figure
    baseline: Figure | None = None
    goal: float | None = None
    note: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    at_most: bool = False

    @property
    def ratio(self) -> Figure | None:
        """Of each pair of neighbours, so that what slows both down slows down neither."""
        if self.baseline is None:
            return None
        pairs = zip(self.figure.values, self.baseline.values, strict=True)
        return Figure(tuple(mine / bare for mine, bare in pairs), "×")

    @property
    def verdict(self) -> str:
        """`ok`, `below` or `above`, or nothing where there is no goal."""
        if self.goal is None:
            return ""
        reached = (self.ratio or self.figure).median
        if self.at_most:
            return "ok" if reached <= self.goal else "above"
        return "ok" if reached >= self.goal else "below"

    @property
    def missed(self) -> bool:
        """Whether there is a goal, and it is not reached."""
        return self.verdict in {"below", "above"}

    @property
    def wanted(self) -> str:
        """The goal in a few signs."""
        if self.goal is None:
            return ""
        unit = "" if self.baseline else f" {self.figure.unit}"
        return f"{'≤' if self.at_most else '≥'} {self.goal:,g}{unit}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            **self.figure.as_dict(),
            "baseline": self.baseline.as_dict() if self.baseline else None,
            "ratio": self.ratio.as_dict() if self.ratio else None,
            "goal": self.goal,
            "at_most": self.at_most,
            "verdict": self.verdict,
            "note": self.note,
            "facts": self.facts,
        }


def number(value: float) -> str:
    """Three digits that say something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
