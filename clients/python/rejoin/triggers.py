"""The triggers that record what plain SQL does to a table. Pure: shapes in, SQL out.

Stock SQLite, no extension, no user-defined function, no JSON: they fire for every connection and
tool that writes the file. What they record are native values; meaning is made later (`outbox.py`).

* While `rejoin_state.applying` is not 0 they record nothing.
* Only columns that an UPDATE really changed are recorded (`IS NOT`, byte by byte whatever the
  collation), and a column that is *in conflict*, when an UPDATE names it, even with the same value.
* `at` is SQLite's 'now', which stands still within one statement: rows with an equal `at` and no
  group are one statement (or several in the same millisecond), and become one change.
* REPLACE takes rows away without firing delete triggers (unless recursive_triggers is on). So a
  BEFORE trigger notes the rows in the way, and the AFTER trigger records those that are gone.
"""

from __future__ import annotations

from dataclasses import dataclass

from rejoin.schema import KEY_NAMES, SLOT_NAMES, SLOTS
from rejoin.shape import Column, Shape, quote

AT = "CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) + s.clock_skew_ms"
RECORDING = "(SELECT applying FROM rejoin_state) = 0"
WATCHING = "(SELECT applying FROM rejoin_state) = 2"


@dataclass(frozen=True)
class Slot:
    """One value place of a recorded edit. role: new, was (a set before the edit), or idle."""

    field: str
    kind: str
    role: str


@dataclass(frozen=True)
class Place:
    """Where a table's edits belong: the numbers of its collection and of its space."""

    collection: int
    space: int


def slots_of(shape: Shape) -> list[Slot]:
    """The value places of a table. A set takes two side by side, never split by a part's end."""
    slots: list[Slot] = []
    for column in shape.columns:
        if column.kind == "set" and len(slots) % SLOTS == SLOTS - 1:
            slots.append(Slot("", "register", "idle"))
        slots.append(Slot(column.name, column.kind, "new"))
        if column.kind == "set":
            slots.append(Slot(column.name, column.kind, "was"))
    return slots


def literal(text: str) -> str:
    """A string literal."""
    return "'" + text.replace("'", "''") + "'"


def trigger_name(shape: Shape, what: str) -> str:
    """All of Rejoin's triggers begin with `rejoin_`."""
    return quote(f"rejoin_{shape.table}_{what}")


def build(shape: Shape, place: Place) -> dict[str, str]:
    """All triggers of a table: CREATE statement by (unquoted) name."""
    made = [
        ("insert", _insert(shape, place)),
        ("update", _update(shape, place)),
        ("delete", _delete(shape, place)),
        ("rekey", _rekey(shape, place)),
        ("standing", _standing(shape, place)),
        *_watch(shape, place),
        *_settle(shape, place),
        *_doom(shape, place),
    ]
    return {
        f"rejoin_{shape.table}_{what}": f"CREATE TRIGGER {trigger_name(shape, what)} {sql}"
        for what, sql in made
    }


def _same_key(shape: Shape, left: str, right: str) -> str:
    return " AND ".join(f"{left}{quote(k)} = {right}{quote(k)}" for k in shape.key)


def _record(
    shape: Shape,
    place: Place,
    kind: str,
    row: str,
    values: list[str],
    *,
    part: int = 0,
    mask: str = "NULL",
    source: str = "",
    where: str = "",
) -> str:
    """One INSERT into rejoin_ops. `row` prefixes the key columns, as in `NEW.`."""
    names = [*KEY_NAMES[: len(shape.key)], *SLOT_NAMES[: len(values)]]
    keys = [row + (quote(k) if source != "d" else KEY_NAMES[i]) for i, k in enumerate(shape.key)]
    tables = ", ".join(
        filter(
            None,
            (
                "rejoin_state AS s, rejoin_spaces AS p",
                {"d": "rejoin_doomed AS d"}.get(source, source),
            ),
        )
    )
    return (
        f"  INSERT INTO rejoin_ops (kind, collection, part, grp, at, epoch, cursor, mask,"
        f" {', '.join(names)})\n"
        f"  SELECT '{kind}', {place.collection}, {part}, s.grp, {AT}, p.epoch, p.cursor, {mask},"
        f" {', '.join([*keys, *values])}\n"
        f"  FROM {tables} WHERE p.no = {place.space}{where};\n"
    )


def _parts(shape: Shape) -> list[list[Slot]]:
    slots = slots_of(shape)
    return [slots[i : i + SLOTS] for i in range(0, len(slots), SLOTS)] or [[]]


