"""Remote changes in the app's tables: constraints, cascades, triggers, columns to come."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

import rejoin
from rejoin_testing.device import Maker
from rejoin_testing.fake_server import FakeServer

FAMILY = (
    "CREATE TABLE p (id INTEGER PRIMARY KEY, name TEXT);"
    "CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER NOT NULL REFERENCES p{})"
)


def op(kind: str, collection: str, record_id: object, **fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"op": kind, "collection": collection, "id": str(record_id)}
    return (
        made
        | (
            {"new": True, "fields": fields}
            if kind == "new"
            else {"fields": fields}
            if kind == "put"
            else {}
        )
        | ({"op": "put"} if kind == "new" else {})
    )


def family(device: Maker, action: str = "") -> rejoin.Database:
    db = device(sql=FAMILY.format(action), table="p")
    db.track("c")
    return db


def all_of(db: rejoin.Database, table: str) -> list[tuple[Any, ...]]:
    return db.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()


def test_children_may_come_before_their_parents(device: Maker, server: FakeServer) -> None:
    db = family(device)
    server.write(op("new", "c", 1, p=7))
    server.write(op("new", "p", 7, name="late"))
    db.sync()
    assert all_of(db, "c") == [(1, 7)]
    assert db.status().aside == []


def test_a_child_without_parent_waits_aside_until_it_comes(
    device: Maker, server: FakeServer
) -> None:
    db = family(device)
    server.write(op("new", "c", 1, p=7), op("new", "p", 1, name="x"), op("new", "c", 2, p=1))
    db.sync()
    assert all_of(db, "c") == [(2, 1)]
    (aside,) = db.status().aside
    assert (aside.table, aside.id) == ("c", "1")
    assert "no such row in p" in str(db.status())
    server.write(op("new", "p", 7, name="late"))
    db.sync()
    assert all_of(db, "c") == [(1, 7), (2, 1)]
    assert db.status().aside == []
    assert db.status().pending == 0


def test_a_row_set_aside_is_tried_again_after_a_local_change(
    device: Maker, server: FakeServer
) -> None:
    db = family(device)
    server.write(op("new", "c", 1, p=7))
    db.sync()
    db.execute("INSERT INTO p VALUES (7, 'made here')")
    db.sync()
    assert all_of(db, "c") == [(1, 7)]


def test_parents_and_children_may_go_in_any_order(device: Maker, server: FakeServer) -> None:
    for n, action in enumerate(["", " ON DELETE RESTRICT", " ON DELETE CASCADE"]):
        db = device(f"x{n}", sql=FAMILY.format(action), table="p")
        db.track("c")
        if n == 0:
            server.write(op("new", "p", 1, name="x"), op("new", "c", 1, p=1))
        db.sync()
    server.write(op("delete", "p", 1))
    server.write(op("delete", "c", 1))
    for n in range(3):
        db = device(f"x{n}", sql="", login=False)
        db.sync()
        assert (all_of(db, "p"), all_of(db, "c"), db.status().aside) == ([], [], [])


def test_a_cascade_takes_no_row_that_the_server_still_has(
    device: Maker, server: FakeServer
) -> None:
    db = family(device, " ON DELETE CASCADE")
    server.write(
        op("new", "p", 1, name="x"),
        op("new", "c", 1, p=1),
        op("new", "p", 2, name="y"),
        op("new", "c", 2, p=1),
    )
    db.sync()
    server.write(op("put", "c", 2, p=2), op("delete", "p", 1))
    db.sync()
    assert all_of(db, "c") == [(2, 2)]
    assert [a.id for a in db.status().aside] == ["1"]
    assert db.status().pending == 0


def test_a_deletion_that_an_untracked_table_forbids_waits_aside(
    device: Maker, server: FakeServer
) -> None:
    db = device(sql=FAMILY.format(""), table="p")
    server.write(op("new", "p", 1, name="x"), op("new", "p", 2, name="y"))
    db.sync()
    db.execute("INSERT INTO c VALUES (1, 1)")
    server.write(op("delete", "p", 1), op("put", "p", 2, name="z"))
    db.sync()
    assert all_of(db, "p") == [(1, "x"), (2, "z")]
    assert [a.id for a in db.status().aside] == ["1"]
    db.execute("DELETE FROM c")
    db.sync()
    assert all_of(db, "p") == [(2, "z")]


@pytest.mark.parametrize("clause", ["", " ON CONFLICT ROLLBACK", " ON CONFLICT REPLACE"])
def test_a_unique_value_taken_here_sets_one_row_aside_not_the_others(
    device: Maker, server: FakeServer, clause: str
) -> None:
    db = device(sql=f"CREATE TABLE t (id TEXT PRIMARY KEY, slug TEXT UNIQUE{clause})", table="t")
    db.execute("INSERT INTO t VALUES ('mine', 's')")
    server.write(
        op("new", "t", "a", slug="a"), op("new", "t", "b", slug="s"), op("new", "t", "c", slug="c")
    )
    db.sync()
    assert [row[0] for row in all_of(db, "t")] == ["a", "c", "mine"]
    assert "UNIQUE" in db.status().aside[0].reason
    db.execute("UPDATE t SET slug = 'free' WHERE id = 'mine'")
    db.sync()
    assert [row[0] for row in all_of(db, "t")] == ["a", "b", "c", "mine"]


def test_two_rows_may_swap_a_unique_value(device: Maker, server: FakeServer) -> None:
    db = device(sql="CREATE TABLE t (id TEXT PRIMARY KEY, slug TEXT UNIQUE)", table="t")
    server.write(op("new", "t", "a", slug="1"), op("new", "t", "b", slug="2"))
    db.sync()
    server.write(op("put", "t", "a", slug="2"), op("put", "t", "b", slug="1"))
    db.sync()
    assert all_of(db, "t") == [("a", "2"), ("b", "1")]
    assert db.status().aside == []


def test_a_check_refuses_one_row_and_its_old_state_stays(device: Maker, server: FakeServer) -> None:
    db = device(sql="CREATE TABLE t (id TEXT PRIMARY KEY, n INTEGER CHECK (n > 0))", table="t")
    server.write(op("new", "t", "a", n=1), op("new", "t", "b", n=1), op("new", "t", "z", n=None))
    db.sync()
    server.write(op("put", "t", "a", n=-1), op("put", "t", "b", n=2))
    db.sync()
    assert all_of(db, "t") == [("a", 1), ("b", 2), ("z", None)]
    assert "CHECK" in db.status().aside[0].reason


def test_ids_that_fit_no_key_are_set_aside(device: Maker, server: FakeServer) -> None:
    db = device(sql="CREATE TABLE t (a INTEGER, b INTEGER, PRIMARY KEY (a, b))", table="t")
    server.write(op("new", "t", "plain"), op("new", "t", "[1,2]"))
    db.sync()
    assert all_of(db, "t") == [(1, 2)]
    assert [a.id for a in db.status().aside] == ["plain"]


def test_the_apps_triggers_do_not_act_twice(device: Maker, server: FakeServer) -> None:
    sql = (
        "CREATE TABLE l (id TEXT PRIMARY KEY, n INTEGER DEFAULT 0);"
        "CREATE TABLE i (id TEXT PRIMARY KEY, l TEXT); CREATE TABLE seen (id TEXT);"
        "CREATE TRIGGER count AFTER INSERT ON i BEGIN"
        " UPDATE l SET n = n + 1 WHERE id = NEW.l; INSERT INTO seen VALUES (NEW.id); END;"
    )
    a = device("a", sql=sql, table="l", kinds={"n": "counter"})
    b = device("b", sql=sql, table="l", kinds={"n": "counter"})
    a.track("i")
    b.track("i")
    a.execute("INSERT INTO l (id) VALUES ('list')")
    a.execute("INSERT INTO i VALUES ('one', 'list'), ('two', 'list')")
    a.sync()
    b.sync()
    assert all_of(b, "l") == all_of(a, "l") == [("list", 2)]
    assert all_of(b, "seen") == [("one",), ("two",)]  # a table of its own is the app's business
    assert b.status().pending == 0


def test_a_trigger_that_stamps_the_same_row_does_not_change_what_others_wrote(
    device: Maker, server: FakeServer
) -> None:
    db = device(
        sql="CREATE TABLE t (id TEXT PRIMARY KEY, x, stamp); CREATE TRIGGER stamp AFTER UPDATE OF x"
        " ON t BEGIN UPDATE t SET stamp = 'here' WHERE id = NEW.id; END;",
        table="t",
    )
    server.write(op("new", "t", "a", x=1, stamp="there"))
    db.sync()
    server.write(op("put", "t", "a", x=2, stamp="there, later"))
    db.sync()
    assert all_of(db, "t") == [("a", 2, "there, later")]
    server.write(op("put", "t", "a", x=3))
    db.sync()
    assert all_of(db, "t") == [("a", 3, "there, later")]


def test_applying_is_not_recorded_and_silence_ends_with_it(
    device: Maker, server: FakeServer
) -> None:
    db = family(device)
    server.write(op("new", "p", 1, name="x"))
    db.sync()
    assert db.status().pending == 0
    db.execute("UPDATE p SET name = 'y'")
    assert db.status().pending == 1


def test_an_error_while_applying_changes_nothing(
    device: Maker, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = family(device)
    server.write(op("new", "p", 1, name="x"))
    monkeypatch.setattr("rejoin.replica.Replica.store", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        db.sync()
    assert all_of(db, "p") == []
    assert db.execute("SELECT applying FROM rejoin_state").fetchone() == (0,)


def test_a_field_without_a_column_is_kept_until_the_column_appears(
    device: Maker, server: FakeServer
) -> None:
    db = device(sql="CREATE TABLE t (id TEXT PRIMARY KEY, x)", table="t")
    server.write(op("new", "t", "a", x=1, colour="red"), op("new", "t", "b", x=2))
    db.sync()
    db.execute("UPDATE t SET x = 3")
    db.sync()
    db.connection.execute("ALTER TABLE t ADD COLUMN colour TEXT DEFAULT 'grey'")
    again = rejoin.open(db.path, http=server)
    assert all_of(again, "t") == [("a", 3, "red"), ("b", 3, "grey")]
    again.sync()
    assert server.rows["t", "a"]["fields"] == {"x": 3, "colour": "red"}
    again.close()


def test_a_table_tracked_later_is_filled_from_what_came_before(
    device: Maker, server: FakeServer
) -> None:
    db = device(sql="CREATE TABLE t (id TEXT PRIMARY KEY, x)", table="t")
    server.write(op("new", "later", 1, y="yes"))
    db.sync()
    db.execute("CREATE TABLE later (id INTEGER PRIMARY KEY, y)")
    db.execute("INSERT INTO later VALUES (1, 'differs'), (2, 'new here')")
    assert db.track("later") == 2
    db.sync()
    assert server.rows["later", "1"]["fields"] == {"y": "differs"}
    assert all_of(db, "later") == [(1, "differs"), (2, "new here")]


def test_a_table_belongs_to_one_space(device: Maker) -> None:
    db = family(device)
    with pytest.raises(rejoin.TrackingError, match="already belongs"):
        db.track("p", space="22222222-2222-4222-8222-222222222222")


def test_a_dropped_table_is_reported_and_the_rest_goes_on(
    device: Maker, server: FakeServer
) -> None:
    db = family(device)
    db.close()
    plain = sqlite3.connect(db.path)
    plain.execute("DROP TABLE c")
    plain.close()
    again = device("a", sql="", login=False)
    server.write(op("new", "c", 1, p=1), op("new", "p", 1, name="x"))
    again.sync()
    assert all_of(again, "p") == [(1, "x")]
    assert "There is no table 'c'" in str(again.status())


def test_documents_are_kept_unread(device: Maker, server: FakeServer) -> None:
    db = family(device)
    server.write(op("new", "p", 1, name="x"))
    server.scripts.append(
        lambda a: a | {"records": [r | {"documents": {"body": "AAA="}} for r in a["records"]]}
    )
    db.sync()
    assert all_of(db, "p") == [(1, "x")]
    assert db.execute("SELECT id, field, data FROM rejoin_documents").fetchall() == [
        ("1", "body", b"\0\0")
    ]


def test_a_clone_gets_tables_kinds_and_indexes(device: Maker, server: FakeServer) -> None:
    a = device(
        "a",
        sql="CREATE TABLE t (id TEXT PRIMARY KEY, n INTEGER, tags TEXT);"
        " CREATE INDEX by_n ON t (n)",
        table="t",
        kinds={"n": "counter", "tags": "set"},
    )
    a.execute("INSERT INTO t VALUES ('x', 3, '[1]')")
    a.sync()
    b = rejoin.clone(
        a.path.with_name("b.sqlite"), "http://fake", "ada@example.org", "secret", http=server
    )
    assert all_of(b, "t") == [("x", 3, "[1]")]
    assert b.execute("SELECT name FROM sqlite_master WHERE name = 'by_n'").fetchone()
    b.execute("UPDATE t SET n = n + 1")
    assert b.log()[0]["ops"] == [
        {"op": "increment", "collection": "t", "id": "x", "field": "n", "by": 1}
    ]
    b.sync()
    assert b.status().pending == 0
    b.close()
    with pytest.raises(rejoin.RejoinError, match="has tables already"):
        rejoin.clone(b.path, "http://fake", "ada@example.org", "secret", http=server)


@pytest.mark.parametrize(
    ("key", "mine", "others"),
    [
        ("id INTEGER PRIMARY KEY", "7", ["007", " 7", "7.0", "[7.0]", '["7"]']),
        ("id INT PRIMARY KEY", "7", ["007", "[7.0]", '["7"]', "+7"]),
        ("id REAL PRIMARY KEY", "[7.0]", ["7", "007", '["7.0"]']),
        ("id PRIMARY KEY", "7", ["[7.0]"]),
        ("id TEXT PRIMARY KEY", "7", ["[7]", '["7"]']),
    ],
)
def test_an_id_that_would_take_another_records_row_is_set_aside(
    device: Maker, server: FakeServer, key: str, mine: str, others: list[str]
) -> None:
    db = device(sql=f"CREATE TABLE tasks ({key}, title TEXT)")
    server.write(op("new", "tasks", mine, title="mine"))
    for other in others:
        server.write(op("new", "tasks", other, title=f"of {other}"))
    db.sync()
    assert db.execute("SELECT title FROM tasks").fetchall() == [("mine",)]
    assert sorted(a.id for a in db.status().aside) == sorted(others)
    for other in others:
        server.write({"op": "delete", "collection": "tasks", "id": other})
    db.sync()
    assert db.execute("SELECT title FROM tasks").fetchall() == [("mine",)]
    assert db.status().aside == []


def test_an_untyped_key_takes_either_number_whichever_came_first(
    device: Maker, server: FakeServer
) -> None:
    db = device(sql="CREATE TABLE tasks (id PRIMARY KEY, title TEXT)")
    server.write(op("new", "tasks", "[7.0]", title="real"))
    db.sync()
    server.write(op("new", "tasks", "7", title="integer"))
    server.write(op("new", "tasks", "x", title="text"))
    db.sync()
    assert db.execute("SELECT title FROM tasks ORDER BY id").fetchall() == [("real",), ("text",)]
    assert [a.id for a in db.status().aside] == ["7"]


def test_names_that_differ_by_case_alone_are_said_in_words(
    device: Maker, server: FakeServer
) -> None:
    db = device()
    server.write(op("new", "Tasks", "t1", title="theirs"))
    db.sync()
    (trouble,) = db.status().troubles
    assert "'Tasks'" in trouble
    assert "'tasks'" in trouble
    db.execute("INSERT INTO tasks (id) VALUES ('mine')")
    db.sync()
    db.close()
    late = device("late", sql="")
    late.sync()
    late.connection.execute("CREATE TABLE TASKS (id TEXT PRIMARY KEY)")
    with pytest.raises(rejoin.TrackingError, match="one table, to the other devices two"):
        late.track("tasks")
    again = device("a", sql="", login=False)
    assert len(again.status().troubles) == 1
