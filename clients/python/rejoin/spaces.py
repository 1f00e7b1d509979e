"""The spaces of this file: one row each of `rejoin_spaces`, and how far each has come."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

PERSONAL = "me"
"""Stands for the personal space until the first login tells its id; always row 1."""


@dataclass(frozen=True)
class Space:
    """One space. `cursor` is the context of edits, `pull_cursor` what the next pull asks from."""

    no: int
    id: str
    name: str | None
    role: str | None
    epoch: int | None
    cursor: int
    pull_cursor: int
    counter: int
    discarded: int | None
    page: str | None
    replacing: bool
    withdrawn: bool
    read_only: bool
    error: str | None
    synced_at: int | None

    @property
    def pulled(self) -> bool:
        """Whether a pull has ever been complete."""
        return self.synced_at is not None


_COLUMNS = (
    "no, id, name, role, epoch, cursor, pull_cursor, counter, discarded, page, replacing,"
    " withdrawn, read_only, error, synced_at"
)


def _space(row: tuple[object, ...]) -> Space:
    values = list(row)
    for i in (10, 11, 12):
        values[i] = bool(values[i])
    return Space(*values)  # type: ignore[arg-type]  # the columns' own types, one by one


def read(db: sqlite3.Connection, no: int) -> Space:
    return _space(
        db.execute(f"SELECT {_COLUMNS} FROM rejoin_spaces WHERE no = ?", (no,)).fetchone()
    )


def read_all(db: sqlite3.Connection) -> list[Space]:
    return [_space(row) for row in db.execute(f"SELECT {_COLUMNS} FROM rejoin_spaces ORDER BY no")]


def number_of(db: sqlite3.Connection, space_id: str) -> int:
    """A space's number; the space is made known on first sight. `me` is always number 1."""
    if space_id == PERSONAL:
        db.execute("INSERT OR IGNORE INTO rejoin_spaces (no, id) VALUES (1, ?)", (PERSONAL,))
        return 1
    row = db.execute("SELECT no FROM rejoin_spaces WHERE id = ?", (space_id,)).fetchone()
    if row is None:
        number_of(db, PERSONAL)  # row 1 stays the personal space's, whatever comes first
        row = db.execute(
            "INSERT INTO rejoin_spaces (id) VALUES (?) RETURNING no", (space_id,)
        ).fetchone()
    return int(row[0])


def pending(db: sqlite3.Connection, no: int) -> int:
    """Numbered changes that the server has not decided yet."""
    return int(
        db.execute(
            "SELECT count(*) FROM rejoin_changes WHERE space = ? AND state = 'pending'", (no,)
        ).fetchone()[0]
    )
