"""Remote changes into the app's tables: one local transaction, foreign keys deferred.

`applying()` is the frame: it seals what was recorded, silences the triggers, and commits. Killed
anywhere inside, SQLite rolls all of it back, the silence too. Rows that would break a foreign key
are found when the commit refuses, taken out, reported in `rejoin_aside`, and tried again later.
"""

from __future__ import annotations

import gc
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rejoin.collections import Collection
from rejoin.errors import RejoinError
from rejoin.outbox import seal
from rejoin.replica import At, Replica
from rejoin.rows import Key, Write, Writer, column_value, read_row
from rejoin.rowwatch import RowWatch, Watch
from rejoin.schema import KEY_NAMES
from rejoin.shape import quote
from rejoin.values import SqlValue

COMMIT_TRIES = 50
"""Each try takes out all rows that break a foreign key; a chain of so many generations is none."""
REPAIR_ROUNDS = 3
"""The app's own triggers may answer a repair with another write; no longer than this."""


@contextmanager
def writing(db: sqlite3.Connection) -> Iterator[None]:
    """A write transaction, rolled back on any error."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


class Applying:
    """The inside of one transaction that writes to the app's tables."""

    def __init__(
        self, db: sqlite3.Connection, space: int, now_ms: int, watch: Watch | None
    ) -> None:
        self.db = db
        self.now_ms = now_ms
        self.replica = Replica(db, space)
        self.writer = Writer(db, self.replica.homes.values())
        self.strays = {
            (no, record_id)
            for no, record_id in db.execute("SELECT collection, id FROM rejoin_strays")
        }
        self._space = space
        self._watching = RowWatch(db, space, watch) if watch else None
        self._seen: int = db.execute(
            "SELECT cursor FROM rejoin_spaces WHERE no = ?", (space,)
        ).fetchone()[0]
        """The cursor before this transaction moves it."""

    def finish(self, watched: bool) -> None:
        """Writes what the tables shall show, and stores the kept states."""
        for no, record_id in self.db.execute("SELECT collection, id FROM rejoin_aside").fetchall():
            if (home := self.replica.homes.get(no)) and home.space == self._space:
                self.replica.show((no, record_id))
        writes = self.replica.writes(self.strays)
        if self._watching:
            self._watching.before(self.writer, self.replica)
        self.writer.close()
        self.writer = Writer(self.db, self.replica.homes.values())
        refused = self.writer.write(writes)
        if watched:
            refused += self._repair({(w.home.no, w.id) for w, _ in refused})
        self._set_aside(writes, refused)
        self.replica.store()

    def _set_aside(self, writes: Sequence[Write], refused: Sequence[tuple[Write, str]]) -> None:
        some = self.db.execute("SELECT 1 FROM rejoin_aside LIMIT 1").fetchone() is not None
        bad = {(w.home.no, w.id) for w, _ in refused}
        if some:
            self.db.executemany(
                "DELETE FROM rejoin_aside WHERE collection = ? AND id = ?",
                [(w.home.no, w.id) for w in writes if (w.home.no, w.id) not in bad],
            )
        self.db.executemany(
            "INSERT INTO rejoin_aside VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET reason = excluded.reason",
            [(w.home.no, w.id, reason, self.now_ms, self._seen) for w, reason in refused],
        )

    def _repair(self, refused: set[At]) -> list[tuple[Write, str]]:
        """Cascades and the app's triggers joined in: what they changed is set right again.

        The device that made the change has recorded what its own triggers did; doing it twice
        would make every device different.
        """
        failed: list[tuple[Write, str]] = []
        for _ in range(REPAIR_ROUNDS):
            wrong = [w for at in self._touched() if at not in refused and (w := self._wrong(at))]
            if not wrong:
                break
            failed = self.writer.write(wrong)
            refused |= {(w.home.no, w.id) for w, _ in failed}
        self.db.execute("DELETE FROM rejoin_touched")
        return failed

    def _touched(self) -> list[At]:
        rows = self.db.execute(
            f"SELECT DISTINCT collection, {', '.join(KEY_NAMES)} FROM rejoin_touched"
        ).fetchall()
        self.db.execute("DELETE FROM rejoin_touched")
        made = []
        for no, *key in rows:
            home = self.replica.homes.get(no)
            if home and home.tracked and home.space == self._space:
                made.append((no, home.record_id(tuple(key[: len(home.key_is_text)]))))
        return made

    def _wrong(self, at: At) -> Write | None:
        """The write that sets a row right; None where it stands as it shall."""
        home = self.replica.homes[at[0]]
        fields, whole = self.replica.shown(at)
        key = home.row_key(at[1])
        if not whole or key is None or (fields is None and at in self.strays):
            return None
        row = read_row(self.db, home, key)
        shape = self.writer.shape(home)
        if shape is None or (row is None and fields is None):
            return None
        if row is None or fields is None:
            return Write(home, at[1], fields)
        # Only what is wrong: writing more could set off the same trigger again.
        wrong = {
            column.name
            for column in shape.columns
            for given, value in [column_value(column, fields)]
            if given and row[column.name] != value
        }
        return Write(home, at[1], fields, frozenset(wrong)) if wrong else None

    def commit(self) -> None:
        """Commits; takes rows out that break a foreign key, as often as it takes."""
        for _ in range(COMMIT_TRIES):
            self.db.execute("UPDATE rejoin_state SET applying = 0")
            try:
                self.db.execute("COMMIT")
                return
            except sqlite3.IntegrityError:
                self.db.execute("UPDATE rejoin_state SET applying = 1")
                if not self._take_out():
                    raise
        raise RejoinError("Rows that break foreign keys keep appearing; nothing was applied.")

    def _take_out(self) -> bool:
        """Removes (or, where the app's own rows need them, puts back) rows. False: none found."""
        homes = {h.name.lower(): h for h in self.replica.homes.values() if h.tracked}
        found = False
        for child, fk in sorted(
            {(str(r[0]), int(r[3])) for r in self.db.execute("PRAGMA foreign_key_check").fetchall()}
        ):
            links = [
                r for r in self.db.execute(f"PRAGMA foreign_key_list({quote(child)})") if r[0] == fk
            ]
            parent = str(links[0][2])
            home = homes.get(child.lower())
            if home is None or home.space != self._space:
                found |= self._put_parents_back(homes.get(parent.lower()), child)
                continue
            for key in self._orphans(home, parent, links):
                where = " AND ".join(f"{quote(k)} = ?" for k in self._key_names(home))
                self.db.execute(f"DELETE FROM {quote(child)} WHERE {where}", key)
                self._aside(
                    home,
                    home.record_id(key),
                    f"FOREIGN KEY constraint failed: no such row in {parent}",
                )
                found = True
        return found

    def _key_names(self, home: Collection) -> tuple[str, ...]:
        shape = self.writer.shape(home)
        return shape.key if shape else ()

    def _orphans(
        self, home: Collection, parent: str, links: list[tuple[SqlValue, ...]]
    ) -> list[Key]:
        targets = [r[4] for r in links]
        if any(t is None for t in targets):
            rows = self.db.execute(f"PRAGMA table_info({quote(parent)})").fetchall()
            targets = [r[1] for r in sorted(rows, key=lambda r: int(r[5])) if r[5]]
        pairs = [(quote(str(r[3])), quote(str(t))) for r, t in zip(links, targets, strict=True)]
        names = ", ".join(f"c.{quote(k)}" for k in self._key_names(home))
        return [
            tuple(row)
            for row in self.db.execute(
                f"SELECT {names} FROM {quote(home.name)} AS c WHERE"
                f" {' AND '.join(f'c.{a} IS NOT NULL' for a, _ in pairs)} AND NOT EXISTS (SELECT 1"
                f" FROM {quote(parent)} AS p WHERE"
                f" {' AND '.join(f'p.{b} = c.{a}' for a, b in pairs)})"
            ).fetchall()
        ]

    def changed_all(self, home: Collection) -> None:
        """All rows of a table are others now, without a look at each."""
        if self._watching:
            self._watching.all_of(home)

    def tell(self) -> None:
        """After the commit: who watches hears which rows are not as they were."""
        if self._watching:
            self._watching.after(self.writer)

    def _put_parents_back(self, parent: Collection | None, child: str) -> bool:
        if parent is None:
            return False
        gone = list(self.writer.deleted.get(parent.no, {}))
        for record_id in gone:
            self.writer.put_back(parent, record_id)
            self._aside(
                parent,
                record_id,
                f"FOREIGN KEY constraint failed: rows of {child} may still need it",
            )
        return bool(gone)

    def _aside(self, home: Collection, record_id: str, reason: str) -> None:
        self.db.execute(
            "INSERT INTO rejoin_aside VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET reason = excluded.reason",
            (home.no, record_id, reason, self.now_ms, self._seen),
        )


