"""Pictures: where the lines of a chart stand. The templates draw them, as SVG without a style."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

MINUTE_MS: Final = 60_000
WIDTH, HEIGHT = 600, 120


@dataclass(frozen=True, slots=True)
class Area:
    """A chart of one figure over time: `path` in a box of WIDTH by HEIGHT, `top` its upper end."""

    path: str
    top: int
    last: int
    total: int
    since: int
    until: int


def area(figures: Mapping[int, int], since: int, until: int) -> Area:
    """A figure for each minute from `since` to `until`, ms since 1970; one without any is 0.

    The minute that runs is left out: it would always look like a fall.
    """
    minutes = range(since - since % MINUTE_MS, until - until % MINUTE_MS, MINUTE_MS)
    values = [figures.get(minute, 0) for minute in minutes]
    top = ceiling(max(values, default=0))
    path = _steps(values, top)
    return Area(path, top, values[-1] if values else 0, sum(values), since, until)


def _steps(values: Sequence[int], top: int) -> str:
    wide = WIDTH / max(len(values), 1)
    drawn = [f"M0 {HEIGHT}"]
    for number, value in enumerate(values):
        drawn.append(f"V{HEIGHT - HEIGHT * value / top:.1f}H{(number + 1) * wide:.1f}")
    return "".join([*drawn, f"V{HEIGHT}Z"])


def ceiling(value: int) -> int:
    """The next 1, 2 or 5 with zeros: a round upper end for an axis."""
    size = 1
    while True:
        for step in (1, 2, 5):
            if value <= step * size:
                return step * size
        size *= 10


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of a bar chart: `share` of the longest, 0 to 100."""

    name: str
    count: int
    share: float


def bars(counts: Iterable[tuple[str, int]]) -> list[Bar]:
    """A bar for each, in the order given; what is there at all can be seen."""
    rows = list(counts)
    longest = max((count for _, count in rows), default=0) or 1
    return [
        Bar(name, count, max(100 * count / longest, 1.0) if count else 0.0) for name, count in rows
    ]
