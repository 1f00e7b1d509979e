"""The tables Rejoin keeps beside the app's own, in the same file. All are named `rejoin_…`.

They are local: they never travel. `README.md` explains each to authors of other devices.
"""

from __future__ import annotations

import base64
import json
import sqlite3

from rejoin.errors import RejoinError

FORMAT = 3
SLOTS = 32
"""Values in one row of `rejoin_ops`. A wider table records several rows for one edit."""
KEY_NAMES = tuple(f"k{i}" for i in range(8))
SLOT_NAMES = tuple(f"v{i}" for i in range(SLOTS))
_KEYS = ", ".join(KEY_NAMES)

LOCAL_TABLES = f"""
-- Settings and the login, one value each.
CREATE TABLE IF NOT EXISTS rejoin_meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;

-- What the triggers ask, in one row. applying: 0 record; 1 stay silent; 2 stay silent, but note
-- what is touched. grp: the group of the open db.transaction(), 0 outside one.
CREATE TABLE IF NOT EXISTS rejoin_state (
  one INTEGER PRIMARY KEY CHECK (one = 1), applying INTEGER NOT NULL, grp INTEGER NOT NULL,
  last_grp INTEGER NOT NULL, clock_skew_ms INTEGER NOT NULL);
INSERT OR IGNORE INTO rejoin_state VALUES (1, 0, 0, 0, 0);

-- epoch, cursor and clock are the context of edits: the last complete pull. pull_cursor is what the
-- next pull asks from: the same, but 0 while a copy is fetched anew. counter: the highest used.
CREATE TABLE IF NOT EXISTS rejoin_spaces (
  no INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT, role TEXT, epoch INTEGER,
  cursor INTEGER NOT NULL DEFAULT 0, clock TEXT, pull_cursor INTEGER NOT NULL DEFAULT 0,
  counter INTEGER NOT NULL DEFAULT 0, discarded INTEGER, page TEXT,
  replacing INTEGER NOT NULL DEFAULT 0,
  withdrawn INTEGER NOT NULL DEFAULT 0, read_only INTEGER NOT NULL DEFAULT 0,
  error TEXT, synced_at INTEGER, head INTEGER);

-- kinds is NULL for a collection that no table here holds yet; its records are kept all the same.
CREATE TABLE IF NOT EXISTS rejoin_collections (
  no INTEGER PRIMARY KEY, space INTEGER NOT NULL, name TEXT NOT NULL, kinds TEXT, slots TEXT,
  columns TEXT, UNIQUE (space, name));

-- Written by triggers: edits as they happened, native values. kind: i insert, u update, d delete,
-- r the row that stood where an insert is about to put one.
CREATE TABLE IF NOT EXISTS rejoin_ops (
  seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, collection INTEGER NOT NULL, part INTEGER NOT NULL,
  grp INTEGER NOT NULL, at INTEGER NOT NULL, epoch INTEGER, cursor INTEGER NOT NULL, mask INTEGER,
  {_KEYS}, {", ".join(SLOT_NAMES)});

-- Rows that a REPLACE may be about to take away without a delete trigger.
CREATE TABLE IF NOT EXISTS rejoin_doomed (collection INTEGER NOT NULL, {_KEYS});

-- Rows written while remote changes were applied, where the app's triggers or cascades join in.
CREATE TABLE IF NOT EXISTS rejoin_touched (collection INTEGER NOT NULL, {_KEYS});

-- Numbered changes, their content frozen. state: pending, accepted, rejected. folded: the copy of
-- the server's state below has it already.
CREATE TABLE IF NOT EXISTS rejoin_changes (
  space INTEGER NOT NULL, counter INTEGER NOT NULL, at INTEGER NOT NULL, body TEXT NOT NULL,
  state TEXT NOT NULL DEFAULT 'pending', folded INTEGER NOT NULL DEFAULT 0,
  decided_at INTEGER, PRIMARY KEY (space, counter)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS rejoin_changes_pending ON rejoin_changes (space, counter, at)
  WHERE state = 'pending';
CREATE INDEX IF NOT EXISTS rejoin_changes_unfolded ON rejoin_changes (space, counter)
  WHERE folded = 0;

-- Changes the server (or a withdrawn space) refused, whole, until the app dismisses them.
CREATE TABLE IF NOT EXISTS rejoin_refused (
  space INTEGER NOT NULL, device TEXT NOT NULL, counter INTEGER NOT NULL, at INTEGER NOT NULL,
  body TEXT NOT NULL, error TEXT NOT NULL, PRIMARY KEY (space, device, counter)) WITHOUT ROWID;

-- Own deletions not acknowledged yet: a row inserted over one takes its context.
CREATE TABLE IF NOT EXISTS rejoin_deletes (
  collection INTEGER NOT NULL, id TEXT NOT NULL, context TEXT NOT NULL,
  PRIMARY KEY (collection, id)) WITHOUT ROWID;

-- The server's last known state of each living record, with fields no column shows.
CREATE TABLE IF NOT EXISTS rejoin_records (
  collection INTEGER NOT NULL, id TEXT NOT NULL, position INTEGER, fields TEXT NOT NULL,
  conflicts TEXT, PRIMARY KEY (collection, id)) WITHOUT ROWID;

-- Yjs updates of document fields. counter: NULL what the server has, else the own change that waits
-- with it, 0 where that is not numbered yet.
CREATE TABLE IF NOT EXISTS rejoin_documents (
  n INTEGER PRIMARY KEY, collection INTEGER NOT NULL, id TEXT NOT NULL, field TEXT NOT NULL,
  counter INTEGER, data BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS rejoin_documents_at ON rejoin_documents (collection, id, field, n);
CREATE INDEX IF NOT EXISTS rejoin_documents_own ON rejoin_documents (counter)
  WHERE counter > 0;
CREATE INDEX IF NOT EXISTS rejoin_documents_new ON rejoin_documents (collection, id, field)
  WHERE counter = 0;
CREATE INDEX IF NOT EXISTS rejoin_documents_so_far ON rejoin_documents (collection, id, field, n)
  WHERE counter = -1;

-- Cells in conflict, found by the triggers: row_key is quote(k0) || ',' || quote(k1) ...
CREATE TABLE IF NOT EXISTS rejoin_conflicts (
  collection INTEGER NOT NULL, row_key TEXT NOT NULL, field TEXT NOT NULL, id TEXT NOT NULL,
  siblings TEXT NOT NULL, PRIMARY KEY (collection, row_key, field)) WITHOUT ROWID;

-- Remote rows that a local constraint refuses; tried again at every sync. cursor: the last that
-- the app's user can have seen of the record.
CREATE TABLE IF NOT EXISTS rejoin_aside (
  collection INTEGER NOT NULL, id TEXT NOT NULL, reason TEXT NOT NULL, since INTEGER NOT NULL,
  cursor INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (collection, id)) WITHOUT ROWID;

-- Rows that are only here, because the server refused their insert. An edit sends them whole.
CREATE TABLE IF NOT EXISTS rejoin_strays (
  collection INTEGER NOT NULL, id TEXT NOT NULL, PRIMARY KEY (collection, id)) WITHOUT ROWID;

-- Rows that can't travel at all (a NULL in the key), in words.
CREATE TABLE IF NOT EXISTS rejoin_troubles (text TEXT PRIMARY KEY, at INTEGER NOT NULL)
  WITHOUT ROWID;

-- Pages of a pull that is not complete yet.
CREATE TABLE IF NOT EXISTS rejoin_staged (
  n INTEGER PRIMARY KEY, space INTEGER NOT NULL, records TEXT NOT NULL);
"""


