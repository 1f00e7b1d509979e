"""Devices that stay connected to a real server with two workers, whatever happens to either."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest
from rejoin_testing.device import TASK_KINDS, TASKS
from rejoin_testing.ears import Ears, go_live
from rejoin_testing.proxy import proxying

import rejoin
from tests.conftest import LiveServer
from tests.contract.people import new_email
from tests.edge.editors import editors, rooms_url
from tests.edge.fleet import PASSWORD, rows

Opener = Callable[..., rejoin.Database]


@pytest.fixture(scope="module")
def server(start_server: Callable[..., LiveServer]) -> LiveServer:
    return start_server()


@pytest.fixture
def device(server: LiveServer, tmp_path: Path) -> Iterator[Opener]:
    """A function that opens one more device of one user."""
    made: list[rejoin.Database] = []
    email = new_email()

    def make(**login: str) -> rejoin.Database:
        db = rejoin.open(tmp_path / f"{len(made)}.sqlite", server.url)
        (db.login if made else db.signup)(email, PASSWORD, **login)
        db.connection.executescript(TASKS)
        db.track("tasks", kinds=TASK_KINDS)
        made.append(db)
        return db

    yield make
    for db in made:
        db.close()


def titles(db: rejoin.Database) -> set[Any]:
    return {title for (title,) in db.execute("SELECT title FROM tasks")}


def settled(*devices: rejoin.Database) -> bool:
    shown = [rows(db)["tasks"] for db in devices]
    return all(one == shown[0] for one in shown) and not any(d.status().pending for d in devices)


def test_what_one_device_writes_the_others_show_and_are_told(device: Opener) -> None:
    a, b, ears = device(), device(), Ears()
    go_live(a)
    go_live(b, ears)
    with a.transaction():
        a.execute("INSERT INTO tasks (id, title, votes) VALUES ('t1', 'Milk', 2)")
        a.execute("INSERT INTO tasks (id, title, tags) VALUES ('t2', 'Tea', '[\"x\"]')")
    assert ears.heard("t2", by_others=True)
    assert ears.wait(lambda: settled(a, b))


def test_live_devices_outlive_killed_workers_and_miss_and_double_nothing(
    server: LiveServer, device: Opener
) -> None:
    a, b, writer, ears = device(), device(), device(), Ears()
    writer.execute("INSERT INTO tasks (id) VALUES ('all')")
    writer.sync()
    go_live(a, ears)
    go_live(b, ears)
    for turn in range(4):
        a.execute("UPDATE tasks SET votes = votes + 1 WHERE id = 'all'")
        b.execute("UPDATE tasks SET votes = votes + 10 WHERE id = 'all'")
        os.kill(server.worker_pids()[turn % 2], signal.SIGKILL)
        a.execute("INSERT INTO tasks (id, title) VALUES (?, 'mine')", (f"a{turn}",))
        writer.execute("INSERT INTO tasks (id, title) VALUES (?, 'theirs')", (f"w{turn}",))
        writer.sync()
        name = f"w{turn}"
        assert ears.wait(lambda name=name: sum(r.key == (name,) for r in ears.rows) >= 2)
    assert ears.wait(lambda: settled(a, b))
    writer.sync()
    assert writer.execute("SELECT votes FROM tasks WHERE id = 'all'").fetchone() == (44,)
    assert rows(a) == rows(b) == rows(writer)
    assert len(rows(a)["tasks"]) == 9


def test_a_device_without_rights_any_more_is_told_at_once(
    server: LiveServer, device: Opener
) -> None:
    a, b = device(), device()
    live = go_live(b)
    device_id = b.status().device_id
    a.session().send(f"/v1/devices/{device_id}", "", "DELETE")
    assert live.wait_until("stopped", timeout_s=10), live.state
    assert live.words


def test_presence_reaches_the_other_device_and_ends_with_the_connection(device: Opener) -> None:
    a, b, ears = device(), device(), Ears()
    live = go_live(a)
    go_live(b, ears)
    live.presence("me", {"typing": "t1"})
    assert ears.wait(lambda: ears.presences)
    _, who, state = ears.presences[0]
    assert (who, state) == (a.status().device_id, {"typing": "t1"})
    live.stop()
    assert ears.wait(lambda: ears.presences[-1][1:] == (who, None))


def test_a_space_that_is_shared_while_live_joins_the_conversation(
    server: LiveServer, device: Opener, tmp_path: Path
) -> None:
    a = device()
    with rejoin.open(tmp_path / "bob.sqlite", server.url) as bob:
        email = new_email()
        bob.signup(email, PASSWORD)
        ears = Ears()
        go_live(bob, ears)
        space = a.create_space("Kitchen")
        a.share(space, email)
        a.connection.execute("CREATE TABLE shop (id TEXT PRIMARY KEY, what TEXT)")
        a.track("shop", space=space)
        bob.connection.execute("CREATE TABLE shop (id TEXT PRIMARY KEY, what TEXT)")
        bob.track("shop", space=space)
        go_live(a)
        a.execute("INSERT INTO shop VALUES ('s1', 'Salt')")
        assert ears.heard("s1", by_others=True)
        a.session().send(f"/v1/spaces/{space}/members/{email}", "", "DELETE")
        assert ears.wait(lambda: any(r.table == "shop" and r.key is None for r in ears.rows))
        assert bob.execute("SELECT count(*) FROM shop").fetchone() == (0,)


def test_a_token_that_runs_out_is_renewed_while_the_conversation_goes_on(
    start_server: Callable[..., LiveServer], tmp_path: Path
) -> None:
    server = start_server(REJOIN_ACCESS_TOKEN_SECONDS="60", WEB_CONCURRENCY="1")
    with rejoin.open(tmp_path / "a.sqlite", server.url) as db:
        db.signup(new_email(), PASSWORD)
        ears, seen = Ears(), set[str]()
        go_live(db, ears)

        def renewed() -> bool:
            seen.add(db.session().token())
            return len(seen) > 3

        assert ears.wait(renewed)
        assert ears.states == ["live"]


NOTES = "CREATE TABLE notes (id TEXT PRIMARY KEY, title TEXT, body TEXT)"


def with_notes(device: Opener) -> rejoin.Database:
    db = device()
    db.connection.execute(NOTES)
    db.track("notes", body="document")
    return db


def column(db: rejoin.Database) -> Any:
    return db.execute("SELECT body FROM notes WHERE id = 'n1'").fetchone()[0]


def body(db: rejoin.Database) -> str:
    """Of a device at rest: the column shows what the document says."""
    text = str(db.document("notes", "n1", "body"))
    assert column(db) == text
    return text


def test_a_text_is_edited_offline_by_two_and_then_live(device: Opener) -> None:
    a, b = with_notes(device), with_notes(device)
    a.execute("INSERT INTO notes (id, body) VALUES ('n1', 'Once upon a time')")
    a.sync()
    b.sync()
    for i in range(30):  # typed, a letter each
        with a.document("notes", "n1", "body").edit() as text:
            text.insert(4 + i, chr(ord("a") + i % 26))
        with b.document("notes", "n1", "body").edit() as text:
            text.insert(len(text), str(i % 10))
    b.execute("UPDATE notes SET body = replace(body, 'time', 'Zeit 😀')")
    letters = "".join(chr(ord("a") + i % 26) for i in range(30))
    numbers = "".join(str(i % 10) for i in range(30))
    ears = Ears()
    go_live(a, ears)
    go_live(b)
    wanted = f"Once{letters} upon a Zeit 😀{numbers}"
    assert ears.wait(lambda: column(a) == column(b) == wanted), (column(a), column(b))
    assert ears.wait(lambda: a.status().pending == b.status().pending == 0)
    assert body(a) == body(b)
    ears.forget()
    b.document("notes", "n1", "body").write("The end")
    # Of an edit before, it may be told a moment after it shows it.
    assert ears.wait(lambda: column(a) == "The end"), column(a)
    assert body(a) == "The end"
    assert ears.heard("n1", by_others=True)
    assert ears.wait(lambda: a.status().pending == b.status().pending == 0)
    assert a.status().refused == b.status().refused == []


def test_a_restored_phone_and_its_twin_both_keep_what_they_typed(
    server: LiveServer, device: Opener, tmp_path: Path
) -> None:
    a, b = with_notes(device), with_notes(device)
    a.execute("INSERT INTO notes (id, body) VALUES ('n1', 'shared')")
    a.sync()
    with closing(sqlite3.connect(tmp_path / "backup.sqlite")) as copy:
        a.connection.backup(copy)
    a.document("notes", "n1", "body").write("shared first")
    a.sync()
    with rejoin.open(tmp_path / "backup.sqlite") as restored:
        email = restored.status().email or ""
        restored.document("notes", "n1", "body").write("again shared")
        restored.login(email, PASSWORD)
        restored.sync()
        assert body(restored) == "again shared first"
        a.sync()
        b.sync()
        assert body(b) == body(a) == "again shared first"
        assert restored.status().device_id != a.status().device_id


@pytest.mark.parametrize("seed", range(2))
def test_live_devices_on_a_network_that_keeps_breaking_end_equal(
    server: LiveServer, device: Opener, seed: int
) -> None:
    chance = Random(seed)
    devices = [with_notes(device) for _ in range(3)]
    devices[0].execute("INSERT INTO tasks (id) VALUES ('all')")
    devices[0].execute("INSERT INTO notes (id) VALUES ('n1')")
    for db in devices:
        db.sync()
    ears = Ears()
    with proxying(server.url) as proxy:
        for db in devices:
            with rejoin.open(db.path, proxy.address):
                db.live(ears.on_change, on_state=ears.on_state)
        done = 0
        letters = 0
        for step in range(60):
            db = chance.choice(devices)
            what = chance.random()
            if what < 0.3:
                db.execute("UPDATE tasks SET votes = votes + 1 WHERE id = 'all'")
                done += 1
            elif what < 0.6:
                with db.document("notes", "n1", "body").edit() as text:
                    text.insert(chance.choice([0, len(text)]), "x")
                letters += 1
            elif what < 0.8:
                db.execute("INSERT INTO tasks (id, title) VALUES (?, ?)", (f"{step}", f"{step}"))
            elif what < 0.9:
                proxy.cut()
            else:
                ears.heard_more(chance.randrange(4))
            if step in (20, 40):
                os.kill(chance.choice(server.worker_pids()), signal.SIGKILL)
        assert ears.wait(lambda: settled(*devices))
        assert ears.wait(lambda: len({column(db) for db in devices}) == 1)
    for db in devices:
        assert db.execute("SELECT votes FROM tasks WHERE id = 'all'").fetchone() == (done,)
        assert body(db) == "x" * letters
        assert db.status().refused == []
    assert rows(devices[0]) == rows(devices[1]) == rows(devices[2])


def test_a_device_revoked_while_it_was_away_learns_it_when_it_comes_back(device: Opener) -> None:
    a, b = device(), device()
    b.sync()
    a.session().send(f"/v1/devices/{b.status().device_id}", "", "DELETE")
    live = b.live()
    assert live.wait_until("stopped", timeout_s=20), (live.state, live.words)
    assert "log in" in live.words


def test_a_device_and_a_stock_editor_share_a_text(server: LiveServer, device: Opener) -> None:
    a, ears = with_notes(device), Ears()
    a.execute("INSERT INTO notes (id, title) VALUES ('n1', 'Letter')")
    a.sync()
    go_live(a, ears)
    space = a.status().spaces[0].id
    with editors() as node:
        editor = node.editor(
            "e",
            "y-websocket",
            rooms_url(server.url),
            f"{space}/documents/notes/n1/body",
            token=a.session().token(),
        )
        editor.until(synced=True)
        editor.insert(0, "Dear all 😀")
        assert ears.wait(lambda: column(a) == "Dear all 😀")
        with a.document("notes", "n1", "body").edit() as text:
            text.insert(8, ",")
        editor.until(text="Dear all, 😀")
        a.execute("UPDATE notes SET body = body || '!'")
        editor.until(text="Dear all, 😀!")
    assert ears.wait(lambda: a.status().pending == 0)
    assert body(a) == "Dear all, 😀!"
    assert a.status().refused == []
