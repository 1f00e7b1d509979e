"""The outbox: recorded edits become numbered changes, whose content never alters again.

Sealing happens in the same local transaction that moves a cursor or sends a request, always
before it: so the context written here is the context of the moment of the edit.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import cast

from rejoin import collections, document_rows, documents
from rejoin.collections import Collection
from rejoin.edits import Edit, Op, Seen, moved, net_effect, to_ops
from rejoin.rows import read_row
from rejoin.schema import KEY_NAMES, SLOT_NAMES
from rejoin.values import Json, JsonObject, SqlValue, compact

OpRow = tuple[str, int, int, int, int, int | None, int, int | None]
"""The first columns of `rejoin_ops`, as the triggers write them."""
CHANGE_OPS_MAX = 1000
"""The protocol's bound. A longer transaction travels as several changes, in its order."""
CHANGE_BYTES_MAX = 1 << 20
"""Well under the server's 8 MiB body, so that no single change can outgrow a request."""
EXISTING_ROWS = 100
"""Rows of an attached table in one change: few enough that one bad row takes few others along."""


@dataclass
class Unit:
    """What becomes one change in one space (or several, if it is too large)."""

    space: int
    at: int
    context: JsonObject
    ops: list[Op] = field(default_factory=list)


@dataclass
class Standing:
    """Which of the side tables hold anything, asked once: most often none of them does."""

    deletes: bool
    strays: bool
    conflicts: bool
    aside: bool


def _standing(db: sqlite3.Connection) -> Standing:
    return Standing(
        *(
            db.execute(f"SELECT EXISTS (SELECT 1 FROM rejoin_{table})").fetchone()[0] == 1
            for table in ("deletes", "strays", "conflicts", "aside")
        )
    )


Cell = tuple[int, tuple[SqlValue, ...], str]
"""(collection, key, field)"""


@dataclass
class Recorded:
    """What one unit did to one record, as it was recorded."""

    seen: list[Seen] = field(default_factory=list)
    edits: list[tuple[str, int]] = field(default_factory=list)
    """Of documents: field, and the update's number in `rejoin_documents`."""
    texts: set[str] = field(default_factory=set)
    """Document columns that plain SQL wrote, and no later edit by hand has taken up."""


def _written_by_hand(db: sqlite3.Connection) -> dict[Cell, int]:
    """Where the last edit by hand of each document stands: it took up what the column held."""
    known = collections.read_all(db)
    return {
        (no, tuple(key[: len(known[no].key_is_text)]), name): seq
        for no, name, seq, *key in db.execute(
            f"SELECT collection, v0, max(seq), {', '.join(KEY_NAMES)} FROM rejoin_ops"
            f" WHERE kind = 'e' GROUP BY collection, v0, {', '.join(KEY_NAMES)}"
        )
    }


def seal(db: sqlite3.Connection) -> int:
    """Numbers all recorded edits. Call it inside a write transaction. Returns how many changes."""
    count = _seal_rows(db)
    if count:
        db.execute("DELETE FROM rejoin_ops")
        db.execute("DELETE FROM rejoin_doomed")
    return count


def _seal_rows(db: sqlite3.Connection) -> int:
    rows = db.execute(
        f"SELECT kind, collection, part, grp, at, epoch, cursor, mask, {', '.join(KEY_NAMES)},"
        f" {', '.join(SLOT_NAMES)}, seq FROM rejoin_ops ORDER BY seq"
    )
    written = _written_by_hand(db)
    known = collections.read_all(db)
    clocks = dict(db.execute("SELECT no, clock FROM rejoin_spaces").fetchall())
    sealed = 0
    made: list[Unit] = []
    state = _standing(db)
    for _, group in groupby(rows, key=lambda r: (r[3], r[4] if r[3] == 0 else 0)):
        made += _units(db, list(group), known, clocks, state, written)
        sealed += 1
    number(db, made)
    return sealed


