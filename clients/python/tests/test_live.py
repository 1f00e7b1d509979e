"""`live()`: by a real websocket against the fake server on a port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import rejoin
from rejoin.live import STOP_WAIT_S
from rejoin_testing.device import TASK_KINDS, TASKS
from rejoin_testing.ears import Ears, go_live
from rejoin_testing.fake_server import SPACE, Answer, FakeServer
from rejoin_testing.live_server import LiveServer, serve


@pytest.fixture
def port(server: FakeServer) -> Iterator[LiveServer]:
    with serve(server) as made:
        yield made


Opener = Callable[..., rejoin.Database]


@pytest.fixture
def on_port(tmp_path: Path, port: LiveServer) -> Iterator[Opener]:
    """A function that opens a device of the server on the port."""
    made: list[rejoin.Database] = []

    def make(name: str = "a") -> rejoin.Database:
        db = rejoin.open(tmp_path / f"{name}.sqlite", port.address, rand=lambda: 0.01)
        made.append(db)
        db.login("ada@example.org", "secret")
        db.connection.executescript(TASKS)
        db.track("tasks", kinds=TASK_KINDS)
        return db

    yield make
    for db in made:
        db.close()


def put(record_id: str, **fields: Any) -> Answer:
    return {"op": "put", "collection": "tasks", "id": record_id, "new": True, "fields": fields}


def bump(by: int) -> Answer:
    return {"op": "increment", "collection": "tasks", "id": "t1", "field": "votes", "by": by}


def votes(db: rejoin.Database) -> Any:
    return db.execute("SELECT votes FROM tasks WHERE id = 't1'").fetchone()[0]


def test_a_change_arrives_on_another_device_and_is_named_to_it(on_port: Opener) -> None:
    a, b, heard_a, heard_b = on_port("a"), on_port("b"), Ears(), Ears()
    go_live(a, heard_a)
    go_live(b, heard_b)
    a.execute("INSERT INTO tasks (id, title) VALUES ('t1', 'Milk')")
    assert heard_b.heard("t1", by_others=True)
    assert b.execute("SELECT title FROM tasks").fetchall() == [("Milk",)]
    assert heard_a.heard("t1", by_others=False)
    b.execute("UPDATE tasks SET title = 'Oat' WHERE id = 't1'")
    assert heard_a.heard("t1", by_others=True)
    one = next(r for r in heard_a.rows if r.by_others)
    assert (one.table, set(one.columns), one.gone) == ("tasks", {"title"}, False)
    assert [r for r in heard_b.rows if r.by_others and r.columns == {"title"}] == []


def test_an_edit_of_another_process_is_sent_too(
    on_port: Opener, port: LiveServer, shell: Callable[..., Any]
) -> None:
    a = on_port("a")
    go_live(a)
    shell("a").execute("INSERT INTO tasks (id, title) VALUES ('t9', 'from a shell')")
    assert port.wait_for(lambda: ("tasks", "t9") in port.server.rows)


def test_a_delta_read_before_an_own_accepted_change_does_not_undo_it(
    on_port: Opener, port: LiveServer
) -> None:
    a, ears = on_port("a"), Ears()
    port.write(put("t1", title="x"), bump(1))
    go_live(a, ears)
    assert votes(a) == 1
    with port.lock:  # what another device adds is read before our push, and sent after its answer
        (one,) = port.sockets
        one.ready = False
        port.server.write(bump(10))
        late = port.server._pull({"cursor": one.cursors[SPACE]})
        start = one.cursors[SPACE]
    a.execute("UPDATE tasks SET votes = votes + 100")
    assert port.wait_for(lambda: port.server.rows["tasks", "t1"]["fields"]["votes"] == 111)
    with port.lock:
        one.send(
            {
                "type": "delta",
                "space": SPACE,
                "epoch": 1,
                "from": start,
                "records": late["records"],
                "cursor": late["cursor"],
                "partial": False,
                "reset": False,
                "clock": {"another": 1},
            }
        )
        one.cursors[SPACE] = late["cursor"]
    assert ears.heard("t1", by_others=True)
    assert votes(a) == 111
    with port.lock:
        one.ready = True
        port.spread()
    assert port.wait_for(lambda: acked(one, port.server.head))
    assert votes(a) == 111


def acked(one: Any, cursor: int) -> bool:
    return any(m["type"] == "ack" and m["cursor"] == cursor for m in one.told)


def test_a_delta_that_holds_an_own_change_waits_for_its_acknowledgement(
    on_port: Opener, port: LiveServer
) -> None:
    a = on_port("a")
    port.write(put("t1"), bump(1))
    go_live(a)
    port.hold_pushed = True
    a.execute("UPDATE tasks SET votes = votes + 5")
    assert port.wait_for(lambda: port.held)
    (one,) = port.sockets
    assert a.status().pending == 1
    assert not acked(one, port.server.head)
    port.release()
    assert port.wait_for(lambda: acked(one, port.server.head))
    assert votes(a) == 6
    assert a.status().pending == 0


def test_partial_deltas_are_applied_with_the_one_that_ends_them(
    on_port: Opener, port: LiveServer
) -> None:
    a, ears = on_port("a"), Ears()
    go_live(a, ears)
    port.partial_of = 2
    port.write(*(put(f"t{i}", title="x") for i in range(7)))
    assert ears.heard("t6", by_others=True)
    assert a.execute("SELECT count(*) FROM tasks").fetchone() == (7,)
    assert len([r for r in ears.rows if r.by_others]) == 7


def test_a_cut_connection_loses_and_doubles_nothing(on_port: Opener, port: LiveServer) -> None:
    a, ears = on_port("a"), Ears()
    port.write(put("t1"), bump(1))
    go_live(a, ears)
    for _ in range(5):
        port.hold_pushed = True
        a.execute("UPDATE tasks SET votes = votes + 1")
        assert port.wait_for(lambda: port.held)  # applied there, and the answer lost
        before = port.handshakes
        port.held.clear()
        port.hold_pushed = False
        port.cut()
        port.write(bump(100))
        a.execute("UPDATE tasks SET votes = votes + 10")
        assert port.wait_for(lambda before=before: port.handshakes > before)
    assert port.wait_for(lambda: port.server.rows["tasks", "t1"]["fields"]["votes"] == 556)
    assert ears.wait(lambda: votes(a) == 556 and a.status().pending == 0)


def test_a_stop_is_prompt_and_what_is_written_then_goes_with_the_next(
    on_port: Opener, port: LiveServer
) -> None:
    a = on_port("a")
    live = go_live(a)
    live.stop()
    assert live.state == "stopped"
    assert port.wait_for(lambda: not port.sockets)
    a.execute("INSERT INTO tasks (id) VALUES ('t1')")
    assert a.status().pending == 1
    go_live(a)
    assert port.wait_for(lambda: ("tasks", "t1") in port.server.rows)


def test_a_token_that_ends_is_renewed_on_the_open_socket(on_port: Opener, port: LiveServer) -> None:
    a = on_port("a")
    go_live(a)
    port.tell({"type": "token_expiring", "in": 60})
    assert port.wait_for(lambda: any(m["type"] == "token" for m in port.sockets[0].told))
    assert port.handshakes == 1
    assert port.sockets[0].told[-1]["token"] in port.server.access


def test_a_socket_closed_for_its_token_comes_back_with_a_new_one(
    on_port: Opener, port: LiveServer
) -> None:
    a = on_port("a")
    live = go_live(a)
    port.server.expired.update(port.server.access)
    port.close_with(4401)
    assert port.wait_for(lambda: port.handshakes == 2)
    assert live.wait_until("live", timeout_s=10)
    assert port.server.refreshed == 1


def test_a_revoked_device_stops_for_good(on_port: Opener, port: LiveServer) -> None:
    live = go_live(on_port("a"))
    port.close_with(4403)
    assert live.wait_until("stopped", timeout_s=10)
    assert "revoked" in live.words


def test_a_refused_change_is_listed_and_its_row_set_right(
    on_port: Opener, port: LiveServer
) -> None:
    a, ears = on_port("a"), Ears()
    port.write(put("t1", title="theirs"))
    go_live(a, ears)
    port.server.refuse = lambda change: {"code": "invalid_text", "detail": "no"}
    a.execute("UPDATE tasks SET title = 'mine'")
    assert ears.heard("t1", by_others=True)
    assert a.execute("SELECT title FROM tasks").fetchone() == ("theirs",)
    assert [r.code for r in a.status().refused] == ["invalid_text"]


def test_presence_is_shown_to_others_and_shown_again_after_a_cut(
    on_port: Opener, port: LiveServer
) -> None:
    a, b, ears = on_port("a"), on_port("b"), Ears()
    live = go_live(a)
    go_live(b, ears)
    live.presence("me", {"typing": True})
    assert ears.wait(lambda: ears.presences)
    space, device, state = ears.presences[0]
    assert (space, device, state) == (SPACE, a.status().device_id, {"typing": True})
    port.cut()
    assert port.wait_for(lambda: any(m["type"] == "presence" for s in port.sockets for m in s.told))


def test_a_space_withdrawn_while_live_takes_its_rows_along(
    on_port: Opener, port: LiveServer
) -> None:
    a, ears = on_port("a"), Ears()
    port.write(put("t1"))
    go_live(a, ears)

    def instead(_: Answer) -> Answer:
        return {"error": {"code": "forbidden", "detail": "no member"}}

    port.server.scripts += [instead, instead]
    port.tell({"type": "error", "space": SPACE, "code": "forbidden", "detail": "no member"})
    assert ears.wait(lambda: any(r.key is None for r in ears.rows))
    assert a.execute("SELECT count(*) FROM tasks").fetchone() == (0,)


def test_a_network_that_strips_upgrades_is_polled_instead(
    on_port: Opener, port: LiveServer
) -> None:
    a, ears = on_port("a"), Ears()
    port.strip_upgrade = True
    live = a.live(ears.on_change)
    assert live.wait_until("polling", timeout_s=10), live.words
    assert port.wait_for(lambda: port.polls > 0)
    start = time.monotonic()
    live.stop()  # does not wait for the poll
    assert time.monotonic() - start < STOP_WAIT_S
    live = a.live(ears.on_change)
    assert live.wait_until("polling", timeout_s=10), live.words
    assert port.wait_for(lambda: port.polls > 1)
    port.write(put("t1", title="by poll"))
    assert ears.heard("t1", by_others=True)
    a.execute("INSERT INTO tasks (id) VALUES ('t2')")
    assert port.wait_for(lambda: ("tasks", "t2") in port.server.rows)
    port.strip_upgrade = False
    live.wake()
    assert live.wait_until("live", timeout_s=10)


def test_a_server_that_is_away_is_waited_for_and_nothing_is_lost(
    on_port: Opener, port: LiveServer
) -> None:
    a = on_port("a")
    a.sync()
    address = port.address
    with rejoin.open(a.path, "http://127.0.0.1:1", rand=lambda: 0.001) as lost:
        live = lost.live()
        assert live.wait_until("waiting", timeout_s=10)
        lost.execute("INSERT INTO tasks (id) VALUES ('t1')")
        with rejoin.open(a.path, address):
            live.wake()
            assert live.wait_until("live", timeout_s=10), live.words
        assert port.wait_for(lambda: ("tasks", "t1") in port.server.rows)


def test_a_callback_that_fails_does_not_end_the_conversation(
    on_port: Opener, port: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    a = on_port("a")
    heard: list[Any] = []
    done = threading.Event()

    def fails(rows: list[rejoin.RowChange]) -> None:
        heard.extend(rows)
        if len(heard) > 1:
            done.set()
        raise ValueError("the app's own mistake")

    live = a.live(fails)
    assert live.wait_until("live", timeout_s=10)
    port.write(put("t1"))
    assert port.wait_for(lambda: acked(port.sockets[0], port.server.head))
    port.write(put("t2"))
    assert done.wait(10)
    assert live.state == "live"
    assert "callback" in caplog.text


@contextmanager
def running(path: Path) -> Iterator[subprocess.Popen[str]]:
    """`rejoin live` on a file; killed at the end where it has not ended."""
    with subprocess.Popen(
        [sys.executable, "-m", "rejoin", "live", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(rejoin.__file__).parents[1])},
    ) as shell:
        try:
            yield shell
        finally:
            shell.kill()


def test_the_command_line_prints_changes_as_they_come(
    on_port: Opener, port: LiveServer, tmp_path: Path
) -> None:
    on_port("a").close()
    path = tmp_path / "a.sqlite"
    with running(path) as shell:
        out, err = shell.stdout, shell.stderr
        assert out
        assert err
        assert port.wait_for(lambda: any(one.ready for one in port.sockets))
        port.write(put("t1", title="Milk"))
        assert out.readline() == (
            "< tasks t1: title='Milk' done=None body=None anything=None votes=0 tags='[]'\n"
        )
        with rejoin.open(path) as db:
            db.execute("UPDATE tasks SET title = 'Oat'")
        assert out.readline() == "> tasks t1: title='Oat'\n"
        assert port.wait_for(lambda: port.server.rows["tasks", "t1"]["fields"]["title"] == "Oat")
        port.write({"op": "delete", "collection": "tasks", "id": "t1"})
        assert out.readline() == "< tasks t1: gone\n"
        shell.send_signal(signal.SIGINT)
        assert shell.wait(10) == 0
        assert err.read() == "- live\n- stopped\n"
