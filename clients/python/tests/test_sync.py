"""The loop: what each answer of a server does to the file."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

import rejoin
from rejoin.transport import HttpAnswer
from rejoin_testing.device import Maker
from rejoin_testing.fake_server import SPACE, Answer, FakeServer


def rows(db: rejoin.Database, columns: str = "id, title, votes, tags") -> list[tuple[Any, ...]]:
    return db.execute(f"SELECT {columns} FROM tasks ORDER BY id").fetchall()


def instead(answer: Answer) -> Any:
    def instead(_: Answer) -> Answer:
        return answer

    return instead


def put(record_id: str, **fields: Any) -> Answer:
    return {"op": "put", "collection": "tasks", "id": record_id, "new": True, "fields": fields}


def test_two_devices_end_equal(device: Maker) -> None:
    a, b = device("a"), device("b")
    a.execute("INSERT INTO tasks VALUES ('t1', 'Milk', NULL, x'00ff', 1e300, 2, '[\"b\", \"a\"]')")
    a.execute("INSERT INTO tasks VALUES ('t2', '', 9223372036854775807, x'', 1.0, NULL, NULL)")
    a.sync()
    b.sync()
    assert rows(a, "*, typeof(anything)") == rows(b, "*, typeof(anything)")
    assert rows(b)[0] == ("t1", "Milk", 2, '["a","b"]')
    b.execute("DELETE FROM tasks WHERE id = 't2'")
    b.execute("UPDATE tasks SET votes = votes + 5, title = 'Oat' WHERE id = 't1'")
    a.execute("UPDATE tasks SET votes = votes - 1")
    b.sync()
    a.sync()
    b.sync()
    assert rows(a) == rows(b)
    assert rows(a)[0] == ("t1", "Oat", 6, '["a","b"]')


def test_own_accepted_edits_need_not_come_back(device: Maker, server: FakeServer) -> None:
    db = device()
    db.execute("INSERT INTO tasks (id, votes) VALUES ('t1', 1)")
    server.scripts.append(lambda answer: answer | {"records": []})
    db.sync()
    server.write({"op": "increment", "collection": "tasks", "id": "t1", "field": "votes", "by": 10})
    db.execute("UPDATE tasks SET votes = votes + 100")
    db.sync()
    assert rows(db) == [("t1", None, 111, "[]")]


def test_pending_edits_are_shown_on_top_of_what_comes(device: Maker, server: FakeServer) -> None:
    db = device()
    server.write(
        put("t1", title="theirs", done=0),
        {"op": "increment", "collection": "tasks", "id": "t1", "field": "votes", "by": 7},
        {"op": "add", "collection": "tasks", "id": "t1", "field": "tags", "values": ["x", "y"]},
    )
    db.sync()
    late = rejoin.open(db.path, http=server)

    def meanwhile(answer: Answer) -> Answer:
        late.execute("UPDATE tasks SET title = 'mine', votes = votes + 1, tags = '[\"y\",\"z\"]'")
        server.write(
            {
                "op": "put",
                "collection": "tasks",
                "id": "t1",
                "fields": {"title": "theirs again", "done": 1},
            },
            {"op": "increment", "collection": "tasks", "id": "t1", "field": "votes", "by": 20},
            {"op": "add", "collection": "tasks", "id": "t1", "field": "tags", "values": ["w"]},
        )
        return answer | server._pull({"cursor": db.status().spaces[0].cursor})

    server.scripts.append(meanwhile)
    seen: list[Any] = []
    db.sync(lambda _: seen.append(rows(db, "title, done, votes, tags")))
    assert ("mine", 1, 28, '["w","y","z"]') in seen[0] + seen[-1]
    assert db.status().pending == 0
    late.close()


def test_contexts_are_of_the_moment_of_the_edit(device: Maker, server: FakeServer) -> None:
    db = device()
    db.execute("INSERT INTO tasks (id) VALUES ('before')")
    assert db.log()[0]["context"] == {"cursor": 0}
    db.sync()
    cursor = db.status().spaces[0].cursor
    db.execute("UPDATE tasks SET title = 'x'")
    server.write(put("t2", title="unseen"))
    server.scripts.append(instead({"error": {"code": "unavailable", "detail": "later"}}))
    db.sync()
    assert db.log()[0]["context"] == {"epoch": 1, "cursor": cursor}


def test_an_insert_over_an_own_unsent_deletion_takes_its_context(
    device: Maker, server: FakeServer
) -> None:
    db = device()
    db.execute("INSERT INTO tasks (id) VALUES ('t1')")
    db.sync()
    old = db.status().spaces[0].cursor
    server.write(put("t2", title="moves the cursor"))

    def delete_meanwhile(answer: Answer) -> Answer:
        db.execute("DELETE FROM tasks WHERE id = 't1'")
        return answer

    server.scripts += [delete_meanwhile, instead({"error": {"code": "busy", "detail": "x"}})]
    db.sync()
    assert db.status().spaces[0].cursor > old
    db.execute("INSERT INTO tasks (id) VALUES ('t1')")
    newest, deletion = db.log()[:2]
    assert newest["ops"][0]["new"]
    assert newest["context"] == deletion["context"] == {"epoch": 1, "cursor": old}


def test_a_lost_answer_makes_the_same_bytes_again_and_no_second_increment(
    device: Maker, server: FakeServer
) -> None:
    db = device()
    db.execute("INSERT INTO tasks (id, votes) VALUES ('t1', 1)")
    server.lose_answers = 2
    db.sync()
    first, *again = [r["spaces"][SPACE].get("changes") for r in server.requests[:3]]
    assert again == [first, first]
    assert server.rows["tasks", "t1"]["fields"]["votes"] == 1
    assert rows(db)[0][2] == 1


def test_a_refused_update_shows_the_servers_value_and_is_listed(
    device: Maker, server: FakeServer
) -> None:
    db = device()
    db.execute("INSERT INTO tasks (id, title, votes) VALUES ('t1', 'good', 1)")
    db.sync()
    server.refuse = lambda c: {"code": "invalid_text", "detail": "No."} if "bad" in str(c) else None
    db.execute("UPDATE tasks SET title = 'bad', votes = 9")
    db.execute("UPDATE tasks SET done = 1")
    result = db.sync()
    assert result.rejected == 1
    assert rows(db, "title, done, votes") == [("good", 1, 1)]
    (refused,) = db.status().refused
    assert (refused.code, refused.ops[0]["fields"]) == ("invalid_text", {"title": "bad"})
    assert "No. (invalid_text)" in str(db.status())
    assert db.dismiss() == 1
    assert db.status().refused == []


def test_a_refused_new_row_stays_and_an_edit_sends_it_whole(
    device: Maker, server: FakeServer
) -> None:
    db = device()
    db.sync()
    server.refuse = lambda c: {"code": "x", "detail": "No."} if "bad" in str(c) else None
    db.execute("INSERT INTO tasks (id, title, votes) VALUES ('t1', 'bad', 3)")
    db.sync()
    assert rows(db) == [("t1", "bad", 3, None)]
    db.execute("UPDATE tasks SET title = 'good'")
    db.sync()
    assert server.rows["tasks", "t1"]["fields"]["title"] == "good"
    assert server.rows["tasks", "t1"]["fields"]["votes"] == 3
    assert rows(db) == [("t1", "good", 3, "[]")]


def test_a_refused_deletion_brings_the_row_back(device: Maker, server: FakeServer) -> None:
    db = device()
    db.execute("INSERT INTO tasks (id, title) VALUES ('t1', 'x')")
    db.sync()
    server.refuse = lambda c: {"code": "x", "detail": "No."}
    db.execute("DELETE FROM tasks")
    db.sync()
    assert rows(db) == [("t1", "x", 0, "[]")]


def conflict(db: rejoin.Database, server: FakeServer) -> None:
    db.execute("INSERT INTO tasks (id, title) VALUES ('t1', 'mine')")
    db.sync()
    server.write({"op": "put", "collection": "tasks", "id": "t1", "fields": {"title": "theirs"}})
    siblings = [
        {"value": "theirs", "device": "d2", "at": 2, "position": 9},
        {"value": "mine", "device": "d1", "at": 1, "position": 8},
    ]

    def add(answer: Answer) -> Answer:
        answer["records"][0]["conflicts"] = {"title": siblings}
        return answer

    server.scripts.append(add)
    db.sync()


def test_conflicts_list_every_sibling_and_a_plain_update_settles_them(
    device: Maker, server: FakeServer
) -> None:
    db = device()
    conflict(db, server)
    (one,) = db.conflicts()
    assert (one.table, one.key, one.column, one.shown) == ("tasks", ("t1",), "title", "theirs")
    assert [(s.value, s.device, s.at) for s in one.siblings] == [
        ("theirs", "d2", 2),
        ("mine", "d1", 1),
    ]
    db.execute("UPDATE tasks SET done = 1")
    assert len(db.conflicts()) == 1
    db.execute("UPDATE tasks SET title = 'theirs'")
    assert db.conflicts() == []
    db.sync()
    assert server.requests[-1]["spaces"][SPACE]["changes"][-1]["ops"][0]["fields"] == {
        "title": "theirs"
    }
    assert db.conflicts() == []


def test_a_later_delta_without_siblings_clears_the_conflict(
    device: Maker, server: FakeServer
) -> None:
    db = device()
    conflict(db, server)
    server.write({"op": "put", "collection": "tasks", "id": "t1", "fields": {"title": "settled"}})
    db.sync()
    assert db.conflicts() == []
    assert db.status().conflicts == 0


def test_pages_are_applied_together_and_resumed_after_a_restart(
    device: Maker, server: FakeServer
) -> None:
    server.page_records = 2
    db = device()
    for i in range(5):
        server.write(put(f"t{i}", title=str(i)))
    server.scripts += [lambda a: a]
    stop = [HttpAnswer(400, {}, b'{"code":"stop","detail":"x"}')]

    def then_stop(answer: Answer) -> Answer:
        server.fail += stop
        return answer

    server.scripts += [then_stop]
    with pytest.raises(rejoin.ServerRefused):
        db.sync()
    assert rows(db) == []
    assert db.status().spaces[0].cursor == 0
    again = rejoin.open(db.path, http=server)
    again.sync()
    assert [r["spaces"][SPACE].get("page") for r in server.requests[:3]] == [None, "2", "4"]
    assert [row[0] for row in rows(again)] == ["t0", "t1", "t2", "t3", "t4"]
    again.close()


def test_a_bad_page_starts_again_from_the_cursor(device: Maker, server: FakeServer) -> None:
    server.page_records = 1
    db = device()
    for i in range(3):
        server.write(put(f"t{i}", title=str(i)))
    server.scripts += [lambda a: a, instead({"error": {"code": "bad_page", "detail": "old"}})]
    db.sync()
    assert len(rows(db)) == 3


def test_a_reset_replaces_the_copy_and_keeps_what_is_pending(
    device: Maker, server: FakeServer
) -> None:
    db = device()
    db.execute("INSERT INTO tasks (id, title, votes) VALUES ('gone', 'x', 1), ('stays', 'y', 1)")
    db.sync()
    server.epoch = 2
    late = rejoin.open(db.path, http=server)

    def reset(answer: Answer) -> Answer:
        late.execute("UPDATE tasks SET votes = votes + 1 WHERE id = 'stays'")
        late.execute("INSERT INTO tasks (id) VALUES ('new')")
        del server.rows["tasks", "gone"]
        return answer | {
            "reset": True,
            "records": [
                {
                    "collection": "tasks",
                    "id": "stays",
                    "position": 1,
                    "fields": {"title": "restored", "votes": 40},
                }
            ],
        }

    server.scripts.append(reset)
    server.rows["tasks", "stays"]["fields"] |= {"title": "restored", "votes": 40}
    db.sync()
    assert rows(db) == [("new", None, 0, "[]"), ("stays", "restored", 41, "[]")]
    assert db.status().spaces[0].state == "synced"
    late.close()


def test_replace_drops_what_is_not_there(device: Maker, server: FakeServer) -> None:
    db = device(
        sql="CREATE TABLE tasks (id TEXT PRIMARY KEY, title TEXT DEFAULT 'none', x)", table="tasks"
    )
    server.write(put("t1", title="a", x=1))
    db.sync()
    server.write({"op": "delete", "collection": "tasks", "id": "t1"})
    server.write(put("t1", x=2))
    db.sync()
    assert rows(db, "*") == [("t1", "none", 2)]


def test_what_a_restored_server_lacks_is_given_back(device: Maker, server: FakeServer) -> None:
    db = device()
    for i in range(4):
        db.execute("INSERT INTO tasks (id, votes) VALUES (?, 1)", (f"t{i}",))
        db.sync()
    mine = db.status().device_id or ""
    for i in (2, 3):
        del server.rows["tasks", f"t{i}"]
    server.counters[mine], server.epoch = 2, 2
    db.execute("INSERT INTO tasks (id, votes) VALUES ('t9', 1)")
    server.scripts += [
        instead({"error": {"code": "counter_gap", "detail": "", "expected": 3}}),
        lambda a: (
            a
            | {"reset": True}
            | {k: v for k, v in server._pull({"cursor": 0}).items() if k == "records"}
        ),
    ]
    db.sync()
    assert server.requests[-1]["spaces"][SPACE]["changes"][0]["counter"] == 3
    assert [row[2] for row in rows(db)] == [1, 1, 1, 1, 1]
    assert server.rows["tasks", "t3"]["fields"]["votes"] == 1


def test_an_accepted_below_the_own_count_is_a_gap_too(device: Maker, server: FakeServer) -> None:
    db = device()
    for i in range(3):
        db.execute("INSERT INTO tasks (id) VALUES (?)", (f"t{i}",))
    db.sync()
    server.counters[db.status().device_id or ""] = 1
    db.sync()
    assert [c["counter"] for c in server.requests[-1]["spaces"][SPACE]["changes"]][:2] == [2, 3]
    assert db.status().pending == 0


def test_what_is_no_longer_kept_is_named_as_discarded(device: Maker, server: FakeServer) -> None:
    db = device()
    for i in range(3):
        db.execute("INSERT INTO tasks (id) VALUES (?)", (f"t{i}",))
    db.sync()
    db.connection.execute("DELETE FROM rejoin_changes WHERE counter <= 2")
    server.counters[db.status().device_id or ""] = 0
    db.execute("INSERT INTO tasks (id) VALUES ('t9')")
    db.sync()
    assert any(r["spaces"][SPACE].get("discarded") == 2 for r in server.requests)
    assert db.status().pending == 0


def test_a_fork_drops_what_is_known_and_renumbers_the_rest(
    device: Maker, server: FakeServer
) -> None:
    db = device()
    db.execute("INSERT INTO tasks (id) VALUES ('t0')")
    db.sync()
    old = db.status().device_id or ""
    cursor = db.status().spaces[0].cursor
    for i in (1, 2, 3):
        db.execute("INSERT INTO tasks (id) VALUES (?)", (f"t{i}",))
    before = [c["counter"] for c in db.log()]
    first = sorted(before)[-3]
    server.write(put("t1"))  # as if our first pending one had arrived
    fork = {"error": {"code": "device_fork", "detail": "", "known": [first]}}
    server.scripts += [instead(fork), instead(fork)]
    db.sync()
    assert server.logins[-1]["device"]["replaces"] == old
    assert db.status().device_id != old
    sent = server.requests[-1]["spaces"][SPACE]
    assert sent["cursor"] == 0
    assert [c["counter"] for c in sent["changes"]] == [1, 2]
    assert sent["changes"][0]["context"] == {"epoch": 1, "cursor": cursor, "clock": {old: first}}
    assert [row[0] for row in rows(db)] == ["t0", "t1", "t2", "t3"]
    db.execute("UPDATE tasks SET title = 'x'")
    assert "clock" not in db.log()[0]["context"]


def test_without_a_password_a_fork_asks_to_log_in_and_goes_on_then(
    device: Maker, server: FakeServer
) -> None:
    device().close()
    db = device("a", sql="", login=False)
    db.execute("INSERT INTO tasks (id) VALUES ('t1')")
    fork = {"error": {"code": "device_fork", "detail": "", "known": []}}
    server.scripts += [instead(fork), instead(fork)]
    with pytest.raises(rejoin.NotLoggedIn, match="restored from a backup or cloned"):
        db.sync()
    assert db.status().pending == 1
    db.login("ada@example.org", "secret")
    db.sync()
    assert ("tasks", "t1") in server.rows


def test_an_expired_token_is_renewed_and_decides_nothing(device: Maker, server: FakeServer) -> None:
    db = device()
    db.execute("INSERT INTO tasks (id) VALUES ('t1')")
    server.expired |= set(server.access)
    db.sync()
    assert server.refreshed == 1
    assert db.status().refused == []
    assert ("tasks", "t1") in server.rows


def test_a_revoked_device_keeps_everything_and_says_what_to_do(
    device: Maker, server: FakeServer
) -> None:
    db = device()
    db.execute("INSERT INTO tasks (id) VALUES ('t1')")
    server.fail.append(HttpAnswer(401, {}, b'{"code":"device_revoked","detail":"Revoked."}'))
    with pytest.raises(rejoin.NotLoggedIn, match="log in again"):
        db.sync()
    assert rows(db)[0][0] == "t1"
    assert db.status().pending == 1
    assert "log in again" in str(db.status())


def test_a_withdrawn_space_takes_its_rows_along_and_records_no_deletion(
    device: Maker, server: FakeServer
) -> None:
    db = device()
    db.execute("INSERT INTO tasks (id) VALUES ('t1')")
    db.sync()
    db.execute("UPDATE tasks SET title = 'unsent'")
    gone = {"error": {"code": "forbidden", "detail": "Withdrawn."}}
    server.scripts += [instead(gone), instead(gone)]
    result = db.sync()
    assert SPACE in (result.errors or {})
    assert rows(db) == []
    assert db.status().pending == 0
    assert [r.code for r in db.status().refused] == ["forbidden"]
    assert db.status().spaces[0].state == "withdrawn"


def test_a_row_that_the_server_never_took_stays_when_its_space_is_withdrawn(
    device: Maker, server: FakeServer
) -> None:
    db = device()
    db.execute("INSERT INTO tasks (id) VALUES ('t1')")
    db.sync()
    server.refuse = lambda change: {"code": "record_too_large", "detail": "no"}
    db.execute("INSERT INTO tasks (id, title) VALUES ('t2', 'only here')")
    db.sync()
    server.refuse = lambda change: None
    server.scripts.append(instead({"error": {"code": "forbidden", "detail": "Withdrawn."}}))
    db.sync()
    assert rows(db, "id, title") == [("t2", "only here")]
    db.sync()  # the membership is back
    assert rows(db, "id, title") == [("t1", None), ("t2", "only here")]
    db.execute("UPDATE tasks SET votes = 1 WHERE id = 't2'")
    db.sync()
    assert server.rows["tasks", "t2"]["fields"]["title"] == "only here"


def test_a_viewer_keeps_pulling_and_its_own_edits_stay(device: Maker, server: FakeServer) -> None:
    db = device()
    db.sync()
    db.execute("INSERT INTO tasks (id, title) VALUES ('mine', 'x')")
    server.write(put("t1", title="theirs"))
    server.scripts += [instead({"error": {"code": "forbidden", "detail": "No."}})]
    db.sync()
    assert [row[0] for row in rows(db)] == ["mine", "t1"]
    assert db.status().pending == 1
    assert "your role lets you read, not write" in str(db.status())
    db.sync()
    assert db.status().pending == 0


def test_troubles_of_the_network_are_retried_with_growing_pauses(
    device: Maker, server: FakeServer
) -> None:
    db = device()
    pauses: list[float] = []
    patient = rejoin.open(db.path, http=server, sleep=pauses.append, rand=lambda: 1.0)
    server.fail += [
        ConnectionError("down"),
        HttpAnswer(503, {"retry-after": "7"}, b""),
        HttpAnswer(502, {}, b"<html>"),
    ]
    patient.sync()
    assert pauses == [0.5, 7.0, 2.0]
    server.fail += [ConnectionError("down")] * 9
    with pytest.raises(rejoin.Offline, match="Nothing is lost"):
        patient.sync()
    assert "down" in str(patient.status())
    patient.close()


def test_a_server_that_never_accepts_ends_in_words_not_in_a_loop(
    device: Maker, server: FakeServer
) -> None:
    db = device()
    db.execute("INSERT INTO tasks (id) VALUES ('t1')")
    server.scripts += [lambda a: a | {"accepted": 0}] * 50
    with pytest.raises(rejoin.Stuck):
        db.sync()
    assert db.status().pending >= 1


def test_an_answer_for_an_older_cursor_is_not_applied(device: Maker, server: FakeServer) -> None:
    db = device()
    other = rejoin.open(db.path, http=server)
    server.write(put("t1", title="one"))

    def overtaken(answer: Answer) -> Answer:
        server.write({"op": "delete", "collection": "tasks", "id": "t1"})
        other.sync()
        return answer

    server.scripts.append(overtaken)
    db.sync()
    assert rows(db) == []
    other.close()


def test_sync_inside_an_open_transaction_is_refused(device: Maker) -> None:
    db = device()
    with pytest.raises(rejoin.Busy), db.transaction():
        db.sync()


def test_the_file_of_another_account_is_not_taken_over(device: Maker) -> None:
    db = device()
    with pytest.raises(rejoin.RejoinError, match=r"belongs to ada@example\.org"):
        db.login("eve@example.org", "secret")


def test_a_newer_format_is_refused(device: Maker) -> None:
    db = device()
    db.connection.execute("UPDATE rejoin_meta SET value = 99 WHERE key = 'format'")
    with pytest.raises(rejoin.RejoinError, match="newer Rejoin"):
        rejoin.open(db.path)
    plain = sqlite3.connect(db.path)
    assert plain.execute("SELECT count(*) FROM tasks").fetchone() == (0,)
    plain.close()


def test_a_file_of_the_first_format_is_taken_on(device: Maker) -> None:
    db = device()
    db.connection.executescript(
        "DROP TABLE rejoin_aside; CREATE TABLE rejoin_aside (collection INTEGER NOT NULL,"
        " id TEXT NOT NULL, reason TEXT NOT NULL, since INTEGER NOT NULL,"
        " PRIMARY KEY (collection, id)) WITHOUT ROWID;"
        "UPDATE rejoin_meta SET value = 1 WHERE key = 'format'"
    )
    db.close()
    again = device("a", sql="", login=False)
    assert again.execute("SELECT cursor FROM rejoin_aside").fetchall() == []
    again.sync()