def _whole_row(
    shape: Shape, place: Place, kind: str, row: str, source: str = "", where: str = ""
) -> str:
    return "".join(
        _record(
            shape,
            place,
            kind,
            row,
            [row + quote(s.field) if s.role == "new" else "NULL" for s in part],
            part=number,
            source=source,
            where=where,
        )
        for number, part in enumerate(_parts(shape))
    )


def _gone(shape: Shape, place: Place) -> str:
    """Records the noted rows that a REPLACE really took away."""
    if not shape.uniques:
        return ""
    still = " AND ".join(f"t.{quote(k)} = d.{KEY_NAMES[i]}" for i, k in enumerate(shape.key))
    return (
        _record(
            shape,
            place,
            "d",
            "d.",
            [],
            source="d",
            where=f" AND d.collection = {place.collection} AND NOT EXISTS"
            f" (SELECT 1 FROM {quote(shape.table)} AS t WHERE {still})",
        )
        + f"  DELETE FROM rejoin_doomed WHERE collection = {place.collection};\n"
    )


def _insert(shape: Shape, place: Place) -> str:
    return (
        f"AFTER INSERT ON {quote(shape.table)} WHEN {RECORDING}\nBEGIN\n"
        f"{_gone(shape, place)}{_whole_row(shape, place, 'i', 'NEW.')}END"
    )


def _standing(shape: Shape, place: Place) -> str:
    """An insert over a row that stands (REPLACE, UPSERT, IGNORE): note the row as it was."""
    there = f"SELECT 1 FROM {quote(shape.table)} AS t WHERE {_same_key(shape, 't.', 'NEW.')}"
    where = f" AND {_same_key(shape, 't.', 'NEW.')}"
    return (
        f"BEFORE INSERT ON {quote(shape.table)} WHEN {RECORDING} AND EXISTS ({there})\nBEGIN\n"
        + _whole_row(shape, place, "r", "t.", f"{quote(shape.table)} AS t", where)
        + "END"
    )


def _changed(column: Column) -> str:
    name = quote(column.name)
    differs = f"NEW.{name} COLLATE BINARY IS NOT OLD.{name}"
    return differs if column.typed else f"({differs} OR typeof(NEW.{name}) <> typeof(OLD.{name}))"


def _key_kept(shape: Shape) -> str:
    return " AND ".join(f"NEW.{quote(k)} COLLATE BINARY IS OLD.{quote(k)}" for k in shape.key)


def _update_value(slot: Slot, column: Column | None) -> str:
    if column is None or slot.role == "idle":
        return "NULL"
    name, changed = quote(column.name), _changed(column)
    if slot.role == "was":
        return f"CASE WHEN {changed} THEN OLD.{name} END"
    if column.kind == "counter":
        return (
            f"CASE WHEN {changed} THEN CASE WHEN typeof(NEW.{name}) IN ('text', 'blob')"
            f" THEN NEW.{name} ELSE COALESCE(NEW.{name}, 0) - COALESCE(OLD.{name}, 0) END END"
        )
    return f"CASE WHEN {changed} THEN NEW.{name} END"


def _update(shape: Shape, place: Place) -> str:
    columns = {c.name: c for c in shape.columns}
    if not columns:
        return f"AFTER UPDATE ON {quote(shape.table)} WHEN 0\nBEGIN\n  SELECT 1;\nEND"
    body = ""
    for number, part in enumerate(_parts(shape)):
        mask = (
            " | ".join(
                f"(({_changed(columns[s.field])}) << {i})"
                for i, s in enumerate(part)
                if s.role == "new"
            )
            or "0"
        )
        values = [_update_value(s, columns.get(s.field)) for s in part]
        body += _record(
            shape,
            place,
            "u",
            "NEW.",
            values,
            part=number,
            mask=mask,
            where=f" AND ({mask}) <> 0" if len(_parts(shape)) > 1 else "",
        )
    any_changed = " OR ".join(_changed(c) for c in shape.columns)
    return (
        f"AFTER UPDATE ON {quote(shape.table)}\nWHEN {RECORDING} AND {_key_kept(shape)}"
        f" AND ({any_changed})\nBEGIN\n{body}END"
    )


def _rekey(shape: Shape, place: Place) -> str:
    """Another key is another record: a deletion and an insert."""
    keys = ", ".join(map(quote, shape.key))
    return (
        f"AFTER UPDATE OF {keys} ON {quote(shape.table)}\n"
        f"WHEN {RECORDING} AND NOT ({_key_kept(shape)})\nBEGIN\n"
        f"{_record(shape, place, 'd', 'OLD.', [])}"
        f"{_whole_row(shape, place, 'i', 'NEW.')}END"
    )


