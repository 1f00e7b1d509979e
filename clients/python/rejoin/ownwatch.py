"""What was written to the file behind the live thread's back: own edits, and others' syncs."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from rejoin import collections, settle, spaces
from rejoin.collections import Collection
from rejoin.edits import Op
from rejoin.rowwatch import RowChange, Watch
from rejoin.spaces import Space


@dataclass(frozen=True)
class Known:
    """What is no news: of each space (by number) the counter and the cursor."""

    counters: dict[int, int]
    cursors: dict[int, int]


def known(db: sqlite3.Connection) -> Known:
    """As of now."""
    settle.sealed(db)
    all_of = spaces.read_all(db)
    return Known({s.no: s.counter for s in all_of}, {s.no: s.pull_cursor for s in all_of})


class OwnWatch:
    """Tells of each change of this device once, and of tables that another process has pulled."""

    def __init__(self, db: sqlite3.Connection, tell: Watch, before: Known) -> None:
        self._db = db
        self._tell = tell
        self._counters = dict(before.counters)
        self._cursors = dict(before.cursors)

    def look(self) -> None:
        """Numbers what was recorded, and tells what is new."""
        settle.sealed(self._db)
        found: list[RowChange] = []
        for space in spaces.read_all(self._db):
            if space.counter != self._counters.get(space.no, 0):
                found += self._own(space)
            if space.pull_cursor != self._cursors.get(space.no, 0):
                found += self._pulled(space)
        if found:
            self._tell(found)

    def applied(self) -> None:
        """The cursors that moved were ours to move: their rows are told already."""
        for space in spaces.read_all(self._db):
            self._cursors[space.no] = space.pull_cursor

    def _own(self, space: Space) -> list[RowChange]:
        after, self._counters[space.no] = self._counters.get(space.no, 0), space.counter
        homes = _tracked(self._db, space)
        return [
            _of_op(space, home, op)
            for (body,) in self._db.execute(
                "SELECT body FROM rejoin_changes WHERE space = ? AND counter > ? ORDER BY counter",
                (space.no, after),
            ).fetchall()
            for op in json.loads(body)["ops"]
            if (home := homes.get(str(op["collection"])))
        ]

    def _pulled(self, space: Space) -> list[RowChange]:
        self._cursors[space.no] = space.pull_cursor
        return [
            RowChange(space.id, name, None, frozenset(), False, True)
            for name in _tracked(self._db, space)
        ]


def _tracked(db: sqlite3.Connection, space: Space) -> dict[str, Collection]:
    return {
        home.name: home
        for home in collections.read_all(db).values()
        if home.space == space.no and home.tracked
    }


def _of_op(space: Space, home: Collection, op: Op) -> RowChange:
    fields = op.get("fields")
    names = set(fields) if isinstance(fields, dict) else set()
    if "field" in op:
        names.add(str(op["field"]))
    gone = op["op"] == "delete"
    return RowChange(
        space.id, home.name, home.row_key(str(op["id"])), frozenset(names), gone, False
    )
