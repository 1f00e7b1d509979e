"""What a table of the app looks like, read from SQLite's own catalogue, and what each column is."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from rejoin.errors import TrackingError
from rejoin.values import SqlValue, id_to_key, key_to_id

Kind = Literal["register", "counter", "set", "document"]
KINDS: tuple[Kind, ...] = ("register", "counter", "set", "document")
KEY_COLUMNS_MAX = 8
"""So many native key values fit a row of `rejoin_ops`; a longer key had better be a UUID."""


@dataclass(frozen=True)
class Column:
    """A column that is not in the key: one field of the record."""

    name: str
    kind: Kind
    default: str | None
    """The SQL text of its default, None where it has none."""
    typed: bool
    """False where 1 and 1.0 may both stand in it (no affinity), so that types must be compared."""


@dataclass(frozen=True)
class Shape:
    """A tracked table: its key, its columns and the column sets that must be unique."""

    table: str
    key: tuple[str, ...]
    key_is_text: tuple[bool, ...]
    key_affinities: tuple[str, ...]
    columns: tuple[Column, ...]
    uniques: tuple[tuple[str, ...], ...]

    def record_id(self, key: tuple[SqlValue, ...]) -> str:
        """The record id of a row's key."""
        return key_to_id(key, self.key_is_text)

    def row_key(self, record_id: str) -> tuple[SqlValue, ...] | None:
        """A row's key from its record id; None if it fits no row of this table."""
        return id_to_key(record_id, self.key_is_text)

    def kinds(self) -> dict[str, Kind]:
        """The columns that are not plain registers."""
        return {c.name: c.kind for c in self.columns if c.kind != "register"}


def quote(name: str) -> str:
    """An identifier, quoted."""
    return '"' + name.replace('"', '""') + '"'


def affinity(declared: str) -> str:
    """SQLite's rules for the affinity of a declared type, in their order."""
    name = declared.upper()
    if "INT" in name:
        return "INTEGER"
    if any(word in name for word in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if not name or "BLOB" in name or name == "ANY":
        return "BLOB"
    if any(word in name for word in ("REAL", "FLOA", "DOUB")):
        return "REAL"
    return "NUMERIC"


def read_shape(db: sqlite3.Connection, table: str, kinds: Mapping[str, str]) -> Shape:
    """The shape of `table` (its name as it was declared). Raises TrackingError in words."""
    found = db.execute(
        "SELECT name, type, sql FROM sqlite_master WHERE name = ? COLLATE NOCASE"
        " AND type IN ('table', 'view')",
        (table,),
    ).fetchone()
    if found is None:
        raise TrackingError(f"There is no table {table!r} in this database.")
    name, kind, sql = cast("tuple[str, str, str]", tuple(found))
    if kind == "view" or sql.upper().lstrip().startswith("CREATE VIRTUAL"):
        raise TrackingError(f"{name!r} is a view or virtual table; track the tables beneath it.")
    rows = db.execute(f"PRAGMA table_xinfo({quote(name)})").fetchall()
    key_rows = sorted((r for r in rows if r[5]), key=lambda r: int(r[5]))
    if not key_rows:
        raise TrackingError(
            f"The table {name!r} has no primary key, so its rows have no identity that another"
            f" device could know them by. Declare one, for example id TEXT PRIMARY KEY filled"
            f" with a UUID, by making the table anew and copying its rows."
        )
    if len(key_rows) > KEY_COLUMNS_MAX:
        raise TrackingError(
            f"The primary key of {name!r} has {len(key_rows)} columns;"
            f" at most {KEY_COLUMNS_MAX} can be synchronised."
        )
    key = tuple(str(r[1]) for r in key_rows)
    _check_collation(db, name, key)
    _check_kinds(name, kinds, {str(r[1]): str(r[2]) for r in rows if str(r[1]) not in key})
    columns = tuple(
        Column(
            str(r[1]),
            cast("Kind", kinds.get(str(r[1]), "register")),
            None if r[4] is None else str(r[4]),
            affinity(str(r[2])) != "BLOB",
        )
        for r in rows
        if not r[5] and r[6] == 0
    )  # hidden 2, 3: generated, so derived everywhere
    return Shape(
        name,
        key,
        tuple(affinity(str(r[2])) == "TEXT" for r in key_rows),
        tuple(affinity(str(r[2])) for r in key_rows),
        columns,
        _uniques(db, name),
    )


def _check_collation(db: sqlite3.Connection, table: str, key: tuple[str, ...]) -> None:
    """A key that takes 'A' for 'a' would take two records for one row."""
    indexed = {
        str(r[2]): str(r[4]).upper()
        for index in db.execute(f"PRAGMA index_list({quote(table)})").fetchall()
        if index[3] == "pk"
        for r in db.execute(f"PRAGMA index_xinfo({quote(index[1])})").fetchall()
        if r[5]
    }
    for column in key:
        # The column's own collation decides what `WHERE id = ?` finds; a UNION compares by it.
        (apart,) = db.execute(
            f"SELECT count(*) FROM (SELECT {quote(column)} FROM {quote(table)} WHERE 0"
            " UNION SELECT 'a' UNION SELECT 'A' UNION SELECT 'a ')"
        ).fetchone()
        if apart < 3 or indexed.get(column, "BINARY") != "BINARY":  # see the text
            raise TrackingError(
                f"The key column {column!r} of {table!r} has a collation under which different"
                f" texts are the same key, but records are told apart byte by byte. Make the"
                f" table anew with a key column without COLLATE (or with COLLATE BINARY)."
            )


def _check_kinds(table: str, kinds: Mapping[str, str], columns: Mapping[str, str]) -> None:
    for column, kind in kinds.items():
        if column not in columns:
            raise TrackingError(f"The table {table!r} has no column {column!r} outside its key.")
        if kind not in KINDS:
            raise TrackingError(f"{table}.{column} can't be {kind!r}: say one of {KINDS}.")
        if kind == "document" and affinity(columns[column]) != "TEXT":
            raise TrackingError(f"{table}.{column} is to show a document's text: declare it TEXT.")


def _uniques(db: sqlite3.Connection, table: str) -> tuple[tuple[str, ...], ...]:
    """Unique column sets besides the key. Indexes on expressions are left out (documented)."""
    found: list[tuple[str, ...]] = []
    for row in db.execute(f"PRAGMA index_list({quote(table)})").fetchall():
        if row[2] and row[3] != "pk":
            names = [r[2] for r in db.execute(f"PRAGMA index_info({quote(row[1])})")]
            if all(isinstance(name, str) for name in names):
                found.append(tuple(names))
    return tuple(sorted(set(found)))