@contextmanager
def _without_collector() -> Iterator[None]:
    """Thousands of dicts without a cycle among them: looking for cycles doubles the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@contextmanager
def applying(
    db: sqlite3.Connection, space: int, now_ms: int, watch: Watch | None = None
) -> Iterator[Applying]:
    """The transaction around everything that writes remote changes into the app's tables."""
    db.execute("BEGIN IMMEDIATE")
    try:
        with _without_collector():
            db.execute("PRAGMA defer_foreign_keys = ON")
            seal(db)
            watched = joins_in(db)
            db.execute("UPDATE rejoin_state SET applying = ?", (2 if watched else 1,))
            frame = Applying(db, space, now_ms, watch)
            yield frame
            try:
                frame.finish(watched)
                frame.commit()
            finally:
                frame.writer.close()
        frame.tell()
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def joins_in(db: sqlite3.Connection) -> bool:
    """Whether writing one row may change another: triggers of the app, or cascades."""
    if db.execute(
        "SELECT 1 FROM sqlite_master WHERE type = 'trigger'"
        " AND name NOT LIKE 'rejoin\\_%' ESCAPE '\\' LIMIT 1"
    ).fetchone():
        return True
    if not db.execute("PRAGMA foreign_keys").fetchone()[0]:
        return False
    return (
        db.execute(
            "SELECT 1 FROM sqlite_master AS m, pragma_foreign_key_list(m.name) AS f"
            " WHERE m.type = 'table' AND (f.on_delete IN ('CASCADE', 'SET NULL', 'SET DEFAULT')"
            " OR f.on_update IN ('CASCADE', 'SET NULL', 'SET DEFAULT')) LIMIT 1"
        ).fetchone()
        is not None
    )
