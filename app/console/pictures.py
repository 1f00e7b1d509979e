"""Pictures: where the lines of a chart stand. The templates draw them, as SVG without a style."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from app.admin.log_answers import ChangeShown

MINUTE_MS: Final = 60_000
WIDTH, HEIGHT = 600, 120


@dataclass(frozen=True, slots=True)
class Area:
    """A chart of one figure over time: `path` in a box of WIDTH by HEIGHT, `top` its upper end."""

    path: str
    top: int
    total: int


def area(figures: Mapping[int, int], since: int, until: int) -> Area:
    """A figure for each minute from `since` to `until`, ms since 1970; one without any is 0."""
    minutes = range(since - since % MINUTE_MS, until + 1, MINUTE_MS)
    values = [figures.get(minute, 0) for minute in minutes]
    top = ceiling(max(values, default=0))
    return Area(_steps(values, top), top, sum(values))


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


# Who had seen what -----------------------------------------------------------------------------

# Of a record's changes, so many of the newest fit a picture that can be read.
DRAWN_MAX: Final = 30
LANE_LEFT, COLUMN, LANE = 150, 44, 40


@dataclass(frozen=True, slots=True)
class Node:
    """A change: its place, and whether it met what its author had not seen, or joined branches."""

    position: int
    author: str
    x: int
    y: int
    conflict: bool
    joins: bool


@dataclass(frozen=True, slots=True)
class Edge:
    """From a change to one that it had seen, or, `unseen`, that it met without having seen it."""

    path: str
    unseen: bool


@dataclass(frozen=True, slots=True)
class Causality:
    """A record's changes from left to right, a lane for each device. `lanes`: (name, y)."""

    width: int
    height: int
    lanes: list[tuple[str, int]]
    nodes: list[Node]
    edges: list[Edge]


def causality(changes: Sequence[ChangeShown]) -> Causality | None:
    """The picture of the newest of the changes, which come newest first; None: there are none."""
    drawn = list(reversed(changes[:DRAWN_MAX]))
    if not drawn:
        return None
    seen = _seen(drawn)
    parents = {at: _newest(seen[at], seen) for at in seen}
    lanes = {one.author.device: one.author.name or one.author.device[:8] for one in drawn}
    rows = {device: LANE // 2 + row * LANE for row, device in enumerate(lanes)}
    nodes = {
        one.position: Node(
            one.position,
            lanes[one.author.device],
            LANE_LEFT + column * COLUMN + COLUMN // 2,
            rows[one.author.device],
            one.outcome == "conflict",
            len(parents[one.position]) > 1,
        )
        for column, one in enumerate(drawn)
    }
    return Causality(
        LANE_LEFT + len(drawn) * COLUMN,
        len(lanes) * LANE,
        [(lanes[device], y) for device, y in rows.items()],
        list(nodes.values()),
        [*_edges(drawn, nodes, parents, seen)],
    )


def _seen(drawn: Sequence[ChangeShown]) -> dict[int, set[int]]:
    """By position: which of the earlier ones the author had seen."""
    before: set[int] = set()
    found: dict[int, set[int]] = {}
    for one in drawn:
        found[one.position] = before - set(one.unseen or ())
        before = before | {one.position}
    return found


def _newest(of: AbstractSet[int], seen: Mapping[int, AbstractSet[int]]) -> list[int]:
    """Those of the positions that none of the others had seen: all else follows from them."""
    return sorted(at for at in of if not any(at in seen[other] for other in of))


def _edges(
    drawn: Sequence[ChangeShown],
    nodes: Mapping[int, Node],
    parents: Mapping[int, list[int]],
    seen: Mapping[int, AbstractSet[int]],
) -> Iterator[Edge]:
    for one in drawn:
        yield from (
            Edge(_line(nodes[p], nodes[one.position]), False) for p in parents[one.position]
        )
        if one.outcome == "conflict":
            missed = set(nodes) & set(one.unseen or ())
            met = _newest(missed, seen)
            yield from (Edge(_line(nodes[p], nodes[one.position]), True) for p in met)


def _line(start: Node, end: Node) -> str:
    if start.y == end.y and end.x - start.x <= COLUMN:
        return f"M{start.x} {start.y}H{end.x}"
    if start.y == end.y:
        # Past the nodes between them, which it would seem to touch.
        return (
            f"M{start.x} {start.y}Q{(start.x + end.x) // 2} {start.y - LANE // 2} {end.x} {end.y}"
        )
    half = (start.x + end.x) // 2
    return f"M{start.x} {start.y}C{half} {start.y} {half} {end.y} {end.x} {end.y}"