def _units(
    db: sqlite3.Connection,
    rows: list[tuple[SqlValue, ...]],
    known: dict[int, Collection],
    clocks: dict[int, str | None],
    state: Standing,
    written: Mapping[Cell, int],
) -> list[Unit]:
    by_record: dict[tuple[int, tuple[SqlValue, ...]], Recorded] = {}
    units: dict[int, Unit] = {}
    for row in rows:
        kind, no, part, _, at, epoch, cursor, mask = cast("OpRow", row[:8])
        home = known[no]
        if home.space not in units:
            units[home.space] = Unit(
                home.space, at, context_of(epoch, cursor, clocks.get(home.space))
            )
        key = row[8 : 8 + len(home.key_is_text)]
        one = by_record.setdefault((no, key), Recorded())
        values = row[8 + len(KEY_NAMES) : -1]
        if kind == "e":
            one.edits.append((str(values[0]), cast("int", values[1])))
            continue
        one.seen.append(Seen(kind, part, at, mask or 0, values))
        for name in documents.fields_of(home) if kind in "iu" else ():
            if cast("int", row[-1]) > written.get((no, key, name), -1):
                one.texts.add(name)
    for (no, key), one in by_record.items():
        home = known[no]
        unit = units[home.space]
        unit.ops += _record_ops(db, home, key, one, unit, state)
    return [unit for unit in units.values() if unit.ops]


def context_of(epoch: SqlValue, cursor: SqlValue, clock: str | None) -> JsonObject:
    """A causal context; members that say nothing are left out."""
    context: JsonObject = {} if epoch is None else {"epoch": int(epoch)}
    context["cursor"] = int(cursor or 0)
    if clock:
        context["clock"] = json.loads(clock)
    return context


def _record_ops(
    db: sqlite3.Connection,
    home: Collection,
    key: tuple[SqlValue, ...],
    recorded: Recorded,
    unit: Unit,
    state: Standing,
) -> list[Op]:
    if None in key:
        db.execute(
            "INSERT OR REPLACE INTO rejoin_troubles VALUES (?, ?)",
            (
                f"A row of {home.name!r} has NULL in its primary key: give it one.",
                unit.at,
            ),
        )
        return []
    record_id = home.record_id(key)
    at = (home.no, record_id)
    edit = _edit_of(db, home, key, recorded, stray=state.strays and _is_stray(db, at))
    ops = _with_documents(
        db, home, record_id, edit, recorded, to_ops(edit, home.name, record_id, home.fields)
    )
    if ops and state.aside:
        row = db.execute(
            "SELECT cursor FROM rejoin_aside WHERE collection = ? AND id = ?", at
        ).fetchone()
        if row:  # its user never saw what the server has of it: a new row must not clear that
            seen = unit.context["cursor"]
            unit.context = {**unit.context, "cursor": min(row[0], cast("int", seen))}
    if edit.kind == "insert" and state.deletes:
        row = db.execute(
            "SELECT context FROM rejoin_deletes WHERE collection = ? AND id = ?", at
        ).fetchone()
        if row:
            unit.context = older(unit.context, json.loads(row[0]))
    elif edit.kind == "delete":
        db.execute(
            "INSERT OR IGNORE INTO rejoin_deletes VALUES (?, ?, ?)", (*at, compact(unit.context))
        )
        state.deletes = True
    if edit.kind != "nothing" and state.strays:
        db.execute("DELETE FROM rejoin_strays WHERE collection = ? AND id = ?", at)
    if state.conflicts:
        _settle(db, at, edit)
    return ops


def _edit_of(
    db: sqlite3.Connection,
    home: Collection,
    key: tuple[SqlValue, ...],
    recorded: Recorded,
    *,
    stray: bool,
) -> Edit:
    """The net effect; of a row that the server never took, the whole row as it stands now."""
    edit = net_effect(recorded.seen, home.slots, home.fields)
    if recorded.edits and edit.kind == "nothing":
        edit = Edit("update")
    if not stray or edit.kind != "update":
        return edit
    recorded.texts.update(documents.fields_of(home))
    return _whole_row(db, home, key, edit)


def _with_documents(
    db: sqlite3.Connection,
    home: Collection,
    record_id: str,
    edit: Edit,
    recorded: Recorded,
    ops: list[Op],
) -> list[Op]:
    """Edits by hand, and those that say what plain SQL wrote, in their place among the others.

    None is left out, not even of a row deleted after it: later ones of the same Yjs client stand
    on it.
    """
    by_hand = [
        documents.edit_op(home.name, record_id, name, data)
        for name, n in recorded.edits
        for (data,) in db.execute("SELECT data FROM rejoin_documents WHERE n = ?", (n,))
    ]
    ops = by_hand + ops if edit.kind == "delete" or edit.over_delete else ops + by_hand
    if edit.kind != "delete":
        for name in sorted(recorded.texts & edit.values.keys()):
            ops += documents.text_ops(db, home, record_id, name, edit.values[name])
    return ops


