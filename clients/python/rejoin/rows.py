"""Rows of the app's tables, read and written by record. The only writer of remote changes.

A row that a local constraint refuses is tried again after the others (a delete may have made room),
then together with the other refused ones (two rows may swap a unique value), and is then reported
back: nothing that one row does may hold up the rest.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast

from rejoin.collections import Collection
from rejoin.errors import TrackingError
from rejoin.shape import Column, Shape, quote, read_shape
from rejoin.values import PLAIN, Json, JsonObject, SqlValue, from_json

Key = tuple[SqlValue, ...]


def read_row(db: sqlite3.Connection, home: Collection, key: Key) -> dict[str, SqlValue] | None:
    """A row by its key, all stored columns; None if there is none (or no table)."""
    try:
        shape = read_shape(db, home.name, {})
    except (sqlite3.Error, TrackingError):
        return None
    return _read(db, shape, key)


def _read(db: sqlite3.Connection, shape: Shape, key: Key) -> dict[str, SqlValue] | None:
    names = [*shape.key, *(c.name for c in shape.columns)]
    row = db.execute(
        f"SELECT {', '.join(map(quote, names))} FROM {quote(shape.table)} WHERE {_where(shape)}",
        key,
    ).fetchone()
    return None if row is None else dict(zip(names, row, strict=True))


def _where(shape: Shape) -> str:
    return " AND ".join(f"{quote(k)} = ?" for k in shape.key)


def column_value(column: Column, fields: JsonObject) -> tuple[bool, SqlValue]:
    """Whether a field says what the column holds, and what. Counters start at 0, sets at []."""
    if column.name in fields:
        value: Json = fields[column.name]
        if type(value) in PLAIN:
            return True, cast("SqlValue", value)
    elif column.kind == "counter":
        value = 0
    elif column.kind == "set":
        value = []
    elif column.kind == "document":
        value = ""
    else:
        return False, None
    return True, from_json(value)


def insert_sql(shape: Shape, names: Sequence[str]) -> str:
    """An insert of these columns, or an update of the row that stands there already."""
    sets = ", ".join(f"{quote(n)} = excluded.{quote(n)}" for n in names)
    every = [*shape.key, *names]
    return (
        f"INSERT OR ABORT INTO {quote(shape.table)} ({', '.join(map(quote, every))})"
        f" VALUES ({', '.join('?' * len(every))})"
        f" ON CONFLICT ({', '.join(map(quote, shape.key))})"
        f" DO {f'UPDATE SET {sets}' if sets else 'NOTHING'}"
    )


@dataclass(slots=True)
class Write:
    """What a row shall be. fields None: gone. only: the fields to write; None: the whole row."""

    home: Collection
    id: str
    fields: JsonObject | None
    only: frozenset[str] | None = None
    fresh: bool = False
    """The record was not known before: most likely there is no row yet."""


class Stored:
    """How SQLite would store a key: `'007'` in an INTEGER column is 7. It is asked, not guessed."""

    def __init__(self) -> None:
        self._db: sqlite3.Connection | None = None
        self._made: set[str] = set()

    def close(self) -> None:
        if self._db:
            self._db.close()
            self._db = None

    def of(self, key: Key, affinities: Sequence[str]) -> Key:
        if all(
            type(v) is bytes
            or (type(v) is str and a in ("TEXT", "BLOB"))
            or (type(v) is int and a in ("INTEGER", "NUMERIC", "BLOB"))
            for v, a in zip(key, affinities, strict=True)
        ):
            return key
        if self._db is None:
            self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        table = "_".join(affinities)
        if table not in self._made:
            names = ", ".join(f"k{i} {a}" for i, a in enumerate(affinities))
            self._db.execute(f"CREATE TABLE {table} ({names})")
            self._made.add(table)
        (stored,) = self._db.execute(
            f"INSERT INTO {table} VALUES ({', '.join('?' * len(key))}) RETURNING *", key
        ).fetchall()
        self._db.execute(f"DELETE FROM {table}")
        return tuple(stored)


def _either_number(key: Key, shape: Shape) -> bool:
    """A column without a type keeps 1 and 1.0 apart, and takes them for the same key."""
    return any(
        isinstance(v, int | float) and a == "BLOB"
        for v, a in zip(key, shape.key_affinities, strict=True)
    )


class Writer:
    """Writes many rows inside the caller's transaction."""

    def __init__(self, db: sqlite3.Connection, homes: Iterable[Collection]) -> None:
        self._db = db
        self._shapes: dict[int, Shape | None] = {}
        self._inserts: dict[tuple[int, tuple[str, ...]], str] = {}
        self._stored = Stored()
        for home in homes:
            self._shapes[home.no] = self._shape(home)
        self.deleted: dict[int, dict[str, tuple[Key, dict[str, SqlValue]]]] = {}
        """Rows taken away, by collection and id: what it takes to put one back."""

    def _shape(self, home: Collection) -> Shape | None:
        if home.kinds is None:
            return None
        try:
            shape = read_shape(self._db, home.name, {})
        except TrackingError:
            return None  # the app dropped the table; the records are kept
        kinds = home.kinds
        return replace(
            shape,
            columns=tuple(replace(c, kind=kinds.get(c.name, "register")) for c in shape.columns),
        )

    def shape(self, home: Collection) -> Shape | None:
        """The table as it is now; None where there is none."""
        return self._shapes.get(home.no)

    def read(self, home: Collection, key: Key) -> dict[str, SqlValue] | None:
        """A row as it stands; None if there is none (or no table)."""
        shape = self.shape(home)
        return _read(self._db, shape, key) if shape else None

    def close(self) -> None:
        """Ends what `Stored` has opened."""
        self._stored.close()

    def _key(self, one: Write, shape: Shape) -> Key:
        """The key of a record's row. Raises IntegrityError where it would be another record's."""
        key = one.home.row_key(one.id)
        if key is None:
            raise sqlite3.IntegrityError(f"the id {one.id!r} fits no primary key of this table")
        stored = one.home.record_id(self._stored.of(key, shape.key_affinities))
        if stored == one.id and _either_number(key, shape):
            names = ", ".join(map(quote, shape.key))
            there = self._db.execute(
                f"SELECT {names} FROM {quote(shape.table)} WHERE {_where(shape)}", key
            ).fetchone()
            stored = one.home.record_id(tuple(there)) if there else stored
        if stored != one.id:
            raise sqlite3.IntegrityError(
                f"the id {one.id!r} would take the row of the record {stored!r} in this table"
            )
        return key

    def _plain(self, one: Write) -> bool:
        """Whether its key may be checked before the rows beside it are written."""
        shape = self.shape(one.home)
        if shape is None or "BLOB" not in shape.key_affinities:
            return True
        key = one.home.row_key(one.id)
        return key is None or not _either_number(key, shape)

    def write(self, writes: Sequence[Write]) -> list[tuple[Write, str]]:
        """Writes all that can be written; returns what was refused, with SQLite's own words."""
        fresh: list[Write] = []
        rest: list[Write] = []
        for w in writes:
            (fresh if w.fresh and w.fields is not None and self._plain(w) else rest).append(w)
        rest.sort(key=lambda w: w.fields is None)  # first updates: children leave their parents
        refused = self._each(rest) + self._bulk(fresh)
        while refused:
            again = self._each([w for w, _ in refused])
            if len(again) == len(refused):
                return self._together(again)
            refused = again
        return []

    def _each(self, writes: Iterable[Write]) -> list[tuple[Write, str]]:
        refused = []
        for one in writes:
            try:
                self._one(one)
            except sqlite3.Error as error:
                _still_open(self._db, error)
                refused.append((one, str(error)))
        return refused

    def _bulk(self, writes: Sequence[Write]) -> list[tuple[Write, str]]:
        """Inserts rows of one shape with one prepared statement; goes on behind a refused one."""
        groups: dict[str, list[tuple[Write, list[SqlValue]]]] = {}
        refused: list[tuple[Write, str]] = []
        for one in writes:
            try:
                sql, values = self._insert_sql(one)
            except (ValueError, OverflowError, sqlite3.IntegrityError) as error:
                refused.append((one, str(error)))
                continue
            if sql:
                groups.setdefault(sql, []).append((one, values))
        for sql, rows in groups.items():
            done = 0
            while done < len(rows):
                taken = 0

                def feed(
                    start: int, batch: list[tuple[Write, list[SqlValue]]] = rows
                ) -> Iterable[list[SqlValue]]:
                    nonlocal taken
                    for _, values in batch[start:]:
                        taken += 1
                        yield values

                try:
                    self._db.executemany(sql, feed(done))
                    done = len(rows)
                except sqlite3.Error as error:
                    _still_open(self._db, error)
                    done += taken
                    refused.append((rows[done - 1][0], str(error)))
        return refused

    def _insert_sql(self, one: Write) -> tuple[str, list[SqlValue]]:
        shape = self.shape(one.home)
        if shape is None:
            return "", []
        names, values = [], list(self._key(one, shape))
        fields = one.fields or {}
        for column in shape.columns:
            given, value = column_value(column, fields)
            if given:
                names.append(column.name)
                values.append(value)
        known = (one.home.no, tuple(names))
        sql = self._inserts.get(known)
        if sql is None:
            sql = self._inserts[known] = insert_sql(shape, names)
        return sql, values

    def _one(self, one: Write) -> None:
        shape = self.shape(one.home)
        if shape is None:
            return
        try:
            key = self._key(one, shape)
        except sqlite3.IntegrityError:
            if one.fields is None:
                return  # there never was such a row
            raise
        if one.fields is None:
            self._delete(one, shape, key)
        elif not self._update(one, shape, key):
            sql, values = self._insert_sql(one)
            self._db.execute(sql, values)

    def _delete(self, one: Write, shape: Shape, key: Key) -> None:
        row = _read(self._db, shape, key)
        if row is None:
            return
        self._db.execute(f"DELETE FROM {quote(shape.table)} WHERE {_where(shape)}", key)
        self.deleted.setdefault(one.home.no, {})[one.id] = (key, row)

    def _update(self, one: Write, shape: Shape, key: Key) -> bool:
        """False: there is no such row."""
        names: list[str] = []
        values: list[SqlValue] = []
        for column in shape.columns:
            if one.only is not None and column.name not in one.only:
                continue
            given, value = column_value(column, one.fields or {})
            place = "?" if given else f"({column.default or 'NULL'})"
            names.append(f"{quote(column.name)} = {place}")
            if given:
                values.append(value)
        if not names:
            return (
                self._db.execute(
                    f"SELECT 1 FROM {quote(shape.table)} WHERE {_where(shape)}", key
                ).fetchone()
                is not None
            )
        done = self._db.execute(
            f"UPDATE OR ABORT {quote(shape.table)} SET {', '.join(names)} WHERE {_where(shape)}",
            (*values, *key),
        )
        return done.rowcount > 0

    def _together(self, refused: list[tuple[Write, str]]) -> list[tuple[Write, str]]:
        """Takes all refused rows away and writes them anew; all or none."""
        self._db.execute("SAVEPOINT rejoin_together")
        alive = [w for w, _ in refused if w.fields is not None]
        kept = {no: dict(rows) for no, rows in self.deleted.items()}
        failed = self._each(Write(w.home, w.id, None) for w in alive) or self._each(
            Write(w.home, w.id, w.fields) for w in alive
        )
        if failed or len(alive) < len(refused):
            self._db.execute("ROLLBACK TO rejoin_together")
        self._db.execute("RELEASE rejoin_together")
        self.deleted = kept
        return refused if failed or len(alive) < len(refused) else []

    def put_back(self, home: Collection, record_id: str) -> None:
        """Undoes a delete of this transaction, for rows here that still need the row."""
        _, row = self.deleted[home.no].pop(record_id)
        self._db.execute(
            f"INSERT OR ABORT INTO {quote(home.name)}"
            f" ({', '.join(map(quote, row))}) VALUES ({', '.join('?' * len(row))})",
            tuple(row.values()),
        )


def _still_open(db: sqlite3.Connection, error: sqlite3.Error) -> None:
    """A RAISE(ROLLBACK) of the app, a full disk: then the whole transaction is gone."""
    if not db.in_transaction or isinstance(error, sqlite3.ProgrammingError):
        raise error
