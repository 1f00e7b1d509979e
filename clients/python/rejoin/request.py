"""One space's part of a request: where the device stands, and the changes that wait to be sent."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rejoin.limits import Limits
from rejoin.spaces import Space
from rejoin.values import JsonObject, compact


@dataclass(frozen=True)
class Part:
    """One space's part of a request, and what it was made from."""

    space: Space
    bodies: Sequence[str]
    """Changes, byte for byte as they were frozen."""
    held: range
    """Their counters."""

    @property
    def text(self) -> str:
        """As `/v1/sync` takes it."""
        return part_text(self.space, self.bodies)


def parts(
    db: sqlite3.Connection, work: Sequence[Space], most: Limits, muted: Collection[int] = ()
) -> list[Part]:
    """What a request to these spaces carries. At least one change, if any waits: it may be large.

    muted: spaces (by number) that nothing is sent to.
    """
    room, size = most.changes, most.bytes
    made = []
    for space in work:
        bodies: list[str] = []
        first = 0
        if space.no not in muted:
            for counter, body in db.execute(
                "SELECT counter, body FROM rejoin_changes WHERE space = ? AND state = 'pending'"
                " ORDER BY counter LIMIT ?",
                (space.no, room),
            ):
                size -= len(body.encode())
                if size < 0 and len(bodies) + most.changes - room > 0:
                    break
                first = first or counter
                bodies.append(body)
        room -= len(bodies)
        made.append(Part(space, bodies, range(first, first + len(bodies))))
    return made


def part_text(space: Space, bodies: Sequence[str]) -> str:
    """One space's object in a request; members that say nothing are left out."""
    members: JsonObject = {}
    if space.epoch is not None:
        members["epoch"] = space.epoch
    members["cursor"] = space.pull_cursor
    members["counter"] = space.counter
    if space.discarded is not None:
        members["discarded"] = space.discarded
    if space.page is not None:
        members["page"] = space.page
    return with_changes(members, bodies)


def with_changes(members: JsonObject, bodies: Sequence[str]) -> str:
    """An object with `changes`, which are text already and stay as they are."""
    text = compact(members)
    return f'{text[:-1]},"changes":[{",".join(bodies)}]}}' if bodies else text
