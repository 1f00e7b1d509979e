"""Table definitions travel too, as records of a reserved collection: that is what `clone` reads.

A definition is published once its space has been pulled, where no one has published one that knows
all the columns of this device. Older apps therefore never overwrite a newer definition.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from rejoin import collections, spaces
from rejoin.answers import as_object
from rejoin.apply import writing
from rejoin.collections import Collection
from rejoin.outbox import Unit, context_of, number
from rejoin.schema import get_meta, set_meta
from rejoin.spaces import Space
from rejoin.values import Json, JsonObject, compact

COLLECTION = "_rejoin_schema"
"""Record id: the table's name. Fields: sql, indexes (array of SQL), kinds, columns (array)."""


@dataclass(frozen=True)
class Definition:
    """What it takes to make a table elsewhere."""

    table: str
    sql: str
    indexes: list[str]
    kinds: dict[str, str]
    columns: list[str]

    def fields(self) -> JsonObject:
        indexes: list[Json] = list(self.indexes)
        columns: list[Json] = list(self.columns)
        kinds: JsonObject = dict(self.kinds)
        return {"sql": self.sql, "indexes": indexes, "kinds": kinds, "columns": columns}


def define(db: sqlite3.Connection, home: Collection) -> Definition | None:
    """A tracked table's own definition; None where the table is gone."""
    row = db.execute(
        "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE",
        (home.name,),
    ).fetchone()
    if row is None or home.kinds is None:
        return None
    indexes = [
        str(r[0])
        for r in db.execute(
            "SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ? COLLATE NOCASE"
            " AND sql IS NOT NULL ORDER BY name",
            (home.name,),
        )
    ]
    return Definition(home.name, str(row[0]), indexes, dict(home.kinds), sorted(home.columns))


def published(db: sqlite3.Connection, space: int) -> dict[str, Definition]:
    """The definitions that have arrived here, by table."""
    made = {}
    for name, text in db.execute(
        "SELECT r.id, r.fields FROM rejoin_records AS r JOIN rejoin_collections AS c"
        " ON c.no = r.collection WHERE c.space = ? AND c.name = ?",
        (space, COLLECTION),
    ):
        found = json.loads(text)
        if isinstance(found.get("sql"), str):
            made[name] = Definition(
                name,
                found["sql"],
                _texts(found.get("indexes")),
                {n: str(k) for n, k in as_object(found.get("kinds")).items()},
                _texts(found.get("columns")),
            )
    return made


def _texts(value: Json) -> list[str]:
    """Anybody may have written it: what is no list of texts is empty."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def publish_missing(db: sqlite3.Connection, now_ms: int) -> bool:
    """Records the definitions that a pulled space lacks. True if there were any."""
    made = False
    for space in spaces.read_all(db):
        if space.pulled and not space.read_only and not space.withdrawn:
            made |= publish(db, space, now_ms)
    return made


def publish(db: sqlite3.Connection, space: Space, now_ms: int) -> bool:
    """Makes one change of all definitions of a space that have to be published."""
    there = published(db, space.no)
    ops: list[JsonObject] = []
    names = []
    for home in collections.read_all(db).values():
        if home.space != space.no or not home.tracked:
            continue
        mine = define(db, home)
        known = {*there[home.name].columns} if home.name in there else None
        if mine is None or (known is not None and known >= {*mine.columns}):
            continue
        if get_meta(db, f"published:{home.no}") == compact(list(mine.columns)):
            continue  # on its way, or refused: not again and again
        names.append((home.no, compact(list(mine.columns))))
        ops.append(
            {
                "op": "put",
                "collection": COLLECTION,
                "id": home.name,
                **({"new": True} if known is None else {}),
                "fields": mine.fields(),
            }
        )
    if not ops:
        return False
    with writing(db):
        clock = db.execute("SELECT clock FROM rejoin_spaces WHERE no = ?", (space.no,)).fetchone()
        context = context_of(space.epoch, space.cursor, clock[0])
        number(db, [Unit(space.no, now_ms, context, list(ops))])
        for no, columns in names:
            set_meta(db, f"published:{no}", columns)
    return True
