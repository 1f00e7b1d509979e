"""Running other people's SQL: a table definition that arrived from a space, and nothing else.

Whoever may write to a space may publish definitions in it. So SQLite itself asks, for all that a
statement would do: it may make the one table it is named after and that table's indexes. Everything
else is refused before it runs: ATTACH, PRAGMA, DROP, triggers, views, virtual tables, queries,
other tables, and functions that are not plainly harmless.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from rejoin.catalog import Definition
from rejoin.errors import RejoinError
from rejoin.shape import quote, read_shape

OWN_PREFIXES = ("rejoin_", "_rejoin", "sqlite_")
CATALOGUE = frozenset({"sqlite_master", "sqlite_schema"})
FUNCTIONS = frozenset(
    {
        *("abs", "coalesce", "date", "datetime", "glob", "hex", "ifnull", "iif", "instr"),
        *("julianday", "length", "like", "lower", "ltrim", "max", "min", "nullif", "round"),
        *("rtrim", "strftime", "substr", "substring", "time", "trim", "typeof", "unicode"),
        *("upper", "json", "json_array_length", "json_extract", "json_type", "json_valid"),
        *("->", "->>", "current_date", "current_time", "current_timestamp", "unixepoch"),
        *("random", "sign"),
    }
)
"""What constraints, defaults and indexes may call: no files, no extensions, no huge values."""


def make_table(db: sqlite3.Connection, definition: Definition) -> None:
    """Makes a published table and its indexes, inside the caller's transaction.

    Raises RejoinError in words where the definition would do anything else, or fails.
    """
    name = definition.table
    if name.lower().startswith(OWN_PREFIXES):
        raise RejoinError(f"The space's definition of {name!r} is refused: the name is reserved.")
    try:
        with _only(db, name):
            for statement in (definition.sql, *definition.indexes):
                db.execute(statement)
        _check_made(db, name)
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
        raise RejoinError(
            f"The space's definition of the table {name!r} is refused ({error}): it may make that"
            f" one table and its indexes. Someone who may write to the space has published it."
        ) from error


def _check_made(db: sqlite3.Connection, name: str) -> None:
    read_shape(db, name, {})
    for row in db.execute(f"PRAGMA foreign_key_list({quote(name)})").fetchall():
        if str(row[2]).lower().startswith(OWN_PREFIXES):
            raise ValueError(f"it refers to {row[2]}")
    # SQLite looks a default up only when it needs it; so it is looked up here.
    for row in db.execute(f"PRAGMA table_xinfo({quote(name)})").fetchall():
        if row[4] is not None:
            with _only(db, name, may_select=True):
                db.execute(f"EXPLAIN SELECT ({row[4]})")


@contextmanager
def _only(db: sqlite3.Connection, table: str, *, may_select: bool = False) -> Iterator[None]:
    wanted = table.lower()

    def ask(
        action: int, one: str | None, two: str | None, place: str | None, inside: str | None
    ) -> int:
        first, second = (one or "").lower(), (two or "").lower()
        if inside is not None or place not in (None, "main"):
            return sqlite3.SQLITE_DENY
        if action == sqlite3.SQLITE_CREATE_TABLE:
            fine = first in (wanted, "sqlite_sequence")  # SQLite makes that for AUTOINCREMENT
        elif action == sqlite3.SQLITE_CREATE_INDEX:
            fine = second == wanted and not first.startswith("rejoin_")
        elif action == sqlite3.SQLITE_FUNCTION:
            fine = second in FUNCTIONS
        elif action in (sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE):
            fine = first in CATALOGUE
        elif action == sqlite3.SQLITE_READ:
            fine = first in CATALOGUE or first == wanted
        elif action == sqlite3.SQLITE_REINDEX:
            fine = True
        else:
            fine = may_select and action == sqlite3.SQLITE_SELECT
        return sqlite3.SQLITE_OK if fine else sqlite3.SQLITE_DENY

    db.set_authorizer(ask)
    try:
        yield
    finally:
        db.set_authorizer(None)