def _settle(db: sqlite3.Connection, at: tuple[int, str], edit: Edit) -> None:
    """What was written is no longer in conflict for the app; the server has the last word."""
    if edit.kind == "update":
        db.executemany(
            "DELETE FROM rejoin_conflicts WHERE collection = ? AND id = ? AND field = ?",
            [(*at, name) for name in edit.values],
        )
    elif edit.kind != "nothing":
        db.execute("DELETE FROM rejoin_conflicts WHERE collection = ? AND id = ?", at)


def older(one: JsonObject, other: JsonObject) -> JsonObject:
    """Of two contexts of the same device the one that had seen less."""

    def rank(context: JsonObject) -> tuple[int, int]:
        epoch, cursor = context.get("epoch"), context.get("cursor")
        return (epoch if isinstance(epoch, int) else 0, cursor if isinstance(cursor, int) else 0)

    return min(one, other, key=rank)


def _is_stray(db: sqlite3.Connection, at: tuple[int, str]) -> bool:
    return (
        db.execute("SELECT 1 FROM rejoin_strays WHERE collection = ? AND id = ?", at).fetchone()
        is not None
    )


def _whole_row(
    db: sqlite3.Connection, home: Collection, key: tuple[SqlValue, ...], edit: Edit
) -> Edit:
    """The server never took this row's insert: an edit of it sends the row as it stands now."""
    row = read_row(db, home, key)
    if row is None:
        return edit
    whole = Edit("insert")
    for slot in home.slots:
        if slot.role != "new":
            continue
        value = row.get(slot.field)
        if slot.kind == "counter":
            whole.counts[slot.field] = moved(value, 0)
        else:
            whole.values[slot.field] = value
    return whole


def number(db: sqlite3.Connection, units: Iterable[Unit]) -> int:
    """Gives units their counters and freezes them. Returns how many changes were made."""
    counters: dict[int, int] = {}
    rows = []
    for unit in units:
        counter = counters.get(unit.space)
        if counter is None:
            counter = int(
                db.execute(
                    "SELECT counter FROM rejoin_spaces WHERE no = ?", (unit.space,)
                ).fetchone()[0]
            )
        for ops, body in _bodies(unit, counter):
            counter += 1
            rows.append((unit.space, counter, unit.at, body))
            document_rows.numbered(db, unit.space, counter, ops)
        counters[unit.space] = counter
    db.executemany(
        "INSERT INTO rejoin_changes (space, counter, at, body) VALUES (?, ?, ?, ?)", rows
    )
    db.executemany(
        "UPDATE rejoin_spaces SET counter = ? WHERE no = ?",
        [(counter, no) for no, counter in counters.items()],
    )
    return len(rows)


def _bodies(unit: Unit, counter: int) -> Iterator[tuple[list[Op], str]]:
    texts: list[str] = []
    ops: list[Op] = []
    size = 0
    for op in unit.ops:
        text = compact(op)
        if texts and (len(texts) == CHANGE_OPS_MAX or size + len(text) > CHANGE_BYTES_MAX):
            counter += 1
            yield ops, body_of(counter, unit.context, unit.at, texts)
            texts, ops, size = [], [], 0
        texts.append(text)
        ops.append(op)
        size += len(text)
    yield ops, body_of(counter + 1, unit.context, unit.at, texts)


def body_of(counter: int, context: JsonObject, at: int, ops: list[str]) -> str:
    """A change as it is sent, byte for byte, as often as it takes."""
    return f'{{"counter":{counter},"context":{compact(context)},"at":{at},"ops":[{",".join(ops)}]}}'


def renumbered(body: str, counter: int, clock: JsonObject) -> str:
    """A change moved to another device id: a new number, and the old id's counter in its clock."""
    change = json.loads(body)
    context = change["context"]
    named = {**context.get("clock", {}), **clock}
    if named:
        context["clock"] = named
    return body_of(counter, context, change["at"], [compact(op) for op in change["ops"]])


def refusable(value: Json) -> bool:
    """Text that the server is known to refuse: a NUL or a lone surrogate in it."""
    if isinstance(value, str):
        return "\0" in value or any("\ud800" <= c <= "\udfff" for c in value)
    if isinstance(value, list):
        return any(map(refusable, value))
    if isinstance(value, dict):
        return any(refusable(part) for pair in value.items() for part in pair)
    return False


def miscounted(op: Op) -> bool:
    """An increment that the server is known to refuse: not by a whole number."""
    return op["op"] == "increment" and not isinstance(op.get("by"), int)
