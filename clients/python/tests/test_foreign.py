"""Table definitions come from whoever may write to the space: they make a table, and no more."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import Any

import pytest

import rejoin
from rejoin_testing.device import Maker
from rejoin_testing.fake_server import FakeServer

GOOD = "CREATE TABLE good (id TEXT PRIMARY KEY, n INTEGER DEFAULT (abs(-1)) CHECK (n > 0))"


def publish(server: FakeServer, table: str, sql: Any, indexes: Any = (), kinds: Any = None) -> None:
    server.write(
        {
            "op": "put",
            "collection": "_rejoin_schema",
            "id": table,
            "new": True,
            "fields": {"sql": sql, "indexes": indexes, "kinds": kinds or {}, "columns": ["n"]},
        }
    )


@pytest.mark.parametrize(
    ("table", "sql", "index"),
    [
        ("t", "ATTACH DATABASE 'stolen.sqlite' AS x", None),
        ("t", "DROP TABLE mine", None),
        ("t", "CREATE TABLE other (id TEXT PRIMARY KEY)", None),
        ("t", "CREATE TABLE t (id TEXT PRIMARY KEY); DROP TABLE mine", None),
        ("t", "CREATE TABLE t AS SELECT * FROM rejoin_meta", None),
        ("t", "CREATE TEMP TABLE t (id TEXT PRIMARY KEY)", None),
        ("t", "CREATE VIEW t AS SELECT * FROM rejoin_meta", None),
        ("t", "CREATE VIRTUAL TABLE t USING fts5(x)", None),
        ("t", "PRAGMA writable_schema = ON", None),
        ("t", "DELETE FROM mine", None),
        ("t", "VACUUM INTO 'copy.sqlite'", None),
        ("t", "COMMIT", None),
        ("t", "no SQL at all \0", None),
        ("t", "CREATE TABLE t (id TEXT PRIMARY KEY, x DEFAULT (load_extension('evil')))", None),
        ("t", "CREATE TABLE t (id TEXT PRIMARY KEY, x CHECK (randomblob(1000000000) > x))", None),
        ("t", "CREATE TABLE t (id TEXT PRIMARY KEY, k REFERENCES rejoin_meta (key))", None),
        ("t", "CREATE TABLE t (x TEXT)", None),
        ("rejoin_t", "CREATE TABLE rejoin_t (id TEXT PRIMARY KEY)", None),
        ("t", "CREATE TABLE t (id TEXT PRIMARY KEY)", "CREATE INDEX i ON mine (id)"),
        ("t", "CREATE TABLE t (id TEXT PRIMARY KEY)", "CREATE UNIQUE INDEX i ON rejoin_meta (key)"),
        (
            "t",
            "CREATE TABLE t (id TEXT PRIMARY KEY)",
            "CREATE INDEX i ON t (hex(zeroblob(100000000)))",
        ),
        (
            "t",
            "CREATE TABLE t (id TEXT PRIMARY KEY)",
            "CREATE TRIGGER x AFTER INSERT ON t BEGIN DELETE FROM mine; END",
        ),
        ("t", "CREATE TABLE t (id TEXT PRIMARY KEY)", "ALTER TABLE mine RENAME TO yours"),
    ],
)
def test_a_hostile_definition_is_refused_whole_and_in_words(
    device: Maker, server: FakeServer, table: str, sql: str, index: str | None
) -> None:
    db = device(sql="")
    db.execute("CREATE TABLE mine (id TEXT PRIMARY KEY)")
    db.execute("INSERT INTO mine VALUES ('stays')")
    publish(server, "good", GOOD)
    publish(server, table, sql, [index] if index else [])
    db.sync()
    before = db.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
    with pytest.raises(rejoin.RejoinError, match=r"is refused|has no primary key"):
        db.make_tables()
    assert db.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall() == before
    assert db.execute("SELECT * FROM mine").fetchall() == [("stays",)]
    assert len(db.execute("PRAGMA database_list").fetchall()) == 1
    db.execute("DROP TABLE mine")  # the file is the app's own again


def test_a_plain_definition_with_all_that_tables_have_is_made(
    device: Maker, server: FakeServer
) -> None:
    db = device(sql="")
    publish(server, "good", GOOD, ["CREATE INDEX g ON good (lower(id)) WHERE n > 1"])
    publish(
        server,
        "more",
        "CREATE TABLE more (id INTEGER PRIMARY KEY AUTOINCREMENT, n REFERENCES good (id),"
        " at TEXT DEFAULT CURRENT_TIMESTAMP, half AS (n / 2), UNIQUE (n, at))",
    )
    publish(server, "odd", 7)
    db.sync()
    assert db.make_tables() == ["good", "more"]
    db.execute("INSERT INTO good VALUES ('a', 2)")
    with pytest.raises(sqlite3.IntegrityError):
        db.execute("INSERT INTO good VALUES ('b', 0)")


@pytest.mark.parametrize("odd", [7, "x", {"a": 1}, [["n", 1]], [{}]])
def test_odd_lists_and_kinds_break_nothing(device: Maker, server: FakeServer, odd: Any) -> None:
    db = device(sql="")
    publish(server, "good", GOOD, odd, odd if not isinstance(odd, dict) else {"n": odd})
    db.sync()
    with suppress(rejoin.RejoinError):
        db.make_tables()
    assert db.status().pending == 0
