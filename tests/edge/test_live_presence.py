"""Presence: seen by the other devices that are online, through any worker, and gone with them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import text

from storage.engine import make_engine
from tests.conftest import LiveServer
from tests.contract.devices import Phone
from tests.edge.sockets import Websocket
from tests.edge.web import on_each_worker, phone_at, worker_of


@pytest.fixture(scope="module")
def server(start_server: Callable[..., LiveServer]) -> LiveServer:
    return start_server()


@pytest.fixture
def a(server: LiveServer) -> Phone:
    return phone_at(server.url)


@pytest.fixture
def pair(server: LiveServer, a: Phone) -> Iterator[list[Websocket]]:
    """Sockets of one device, one on each worker."""
    made = on_each_worker(server.worker_pids(), lambda: Websocket(server.url, token=a.token))
    for socket in made:
        socket.hello("me")
    yield made
    for socket in made:
        socket.drop()


def test_presence_comes_to_the_others_on_every_worker_and_not_to_oneself(
    server: LiveServer, a: Phone, pair: list[Websocket]
) -> None:
    mine = Websocket(server.url, token=a.token)
    mine.hello("me")
    mine.send({"type": "presence", "space": "me", "state": {"typing": True}})
    for socket in pair:
        seen = socket.until("presence")
        assert seen == {
            "type": "presence",
            "space": "me",
            "device": a.device,
            "state": {"typing": True},
        }
    mine.send({"type": "ping"})
    assert mine.receive() == {"type": "pong"}
    mine.close()


def test_presence_goes_with_the_connection(
    server: LiveServer, a: Phone, pair: list[Websocket]
) -> None:
    mine = Websocket(server.url, token=a.token)
    mine.hello("me")
    mine.send({"type": "presence", "space": "me", "state": {"at": 1}})
    for socket in pair:
        assert socket.until("presence")["state"] == {"at": 1}
    mine.drop()
    for socket in pair:
        assert socket.until("presence")["state"] is None


def test_who_comes_later_sees_who_is_there_whichever_worker_serves_them(
    server: LiveServer, a: Phone
) -> None:
    mine = Websocket(server.url, token=a.token)
    mine.hello("me")
    mine.send({"type": "presence", "space": "me", "state": {"name": "Ada"}})
    mine.send({"type": "ping"})
    mine.until("pong")
    for late in on_each_worker(server.worker_pids(), lambda: Websocket(server.url, token=a.token)):
        late.hello("me")
        assert late.until("presence")["state"] == {"name": "Ada"}
        late.close()
    mine.close()


def test_presence_of_a_killed_workers_devices_ends(start_server: Callable[..., LiveServer]) -> None:
    server = start_server()
    a = phone_at(server.url)
    mine, other = on_each_worker(server.worker_pids(), lambda: Websocket(server.url, token=a.token))
    for socket in (mine, other):
        socket.hello("me")
    mine.send({"type": "presence", "space": "me", "state": {"x": 1}})
    assert other.until("presence")["state"] == {"x": 1}
    os.kill(worker_of(server.worker_pids(), mine), signal.SIGKILL)
    assert other.until("presence", patience=40)["state"] is None
    other.close()
    mine.drop()


CUT_LISTENERS = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND query LIKE 'LISTEN%'
"""


def test_who_left_while_the_workers_heard_nothing_of_each_other_is_not_shown_for_ever(
    server: LiveServer,
) -> None:
    a = phone_at(server.url)
    b = phone_at(server.url, a.email)
    mine, other = on_each_worker(server.worker_pids(), lambda: Websocket(server.url, token=a.token))
    stays, idle = on_each_worker(server.worker_pids(), lambda: Websocket(server.url, token=b.token))
    assert worker_of(server.worker_pids(), mine) == worker_of(server.worker_pids(), stays)
    other.hello("me")
    for socket, state in ((mine, {"leaves": 1}), (stays, {"stays": 1})):
        socket.hello("me")
        socket.send({"type": "presence", "space": "me", "state": state})
        assert other.until("presence")["state"] == state
    database = make_engine(server.database_url, 1)
    with database.connect() as connection:
        assert len(connection.execute(text(CUT_LISTENERS)).all()) == 2
    mine.drop()
    database.dispose()
    gone = other.until("presence")
    assert (gone["device"], gone["state"]) == (a.device, None)
    for late in on_each_worker(server.worker_pids(), lambda: Websocket(server.url, token=a.token)):
        late.hello("me")
        assert late.until("presence")["state"] == {"stays": 1}
        late.send({"type": "ping"})
        assert late.receive() == {"type": "pong"}
        late.close()
    for socket in (other, stays, idle):
        socket.close()
