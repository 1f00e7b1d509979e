"""The local copy of one space during one local transaction: states loaded, changed, written back.

Only what is touched is loaded. At the end `store()` writes the kept server states, and `writes()`
says what the app's tables shall show: server state plus pending edits.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field

from rejoin import collections, document_rows, documents
from rejoin.edits import Op
from rejoin.overlay import Delta, Record, shown
from rejoin.rows import Write
from rejoin.values import JsonObject, compact

At = tuple[int, str]
"""(collection number, record id)"""


@dataclass(slots=True)
class Touched:
    """A record in hand. `only`: the fields whose columns are to be written, None for all."""

    record: Record
    known: bool
    show: bool = False
    only: set[str] | None = field(default_factory=set)

    def must_show(self, fields: set[str] | None) -> None:
        self.show = True
        if fields is None or self.only is None:
            self.only = None
        else:
            self.only |= fields


class Replica:
    """See the module. Lives within one transaction."""

    def __init__(self, db: sqlite3.Connection, space: int) -> None:
        self._db = db
        self._space = space
        self.homes = collections.read_all(db)
        self._numbers = {home.name: home.no for home in self.homes.values() if home.space == space}
        self._empty = {no for no in self._numbers.values() if not self._has_records(no)}
        self.touched: dict[At, Touched] = {}
        self._pending: dict[At, list[Op]] | None = None

    def _has_records(self, no: int) -> bool:
        return (
            self._db.execute(
                "SELECT 1 FROM rejoin_records WHERE collection = ? LIMIT 1", (no,)
            ).fetchone()
            is not None
        )

    def number(self, name: str) -> int:
        """A collection's number, made on first sight."""
        no = self._numbers.get(name)
        if no is None:
            no = collections.number_of(self._db, self._space, name)
            self.homes = collections.read_all(self._db)
            self._numbers[name] = no
            self._empty.add(no)
        return no

    def touch(self, at: At) -> Touched:
        """A record's kept state, loaded once."""
        one = self.touched.get(at)
        if one is None:
            row = (
                None
                if at[0] in self._empty
                else self._db.execute(
                    "SELECT position, fields, conflicts FROM rejoin_records"
                    " WHERE collection = ? AND id = ?",
                    at,
                ).fetchone()
            )
            record = (
                Record()
                if row is None
                else Record(
                    json.loads(row[1]),
                    json.loads(row[2]) if row[2] else {},
                    row[0],
                )
            )
            one = self.touched[at] = Touched(record, row is not None)
        return one

    def take(self, delta: Delta, *, whole: bool) -> None:
        """One record of a complete pull."""
        at = (self.number(delta.collection), delta.id)
        one = self.touch(at)
        whole = whole or delta.replace or one.record.fields is None
        one.must_show(one.record.take(delta, whole=whole))
        if one.record.fields is not None:
            document_rows.take(self._db, at, delta.documents, whole=whole)

    def forget(self, deltas: Iterable[Delta]) -> None:
        """Before a transfer that replaces the copy: what it doesn't name is no longer there."""
        named = {(self.number(d.collection), d.id) for d in deltas}
        for no in self._numbers.values():
            for (record_id,) in self._db.execute(
                "SELECT id FROM rejoin_records WHERE collection = ?", (no,)
            ).fetchall():
                if (no, record_id) not in named:
                    one = self.touch((no, record_id))
                    one.record = Record()
                    one.must_show(None)

    def fold(self, op: Op) -> None:
        """An own accepted operation becomes part of the server's state."""
        no = self.number(str(op["collection"]))
        one = self.touch((no, str(op["id"])))
        one.record.fold(op)
        written = op.get("fields")
        if isinstance(written, dict) and 0 in written.values():
            # -0.0 was sent as 0.0, which the author's own table shall show as well.
            one.must_show({n for n, v in written.items() if type(v) is float and v == 0})
        kinds = self.homes[no].kinds
        if kinds:
            one.must_show(
                set(kinds)
            )  # shown as every device shows it: sets sorted, no NULL counter

    def show(self, at: At) -> None:
        """Have a record's row written anew, whole."""
        self.touch(at).must_show(None)

    def pending(self, at: At) -> list[Op]:
        """Own operations on a record that the kept state doesn't have yet."""
        if self._pending is None:
            self._pending = {}
            for op in open_ops(self._db, self._space):
                where = (self.number(str(op["collection"])), str(op["id"]))
                self._pending.setdefault(where, []).append(op)
        return self._pending.get(at, [])

    def writes(self, strays: set[At]) -> list[Write]:
        """What the app's tables shall show of the touched records."""
        made = []
        for at, one in self.touched.items():
            home = self.homes[at[0]]
            if not one.show or not home.tracked:
                continue
            pending = self.pending(at)
            only = None if pending or one.only is None else frozenset(one.only)
            fields, whole = self.shown(at, only)
            if not whole or (fields is None and at in strays):
                continue
            made.append(Write(home, at[1], fields, only, fresh=not one.known and not pending))
        return made

    def shown(self, at: At, only: frozenset[str] | None = None) -> tuple[JsonObject | None, bool]:
        """What a record's row shall show, and whether that is the whole row. only: its fields."""
        record, pending = self.touch(at).record, self.pending(at)
        fields, whole = shown(record.fields, pending) if pending else (record.fields, True)
        if fields is not None and (names := documents.fields_of(self.homes[at[0]])):
            fields = dict(fields)
            for name in names:
                if only is None or name in only:
                    fields[name] = documents.text(self._db, at, name)
        return fields, whole

    def store(self) -> None:
        """Writes the kept states and the index of conflicts back."""
        alive, dead, index = [], [], []
        for at, one in self.touched.items():
            record = one.record
            if record.fields is None:
                dead.append(at)
            else:
                alive.append(
                    (
                        *at,
                        record.position,
                        compact(record.fields),
                        compact(record.conflicts) if record.conflicts else None,
                    )
                )
            if one.known or record.conflicts:
                index.append(at)
        self._db.executemany("DELETE FROM rejoin_records WHERE collection = ? AND id = ?", dead)
        self._db.executemany(
            "INSERT OR REPLACE INTO rejoin_records (collection, id, position, fields, conflicts)"
            " VALUES (?, ?, ?, ?, ?)",
            alive,
        )
        document_rows.forget(self._db, dead)
        self._index(index)

    def _index(self, ats: Iterable[At]) -> None:
        """The index of conflicts, without the cells that a pending edit is about to settle."""
        some = self._db.execute("SELECT 1 FROM rejoin_conflicts LIMIT 1").fetchone() is not None
        for at in ats:
            if some:
                self._db.execute("DELETE FROM rejoin_conflicts WHERE collection = ? AND id = ?", at)
            conflicts = self.touched[at].record.conflicts
            home = self.homes[at[0]]
            key = home.row_key(at[1]) if conflicts and home.tracked else None
            if key is None:
                continue
            settled = {name for op in self.pending(at) for name in _written(op)}
            row_key = self._db.execute(
                "SELECT " + " || ',' || ".join(["quote(?)"] * len(key)), key
            ).fetchone()[0]
            self._db.executemany(
                "INSERT OR REPLACE INTO rejoin_conflicts VALUES (?, ?, ?, ?, ?)",
                [
                    (at[0], row_key, name, at[1], compact(siblings))
                    for name, siblings in conflicts.items()
                    if name not in settled
                ],
            )


def _written(op: Op) -> JsonObject:
    fields = op.get("fields")
    return fields if isinstance(fields, dict) else {}


def open_ops(db: sqlite3.Connection, space: int) -> Iterable[Op]:
    """Own operations not folded and not rejected, in order."""
    for (body,) in db.execute(
        "SELECT body FROM rejoin_changes WHERE space = ? AND folded = 0"
        " AND state <> 'rejected' ORDER BY counter",
        (space,),
    ):
        yield from json.loads(body)["ops"]
