"""Which rows an apply has changed: rows and conflicts before it against after it.

Own edits that come back from the server find the row as it is, and are therefore no news.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rejoin.collections import Collection
from rejoin.values import SqlValue

if TYPE_CHECKING:
    from rejoin.replica import At, Replica
    from rejoin.rows import Key, Writer


@dataclass(frozen=True)
class RowChange:
    """A row that is not as it was. `key` None: any row of the table may be another one.

    columns: those whose value, or whose conflict, is another; all of a row that came or went. Key
    columns are not among them.
    by_others: it came from the server; else it was written on this device.
    """

    space: str
    table: str
    key: tuple[SqlValue, ...] | None
    columns: frozenset[str]
    gone: bool
    by_others: bool


Watch = Callable[[list[RowChange]], None]


EMPTY: Mapping[str, SqlValue] = {"counter": 0, "set": "[]", "document": ""}
"""What a column shows that nobody has written."""


@dataclass(frozen=True)
class _Snapshot:
    row: Mapping[str, SqlValue] | None
    conflicts: Mapping[str, str]


class RowWatch:
    """Lives within one apply. Reads a row twice: what nobody watches costs nothing."""

    def __init__(self, db: sqlite3.Connection, space: int, watch: Watch) -> None:
        self._db = db
        self._watch = watch
        self._space = str(
            db.execute("SELECT id FROM rejoin_spaces WHERE no = ?", (space,)).fetchone()[0]
        )
        self._before: dict[At, tuple[Collection, Key, _Snapshot]] = {}
        self._all: list[RowChange] = []

    def before(self, writer: Writer, replica: Replica) -> None:
        """Notes the rows of all touched records, before anything is written."""
        for at in replica.touched:
            home = replica.homes[at[0]]
            key = home.row_key(at[1]) if home.tracked else None
            if key is not None:
                self._before[at] = (home, key, self._snapshot(writer, home, at, key))

    def all_of(self, home: Collection) -> None:
        """A table that changes as a whole."""
        self._all.append(RowChange(self._space, home.name, None, frozenset(), True, True))

    def after(self, writer: Writer) -> None:
        """Tells what is not as it was. Call it when all is committed."""
        found = list(self._all)
        for at, (home, key, was) in self._before.items():
            now = self._snapshot(writer, home, at, key)
            if now == was:
                continue
            columns = frozenset(
                _differing(was.row, now.row) | _differing(was.conflicts, now.conflicts)
            )
            found.append(RowChange(self._space, home.name, key, columns, now.row is None, True))
        if found:
            self._watch(found)

    def _snapshot(self, writer: Writer, home: Collection, at: At, key: Key) -> _Snapshot:
        conflicts = dict(
            self._db.execute(
                "SELECT field, siblings FROM rejoin_conflicts WHERE collection = ? AND id = ?", at
            ).fetchall()
        )
        row, shape = writer.read(home, key), writer.shape(home)
        if row is None or shape is None:
            return _Snapshot(None, conflicts)
        shown = {name: value for name, value in row.items() if name not in shape.key}
        for name, kind in (home.kinds or {}).items():
            if shown.get(name) is None:
                shown[name] = EMPTY.get(kind)  # shown so once the server has it: no news
        return _Snapshot(shown, conflicts)


def _differing(one: Mapping[str, object] | None, other: Mapping[str, object] | None) -> set[str]:
    left, right = one or {}, other or {}
    return {
        name
        for name in {*left, *right}
        if name not in left
        or name not in right
        or type(left[name]) is not type(right[name])
        or left[name] != right[name]
    }
