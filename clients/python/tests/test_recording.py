"""What plain SQL is recorded as."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

import rejoin
from rejoin.schema import SLOTS
from rejoin_testing.device import Maker
from rejoin_testing.fake_server import FakeServer


def recorded(db: rejoin.Database) -> list[list[dict[str, Any]]]:
    """The operations of all changes so far, change by change."""
    return [cast("list[dict[str, Any]]", change["ops"]) for change in reversed(db.log(1000))]


def short(db: rejoin.Database) -> list[str]:
    """Each operation in a few words."""
    made = []
    for ops in recorded(db):
        for op in ops:
            if op["op"] == "put":
                made.append(
                    f"{'new' if op.get('new') else 'put'} {op['id']}"
                    f" {','.join(op.get('fields', {}))}"
                )
            else:
                made.append(
                    f"{op['op']} {op['id']}"
                    + (f" {op['field']} {op.get('by', op.get('values'))}" if "field" in op else "")
                )
    return made


def forget(db: rejoin.Database) -> None:
    db.log()
    db.connection.execute("DELETE FROM rejoin_changes")


def test_an_insert_is_a_new_row_with_every_register(device: Maker) -> None:
    db = device()
    db.execute("INSERT INTO tasks (id, title, votes, tags) VALUES ('t1', 'Milk', 2, '[\"x\"]')")
    assert recorded(db) == [
        [
            {
                "op": "put",
                "collection": "tasks",
                "id": "t1",
                "new": True,
                "fields": {"title": "Milk", "done": None, "body": None, "anything": None},
            },
            {"op": "increment", "collection": "tasks", "id": "t1", "field": "votes", "by": 2},
            {"op": "add", "collection": "tasks", "id": "t1", "field": "tags", "values": ["x"]},
        ]
    ]


def test_an_update_records_only_what_it_really_changed(device: Maker) -> None:
    db = device()
    db.execute("INSERT INTO tasks (id, title, done) VALUES ('t1', 'Milk', 0)")
    forget(db)
    db.execute("UPDATE tasks SET title = 'Milk', done = 1, votes = votes + 3, tags = '[1]'")
    db.execute("UPDATE tasks SET title = 'Milk', done = 1")
    assert short(db) == ["put t1 done", "increment t1 votes 3", "add t1 tags [1]"]


def test_a_change_of_letter_case_or_of_type_alone_is_a_change(device: Maker) -> None:
    db = device(sql="CREATE TABLE tasks (id TEXT PRIMARY KEY, title TEXT COLLATE NOCASE, x)")
    db.execute("INSERT INTO tasks VALUES ('t', 'milk', 1)")
    forget(db)
    db.execute("UPDATE tasks SET title = 'Milk'")
    db.execute("UPDATE tasks SET x = 1.0")
    assert short(db) == ["put t title", "put t x"]


def test_a_transaction_is_one_change_and_a_statement_is_one(device: Maker) -> None:
    db = device()
    with db.transaction():
        db.execute("INSERT INTO tasks (id) VALUES ('a')")
        db.execute("INSERT INTO tasks (id) VALUES ('b')")
    db.execute("UPDATE tasks SET title = 'x'")
    db.execute("DELETE FROM tasks")
    assert [len(ops) for ops in recorded(db)] == [2, 2, 2]


def test_a_transaction_inside_the_apps_own_is_one_change(device: Maker) -> None:
    db = device()
    db.connection.execute("BEGIN")
    with db.transaction():
        db.execute("INSERT INTO tasks (id) VALUES ('a')")
        with db.transaction():
            db.execute("INSERT INTO tasks (id) VALUES ('b')")
    with pytest.raises(sqlite3.IntegrityError), db.transaction():
        db.execute("INSERT INTO tasks (id) VALUES ('c'), ('c')")
    db.connection.execute("COMMIT")
    assert [len(ops) for ops in recorded(db)] == [2]


def test_a_transaction_rolled_back_records_nothing(device: Maker) -> None:
    db = device()
    with pytest.raises(sqlite3.IntegrityError), db.transaction():
        db.execute("INSERT INTO tasks (id) VALUES ('a'), ('a')")
    assert recorded(db) == []
    assert db.connection.execute("SELECT grp FROM rejoin_state").fetchone() == (0,)


def test_what_is_undone_within_a_transaction_is_not_told(device: Maker) -> None:
    db = device()
    with db.transaction():
        db.execute("INSERT INTO tasks (id) VALUES ('a')")
        db.execute("UPDATE tasks SET title = 'x'")
        db.execute("DELETE FROM tasks")
    assert recorded(db) == []


def test_deleted_and_inserted_in_one_transaction_is_a_new_row(device: Maker) -> None:
    db = device()
    db.execute("INSERT INTO tasks (id) VALUES ('a')")
    forget(db)
    with db.transaction():
        db.execute("DELETE FROM tasks")
        db.execute("INSERT INTO tasks (id, title) VALUES ('a', 'again')")
    assert short(db) == ["new a title,done,body,anything"]


def test_another_connection_is_recorded_statement_by_statement(
    device: Maker, shell: Callable[..., sqlite3.Connection]
) -> None:
    db, other = device(), shell()
    other.execute("INSERT INTO tasks (id) VALUES ('a'), ('b'), ('c')")
    assert [len(ops) for ops in recorded(db)] == [3]


@pytest.mark.parametrize("recursive", [0, 1])
def test_a_replace_is_an_update_of_the_columns_that_differ(device: Maker, recursive: int) -> None:
    db = device()
    db.connection.execute(f"PRAGMA recursive_triggers = {recursive}")
    db.execute("INSERT INTO tasks VALUES ('t1', 'Milk', 0, NULL, NULL, 5, '[1]')")
    forget(db)
    db.execute("INSERT OR REPLACE INTO tasks VALUES ('t1', 'Milk', 1, NULL, NULL, 7, '[2]')")
    assert short(db) == [
        "put t1 done",
        "increment t1 votes 2",
        "add t1 tags [2]",
        "remove t1 tags [1]",
    ]


@pytest.mark.parametrize("recursive", [0, 1])
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT OR REPLACE INTO t VALUES ('b', 'same')",
        "UPDATE OR REPLACE t SET slug = 'same' WHERE id = 'b'",
    ],
)
def test_rows_that_a_replace_takes_away_are_deletions(
    device: Maker, recursive: int, statement: str
) -> None:
    db = device(sql="CREATE TABLE t (id TEXT PRIMARY KEY, slug TEXT UNIQUE)", table="t")
    db.connection.execute(f"PRAGMA recursive_triggers = {recursive}")
    db.execute("INSERT INTO t VALUES ('a', 'same')")
    if statement.startswith("UPDATE"):
        db.execute("INSERT INTO t VALUES ('b', 'other')")
    forget(db)
    db.execute(statement)
    assert short(db)[0] == "delete a"
    assert len(short(db)) == 2
    assert db.execute("SELECT * FROM t").fetchall() == [("b", "same")]


def test_upsert_and_ignore_record_what_they_did(device: Maker) -> None:
    db = device()
    db.execute("INSERT INTO tasks (id, title) VALUES ('a', 'x')")
    forget(db)
    db.execute("INSERT OR IGNORE INTO tasks (id, title) VALUES ('a', 'ignored')")
    db.execute(
        "INSERT INTO tasks (id, title) VALUES ('a', 'y') ON CONFLICT (id)"
        " DO UPDATE SET title = excluded.title"
    )
    assert short(db) == ["put a title"]


def test_another_key_is_a_deletion_and_a_new_row(device: Maker) -> None:
    db = device(sql="CREATE TABLE t (id INTEGER PRIMARY KEY, x)", table="t")
    db.execute("INSERT INTO t VALUES (1, 'x')")
    forget(db)
    db.execute("UPDATE t SET id = 2")
    assert short(db) == ["delete 1", "new 2 x"]


def test_cascades_are_recorded_in_the_same_change(device: Maker) -> None:
    db = device(
        sql="CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (id INTEGER PRIMARY"
        " KEY, p INTEGER REFERENCES p ON DELETE CASCADE, q INTEGER REFERENCES p ON"
        " DELETE SET NULL)",
        table="p",
    )
    db.track("c")
    db.execute("INSERT INTO p VALUES (1), (2)")
    db.execute("INSERT INTO c VALUES (1, 1, 2), (2, 2, 1)")
    forget(db)
    db.execute("DELETE FROM p WHERE id = 1")
    assert sorted(short(db)) == ["delete 1", "delete 1", "put 2 q"]
    assert len(recorded(db)) == 1


@pytest.mark.parametrize("first", ["app", "rejoin"])
def test_a_trigger_of_the_app_on_the_same_row_is_recorded_in_order(
    device: Maker, first: str
) -> None:
    stamp = (
        "CREATE TRIGGER stamp AFTER {} ON t BEGIN UPDATE t SET stamp = 'by ' || NEW.x,"
        " x = upper(NEW.x) WHERE id = NEW.id; END;"
    )
    table = "CREATE TABLE t (id TEXT PRIMARY KEY, x TEXT, stamp TEXT);"
    if first == "app":
        db = device(sql=table + stamp.format("INSERT"), table="t")
    else:
        db = device(sql=table, table="t")
        db.connection.execute(stamp.format("INSERT"))
        db.track("t")
    db.execute("INSERT INTO t (id, x) VALUES ('a', 'low')")
    assert recorded(db)[0] == [
        {
            "op": "put",
            "collection": "t",
            "id": "a",
            "new": True,
            "fields": {"x": "LOW", "stamp": "by low"},
        }
    ]


def test_wide_tables_are_recorded_whole(device: Maker) -> None:
    names = [f"c{i}" for i in range(SLOTS * 2 + 5)]
    db = device(
        sql=f"CREATE TABLE w (id INTEGER PRIMARY KEY, {', '.join(names)})",
        table="w",
        kinds={names[SLOTS - 1]: "set", names[SLOTS + 3]: "counter"},
    )
    db.execute(
        f"INSERT INTO w VALUES (1, {', '.join(['?'] * len(names))})",
        [None if i == SLOTS - 1 else i for i in range(len(names))],
    )
    put = recorded(db)[0][0]
    assert put["fields"] == {n: i for i, n in enumerate(names) if i not in (SLOTS - 1, SLOTS + 3)}
    forget(db)
    db.execute(
        f"UPDATE w SET {names[-1]} = 'z', {names[0]} = 'y', {names[SLOTS - 1]} = '[7]',"
        f" {names[SLOTS + 3]} = {names[SLOTS + 3]} + 2"
    )
    assert sorted(short(db)) == sorted(
        [
            f"put 1 {names[0]},{names[-1]}",
            f"increment 1 {names[SLOTS + 3]} 2",
            f"add 1 {names[SLOTS - 1]} [7]",
        ]
    )


def test_a_table_without_rowid_and_a_table_of_keys_alone_work(device: Maker) -> None:
    db = device(
        sql="CREATE TABLE t (a INTEGER, b TEXT, PRIMARY KEY (a, b)) WITHOUT ROWID", table="t"
    )
    db.execute("INSERT INTO t VALUES (1, 'x'), (1, '2')")
    db.execute("UPDATE t SET b = 'y' WHERE b = 'x'")
    db.execute("DELETE FROM t WHERE b = '2'")
    assert short(db) == [
        'new [1,"x"] ',
        'new [1,"2"] ',
        'delete [1,"x"]',
        'new [1,"y"] ',
        'delete [1,"2"]',
    ]


def test_generated_columns_stay_at_home(device: Maker) -> None:
    db = device(
        sql="CREATE TABLE t (id TEXT PRIMARY KEY, x, y AS (x * 2), z AS (x) STORED)", table="t"
    )
    db.execute("INSERT INTO t (id, x) VALUES ('a', 1)")
    assert recorded(db)[0][0]["fields"] == {"x": 1}


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("CREATE TABLE t (x)", "no primary key"),
        ("CREATE VIEW t AS SELECT 1 AS x", "view"),
        ("CREATE TABLE other (id PRIMARY KEY)", "no table 't'"),
        (
            "CREATE TABLE t (a, b, c, d, e, f, g, h, i, PRIMARY KEY (a, b, c, d, e, f, g, h, i))",
            "at most 8",
        ),
        ("CREATE TABLE t (id TEXT PRIMARY KEY COLLATE NOCASE)", "collation"),
        ("CREATE TABLE t (id TEXT COLLATE RTRIM, x, PRIMARY KEY (x, id))", "collation"),
        ("CREATE TABLE t (id TEXT, PRIMARY KEY (id COLLATE NOCASE)) WITHOUT ROWID", "collation"),
        ("CREATE TABLE t (id TEXT COLLATE NOCASE, PRIMARY KEY (id COLLATE BINARY))", "collation"),
    ],
)
def test_what_cannot_be_tracked_is_refused_in_words(device: Maker, sql: str, words: str) -> None:
    db = device(sql="")
    db.connection.execute(sql)
    with pytest.raises(rejoin.TrackingError, match=words):
        db.track("t")


def test_a_null_key_is_reported_and_harms_nothing(device: Maker) -> None:
    db = device()
    db.execute("INSERT INTO tasks (id) VALUES (NULL)")
    db.execute("INSERT INTO tasks (id) VALUES ('a')")
    db.sync()
    assert "NULL in its primary key" in str(db.status())
    assert db.status().pending == 0


def test_a_column_that_appears_is_recorded_from_then_on(device: Maker) -> None:
    db = device()
    db.execute("INSERT INTO tasks (id) VALUES ('a'), ('b')")
    forget(db)
    db.connection.execute("ALTER TABLE tasks ADD COLUMN colour TEXT")
    db.execute("UPDATE tasks SET colour = 'red' WHERE id = 'a'")  # before the triggers know it
    db.track("tasks", votes="counter", tags="set")
    db.execute("UPDATE tasks SET colour = 'blue' WHERE id = 'b'")
    assert short(db) == ["put a colour", "put b colour"]


def test_a_column_can_be_dropped_or_renamed(device: Maker) -> None:
    db = device()
    db.alter("ALTER TABLE tasks DROP COLUMN body")
    db.alter("ALTER TABLE tasks RENAME COLUMN anything TO something")
    db.execute("INSERT INTO tasks (id, something) VALUES ('a', 1)")
    assert recorded(db)[0][0]["fields"] == {"title": None, "done": None, "something": 1}


def test_a_transaction_longer_than_a_change_travels_as_several(device: Maker) -> None:
    db = device()
    with db.transaction():
        for i in range(1500):
            db.execute("INSERT INTO tasks (id) VALUES (?)", (f"t{i}",))
    assert [len(ops) for ops in recorded(db)] == [1000, 500]


def test_a_counter_in_fractions_is_sent_to_be_refused(device: Maker) -> None:
    db = device()
    db.execute("INSERT INTO tasks (id, votes) VALUES ('a', 1.5)")
    assert "increment a votes 1.5" in short(db)


def test_rows_there_already_become_changes_once(device: Maker) -> None:
    db = device(sql="")
    db.connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x)")
    db.execute("INSERT INTO t SELECT value, 'x' FROM json_each('[1,2,3]')")
    assert db.track("t") == 3
    assert db.track("t") == 0
    assert short(db) == ["new 1 x", "new 2 x", "new 3 x"]


def test_a_file_made_here_is_its_owners_and_another_keeps_its_mode(tmp_path: Path) -> None:
    with rejoin.open(tmp_path / "new.sqlite") as db:
        db.connection.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE t (id TEXT PRIMARY KEY)")
        assert {p.name: p.stat().st_mode & 0o777 for p in tmp_path.iterdir()} == {
            "new.sqlite": 0o600,
            "new.sqlite-wal": 0o600,
            "new.sqlite-shm": 0o600,
        }
    (tmp_path / "old.sqlite").touch()
    (tmp_path / "old.sqlite").chmod(0o640)
    rejoin.open(tmp_path / "old.sqlite").close()
    assert (tmp_path / "old.sqlite").stat().st_mode & 0o777 == 0o640


def test_a_query_that_begins_with_with_takes_no_lock(
    device: Maker, shell: Callable[..., sqlite3.Connection]
) -> None:
    db = device()
    other = shell()
    other.execute("BEGIN IMMEDIATE")
    assert db.execute("WITH x AS (SELECT 1 AS one) SELECT one FROM x").fetchall() == [(1,)]
    other.execute("ROLLBACK")
    db.execute("WITH x (id) AS (VALUES ('a'), ('b')) INSERT INTO tasks (id) SELECT id FROM x")
    db.execute("  with y AS (SELECT 'a' AS id) delete FROM tasks WHERE id IN (SELECT id FROM y)")
    assert not db.connection.in_transaction
    assert [c["op"] for change in recorded(db) for c in change] == ["put", "put", "delete"]


def test_a_column_keeps_the_kind_that_was_sent(device: Maker) -> None:
    db = device()
    db.track("tasks", votes="counter")  # no one has said anything yet: tags may change still
    db.track("tasks", kinds={"votes": "counter", "tags": "set"})
    db.execute("INSERT INTO tasks (id, votes) VALUES ('t1', 1)")
    db.sync()
    with pytest.raises(rejoin.TrackingError, match="votes has been synchronised as a counter"):
        db.track("tasks", tags="set")
    assert db.attach() == {"tasks": 0}
    db.execute("UPDATE tasks SET votes = votes + 1")
    assert recorded(db)[-1][0]["op"] == "increment"


@pytest.mark.parametrize("wrong", ["many", b"\x01"])
def test_what_is_no_number_in_a_counter_is_sent_to_be_refused(
    device: Maker, server: FakeServer, wrong: str | bytes
) -> None:
    def refuse(change: Any) -> Any:
        bad = [o for o in change["ops"] if not isinstance(o.get("by", 1), int)]
        return {"code": "invalid_value", "detail": "no whole number"} if bad else None

    server.refuse = refuse
    db = device()
    db.execute("INSERT INTO tasks (id, votes) VALUES ('t1', 5)")
    db.sync()
    db.execute("UPDATE tasks SET votes = ?", (wrong,))
    db.execute("INSERT INTO tasks (id, votes) VALUES ('t2', ?)", (wrong,))
    db.execute("INSERT OR REPLACE INTO tasks (id, votes) VALUES ('t1', ?)", (wrong,))
    db.sync()
    assert [r.detail for r in db.status().refused] == ["no whole number"] * 2
    assert db.execute("SELECT votes FROM tasks WHERE id = 't1'").fetchall() == [(5,)]