def create(db: sqlite3.Connection) -> None:
    """Makes the local tables, all or none; refuses a file that a newer Rejoin has written."""
    known = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'rejoin_meta'").fetchone()
    if known:
        stored = get_meta(db, "format")
        if stored is not None and int(stored) > FORMAT:
            raise RejoinError(
                f"This file was written by a newer Rejoin (format {stored});"
                f" this one reads format {FORMAT}. Update the app."
            )
        if stored is not None and int(stored) == FORMAT:
            return
    db.execute("BEGIN IMMEDIATE")
    try:
        if known and get_meta(db, "format") == "1":
            db.execute("ALTER TABLE rejoin_aside ADD COLUMN cursor INTEGER NOT NULL DEFAULT 0")
        for statement in _statements(LOCAL_TABLES):
            db.execute(statement)
        if known:
            _move_documents(db)
            set_meta(db, "format", FORMAT)
        db.execute("INSERT OR IGNORE INTO rejoin_meta VALUES ('format', ?)", (FORMAT,))
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _move_documents(db: sqlite3.Connection) -> None:
    """Format 2 kept them as JSON beside the records; the column stays there, unread."""
    columns = [row[1] for row in db.execute("PRAGMA table_info(rejoin_records)")]
    if "documents" not in columns:
        return
    for no, record_id, text in db.execute(
        "SELECT collection, id, documents FROM rejoin_records WHERE documents IS NOT NULL"
    ).fetchall():
        db.executemany(
            "INSERT INTO rejoin_documents (collection, id, field, data) VALUES (?, ?, ?, ?)",
            [
                (no, record_id, field, base64.b64decode(update))
                for field, updates in json.loads(text).items()
                for update in updates
            ],
        )


def _statements(script: str) -> list[str]:
    """executescript() would commit first; one by one they stay in the caller's transaction."""
    lines = [line for line in script.splitlines() if not line.startswith("--")]
    return [part for part in "\n".join(lines).split(";") if part.strip()]


def get_meta(db: sqlite3.Connection, key: str) -> str | None:
    """One setting as text."""
    row = db.execute("SELECT value FROM rejoin_meta WHERE key = ?", (key,)).fetchone()
    return None if row is None or row[0] is None else str(row[0])


def set_meta(db: sqlite3.Connection, key: str, value: str | int | None) -> None:
    """Writes one setting; None removes it."""
    if value is None:
        db.execute("DELETE FROM rejoin_meta WHERE key = ?", (key,))
    else:
        db.execute("INSERT OR REPLACE INTO rejoin_meta VALUES (?, ?)", (key, value))
