"""Collections as this file knows them: which table shows them, and how its edits are laid out."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from functools import cached_property

from rejoin.shape import Kind, Shape
from rejoin.triggers import Slot, slots_of
from rejoin.values import SqlValue, id_to_key, key_to_id


@dataclass(frozen=True)
class Collection:
    """One row of `rejoin_collections`. Without `kinds` no local table shows it (yet)."""

    no: int
    space: int
    name: str
    kinds: dict[str, Kind] | None
    slots: list[Slot]
    key_is_text: tuple[bool, ...]
    columns: tuple[str, ...]
    """The columns outside the key that the triggers in force know."""

    @cached_property
    def fields(self) -> dict[str, str]:
        """The kind of each field that the triggers record."""
        return {slot.field: slot.kind for slot in self.slots if slot.role == "new"}

    @property
    def tracked(self) -> bool:
        return self.kinds is not None

    def record_id(self, key: tuple[SqlValue, ...]) -> str:
        return key_to_id(key, self.key_is_text)

    def row_key(self, record_id: str) -> tuple[SqlValue, ...] | None:
        return id_to_key(record_id, self.key_is_text)


def read_all(db: sqlite3.Connection) -> dict[int, Collection]:
    """All collections by number."""
    made = {}
    for no, space, name, kinds, slots, columns in db.execute(
        "SELECT no, space, name, kinds, slots, columns FROM rejoin_collections"
    ):
        layout = json.loads(slots) if slots else {"key_is_text": [], "slots": []}
        made[no] = Collection(
            no,
            space,
            name,
            None if kinds is None else json.loads(kinds),
            [Slot(*slot) for slot in layout["slots"]],
            tuple(layout["key_is_text"]),
            tuple(json.loads(columns)) if columns else (),
        )
    return made


def number_of(db: sqlite3.Connection, space: int, name: str) -> int:
    """The number of a collection, made on first sight."""
    row = db.execute(
        "SELECT no FROM rejoin_collections WHERE space = ? AND name = ?", (space, name)
    ).fetchone()
    if row is None:
        row = db.execute(
            "INSERT INTO rejoin_collections (space, name) VALUES (?, ?) RETURNING no", (space, name)
        ).fetchone()
        twin = other_case(db, space, name)
        if twin is not None:
            db.execute(
                "INSERT OR REPLACE INTO rejoin_troubles"
                " VALUES (?, CAST(strftime('%s', 'now') AS INTEGER) * 1000)",
                (f"{apart(name, twin)} Rename one of the tables, on every device alike.",),
            )
    return int(row[0])


def other_case(db: sqlite3.Connection, space: int, name: str) -> str | None:
    """A collection of the space whose name differs from this one only by letter case."""
    row = db.execute(
        "SELECT name FROM rejoin_collections WHERE space = ? AND name = ? COLLATE NOCASE"
        " AND name <> ?",
        (space, name, name),
    ).fetchone()
    return None if row is None else str(row[0])


def apart(name: str, twin: str) -> str:
    """What is wrong with two such names."""
    return (
        f"The space holds a collection {name!r} and a collection {twin!r}: to SQLite they are one"
        f" table, to the other devices two, so their rows don't meet."
    )


def write_shape(db: sqlite3.Connection, no: int, shape: Shape) -> None:
    """Stores the layout that the triggers about to be made will write in."""
    layout = {
        "key_is_text": shape.key_is_text,
        "slots": [(s.field, s.kind, s.role) for s in slots_of(shape)],
    }
    db.execute(
        "UPDATE rejoin_collections SET kinds = ?, slots = ?, columns = ? WHERE no = ?",
        (
            json.dumps(shape.kinds()),
            json.dumps(layout),
            json.dumps([c.name for c in shape.columns]),
            no,
        ),
    )