def _delete(shape: Shape, place: Place) -> str:
    noted = " AND ".join(f"{KEY_NAMES[i]} IS OLD.{quote(k)}" for i, k in enumerate(shape.key))
    forget = (
        f"  DELETE FROM rejoin_doomed WHERE collection = {place.collection} AND {noted};\n"
        if shape.uniques
        else ""
    )
    return (
        f"AFTER DELETE ON {quote(shape.table)} WHEN {RECORDING}\nBEGIN\n{forget}"
        f"{_record(shape, place, 'd', 'OLD.', [])}END"
    )


def _settle(shape: Shape, place: Place) -> list[tuple[str, str]]:
    """An UPDATE that names a column in conflict settles it, also with the value that is shown."""
    row_key = " || ',' || ".join(f"quote(NEW.{quote(k)})" for k in shape.key)
    made = []
    for number, part in enumerate(_parts(shape)):
        for i, slot in enumerate(part):
            if slot.kind != "register" or slot.role != "new":
                continue
            column = next(c for c in shape.columns if c.name == slot.field)
            values = ["NULL"] * i + [f"NEW.{quote(slot.field)}"]
            made.append(
                (
                    f"settle_{slot.field}",
                    (
                        f"AFTER UPDATE OF {quote(slot.field)} ON {quote(shape.table)}\n"
                        f"WHEN NOT ({_changed(column)}) AND EXISTS (SELECT 1 FROM rejoin_conflicts"
                        f" WHERE collection = {place.collection} AND row_key = {row_key}"
                        f" AND field = {literal(slot.field)}) AND {RECORDING}\nBEGIN\n"
                        + _record(shape, place, "u", "NEW.", values, part=number, mask=str(1 << i))
                        + "END"
                    ),
                )
            )
    return made


def _doom(shape: Shape, place: Place) -> list[tuple[str, str]]:
    """Notes rows that stand in the way of a unique value, before an OR REPLACE removes them."""
    if not shape.uniques:
        return []
    table = quote(shape.table)
    keys = ", ".join(KEY_NAMES[: len(shape.key)])
    own = ", ".join(f"t.{quote(k)}" for k in shape.key)

    def note(unique: tuple[str, ...], other: str) -> str:
        equal = " AND ".join(f"t.{quote(c)} = NEW.{quote(c)}" for c in unique)
        return (
            f"  INSERT INTO rejoin_doomed (collection, {keys}) SELECT {place.collection}, {own}"
            f" FROM {table} AS t WHERE {equal}{other};\n"
        )

    fresh = f"  DELETE FROM rejoin_doomed WHERE collection = {place.collection};\n"
    not_itself = f" AND NOT ({_same_key(shape, 't.', 'OLD.')})"
    noted = f"EXISTS (SELECT 1 FROM rejoin_doomed WHERE collection = {place.collection})"
    columns = ", ".join(map(quote, dict.fromkeys(c for unique in shape.uniques for c in unique)))
    return [
        (
            "doom_insert",
            f"BEFORE INSERT ON {table} WHEN {RECORDING}\nBEGIN\n{fresh}"
            + "".join(note(u, "") for u in shape.uniques)
            + "END",
        ),
        (
            "doom_update",
            f"BEFORE UPDATE OF {columns} ON {table} WHEN {RECORDING}\nBEGIN\n{fresh}"
            + "".join(note(u, not_itself) for u in shape.uniques)
            + "END",
        ),
        (
            "doomed_update",
            f"AFTER UPDATE OF {columns} ON {table} WHEN {RECORDING} AND {noted}\nBEGIN\n"
            + _gone(shape, place)
            + "END",
        ),
    ]


def _watch(shape: Shape, place: Place) -> list[tuple[str, str]]:
    """While remote rows are applied: note what cascades and the app's own triggers touch."""
    keys = ", ".join(KEY_NAMES[: len(shape.key)])

    def note(row: str) -> str:
        values = ", ".join(f"{row}.{quote(k)}" for k in shape.key)
        return (
            f"  INSERT INTO rejoin_touched (collection, {keys})"
            f" VALUES ({place.collection}, {values});\n"
        )

    table = quote(shape.table)
    return [
        ("watch_insert", f"AFTER INSERT ON {table} WHEN {WATCHING}\nBEGIN\n{note('NEW')}END"),
        (
            "watch_update",
            f"AFTER UPDATE ON {table} WHEN {WATCHING}\nBEGIN\n{note('OLD')}{note('NEW')}END",
        ),
        ("watch_delete", f"AFTER DELETE ON {table} WHEN {WATCHING}\nBEGIN\n{note('OLD')}END"),
    ]
