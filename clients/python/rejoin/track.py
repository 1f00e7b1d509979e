"""Taking a table into tracking, and keeping its triggers equal to its columns.

All in one local transaction: what was recorded by the old triggers is sealed before the new ones
stand, and rows that are there already become changes (first time) or are filled from what the
server has said before.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping

from rejoin import collections, documents, spaces
from rejoin.apply import Applying, applying
from rejoin.collections import Collection
from rejoin.edits import Edit, Op, moved, to_ops
from rejoin.errors import TrackingError
from rejoin.outbox import EXISTING_ROWS, Unit, context_of, miscounted, number, refusable
from rejoin.shape import Shape, quote, read_shape
from rejoin.triggers import Place, build
from rejoin.values import JsonObject, SqlValue, to_json


def track(
    db: sqlite3.Connection, table: str, space_id: str, kinds: Mapping[str, str], now_ms: int
) -> int:
    """Tracks a table in a space. Returns how many rows that stood in it became changes."""
    shape = read_shape(db, table, kinds)
    if "document" in kinds.values():
        documents.library()
    if shape.table.lower().startswith(("rejoin_", "sqlite_", "_rejoin")):
        raise TrackingError(f"{shape.table!r} is not a table of the app.")
    space = spaces.number_of(db, space_id)
    other = db.execute(
        "SELECT s.id FROM rejoin_collections AS c JOIN rejoin_spaces AS s"
        " ON s.no = c.space WHERE c.name = ? AND c.kinds IS NOT NULL"
        " AND c.space <> ?",
        (shape.table, space),
    ).fetchone()
    if other:
        raise TrackingError(
            f"{shape.table!r} already belongs to the space {other[0]!r};"
            f" a table belongs to one space."
        )
    twin = collections.other_case(db, space, shape.table)
    if (
        twin is not None
        and not db.execute(
            "SELECT 1 FROM rejoin_collections WHERE space = ? AND name = ? AND kinds IS NOT NULL",
            (space, shape.table),
        ).fetchone()
    ):
        raise TrackingError(
            f"{collections.apart(shape.table, twin)} Name the table {twin!r} here too:"
            f" ALTER TABLE … RENAME TO."
        )
    no = collections.number_of(db, space, shape.table)
    before = collections.read_all(db)[no]
    _check_kinds_kept(db, before, shape)
    if before.tracked and _stands(db, shape, Place(no, space)):
        return 0
    with applying(db, space, now_ms) as frame:
        collections.write_shape(db, no, shape)
        _make_triggers(db, shape, Place(no, space))
        home = frame.replica.homes[no] = collections.read_all(db)[no]
        if not before.tracked:
            return _adopt(frame, home, shape)
        added = [c.name for c in shape.columns if c.name not in before.columns]
        if added:
            _fill_columns(frame, home, shape, added)
    return 0


def _check_kinds_kept(db: sqlite3.Connection, before: Collection, shape: Shape) -> None:
    """A field keeps the type of its first operation everywhere: another would be refused there."""
    if not before.tracked:
        return
    new = {c.name: c.kind for c in shape.columns}
    for name, kind in before.fields.items():
        if new.get(name, kind) != kind and _told(db, before, name):
            raise TrackingError(
                f"{shape.table}.{name} has been synchronised as a {kind} and can't become a"
                f" {new[name]}: the server refuses it. Track it as before, or add a new column."
            )


def _told(db: sqlite3.Connection, home: Collection, field: str) -> bool:
    """Whether any change or record here already says something of a field."""
    if any(field in fields for fields in _kept(db, home.no).values()):
        return True
    if db.execute("SELECT 1 FROM rejoin_ops WHERE collection = ? LIMIT 1", (home.no,)).fetchone():
        return True
    if db.execute(
        "SELECT 1 FROM rejoin_documents WHERE collection = ? AND field = ? LIMIT 1",
        (home.no, field),
    ).fetchone():
        return True
    for (body,) in db.execute("SELECT body FROM rejoin_changes WHERE space = ?", (home.space,)):
        for op in json.loads(body)["ops"]:
            if op["collection"] == home.name and (
                op.get("field") == field or field in (op.get("fields") or {})
            ):
                return True
    return False


def untrack(db: sqlite3.Connection, table: str) -> None:
    """Removes the triggers of a table, say before a column is dropped."""
    for (name,) in db.execute(
        "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        " AND tbl_name = ? COLLATE NOCASE AND name LIKE 'rejoin\\_%'"
        " ESCAPE '\\'",
        (table,),
    ).fetchall():
        db.execute(f"DROP TRIGGER {quote(name)}")


def _stands(db: sqlite3.Connection, shape: Shape, place: Place) -> bool:
    """Whether all triggers are there as they should be, and fire before the app's own.

    SQLite fires the youngest trigger first. Rejoin's must see a row before a trigger of the app
    changes it again, or the order of what they record would be wrong.
    """
    wanted = build(shape, place)
    have: dict[str, str] = {}
    youngest_other, oldest_own = 0, 1 << 62
    for rowid, name, sql in db.execute(
        "SELECT rowid, name, sql FROM sqlite_master WHERE type = 'trigger'"
        " AND tbl_name = ? COLLATE NOCASE",
        (shape.table,),
    ):
        if str(name).startswith("rejoin_"):
            have[name] = sql
            oldest_own = min(oldest_own, rowid)
        else:
            youngest_other = max(youngest_other, rowid)
    return have == wanted and youngest_other < oldest_own


def _make_triggers(db: sqlite3.Connection, shape: Shape, place: Place) -> None:
    untrack(db, shape.table)
    for sql in build(shape, place).values():
        db.execute(sql)


def _rows(db: sqlite3.Connection, shape: Shape) -> Iterator[tuple[SqlValue, ...]]:
    names = [*shape.key, *(c.name for c in shape.columns)]
    yield from db.execute(f"SELECT {', '.join(map(quote, names))} FROM {quote(shape.table)}")


def _kept(db: sqlite3.Connection, no: int) -> dict[str, JsonObject]:
    return {
        record_id: json.loads(fields)
        for record_id, fields in db.execute(
            "SELECT id, fields FROM rejoin_records WHERE collection = ?", (no,)
        )
    }


def _adopt(frame: Applying, home: Collection, shape: Shape) -> int:
    """Rows that are there already become changes; records that are known become rows."""
    db = frame.db
    kept = _kept(db, home.no)
    width = len(shape.key)
    units: list[Unit] = []
    ops: list[Op] = []
    context = _context(db, home.space)
    adopted, at_risk = 0, 0
    seen = set()
    for row in _rows(db, shape):
        if None in row[:width]:
            db.execute(
                "INSERT OR REPLACE INTO rejoin_troubles VALUES (?, ?)",
                (
                    f"A row of {shape.table!r} has NULL in its primary key and stays here only.",
                    frame.now_ms,
                ),
            )
            continue
        record_id = home.record_id(row[:width])
        seen.add(record_id)
        one = _row_ops(home, shape, record_id, row[width:], kept.get(record_id))
        for column, value in zip(shape.columns, row[width:], strict=True):
            if column.kind == "document":
                one += documents.text_ops(db, home, record_id, column.name, value)
        adopted += bool(one)
        if any(map(refusable, one)) or any(map(miscounted, one)):
            units.append(Unit(home.space, frame.now_ms, context, one))
            continue
        ops += one
        at_risk += bool(one)
        if at_risk == EXISTING_ROWS:
            units.append(Unit(home.space, frame.now_ms, context, ops))
            ops, at_risk = [], 0
    if ops:
        units.append(Unit(home.space, frame.now_ms, context, ops))
    number(db, units)
    for record_id in kept:
        if record_id not in seen:
            frame.replica.show((home.no, record_id))
    return adopted


def _context(db: sqlite3.Connection, space: int) -> JsonObject:
    return context_of(
        *db.execute(
            "SELECT epoch, cursor, clock FROM rejoin_spaces WHERE no = ?", (space,)
        ).fetchone()
    )


def _row_ops(
    home: Collection,
    shape: Shape,
    record_id: str,
    values: tuple[SqlValue, ...],
    kept: JsonObject | None,
) -> list[Op]:
    kinds: dict[str, str] = {c.name: c.kind for c in shape.columns}
    edit = Edit("insert" if kept is None else "update")
    for column, value in zip(shape.columns, values, strict=True):
        if column.kind == "counter":
            before = (kept or {}).get(column.name)
            edit.counts[column.name] = moved(value, before if isinstance(before, int) else 0)
        elif kept is None or column.kind == "set" or kept.get(column.name) != to_json(value):
            edit.values[column.name] = value
    return to_ops(edit, home.name, record_id, kinds)


def _fill_columns(frame: Applying, home: Collection, shape: Shape, added: list[str]) -> None:
    """New columns: filled with what the server has said of them; else what the app put there."""
    db = frame.db
    kept = _kept(db, home.no)
    told = {
        (record_id, name)
        for record_id, name in db.execute(
            "SELECT DISTINCT id, field FROM rejoin_documents WHERE collection = ?", (home.no,)
        )
    }
    for record_id, fields in kept.items():
        found = {name for name in added if name in fields or (record_id, name) in told}
        if found:
            frame.replica.touch((home.no, record_id)).must_show(found)
    columns = [c for c in shape.columns if c.name in added and c.kind == "register"]
    if not columns:
        return
    names = ", ".join(map(quote, [*shape.key, *(c.name for c in columns)]))
    written = " OR ".join(f"{quote(c.name)} IS NOT ({c.default or 'NULL'})" for c in columns)
    units = []
    for row in db.execute(f"SELECT {names} FROM {quote(shape.table)} WHERE {written}").fetchall():
        record_id = home.record_id(tuple(row[: len(shape.key)]))
        known = kept.get(record_id, {})
        values: dict[str, SqlValue] = {
            c.name: v
            for c, v in zip(columns, row[len(shape.key) :], strict=True)
            if c.name not in known
        }
        if values:
            ops = to_ops(
                Edit("update", values), home.name, record_id, {c.name: c.kind for c in columns}
            )
            units.append(Unit(home.space, frame.now_ms, _context(db, home.space), ops))
    number(db, units)
