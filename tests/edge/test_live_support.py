"""A device on its live websocket, as support staff see it and what they ask of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, text

from storage.engine import make_engine
from tests.conftest import LiveServer
from tests.contract.devices import Phone, put
from tests.contract.staff import Agent
from tests.edge.sockets import Websocket
from tests.edge.web import client, phone_at

PATIENCE_SECONDS = 20


@pytest.fixture(scope="module")
def server(start_server: Callable[..., LiveServer]) -> LiveServer:
    return start_server()


@pytest.fixture
def database(server: LiveServer) -> Iterator[Engine]:
    made = make_engine(server.database_url, 1)
    yield made
    made.dispose()


@pytest.fixture
def agent(server: LiveServer, database: Engine) -> Agent:
    return Agent(client(server.url), database, "support")


@pytest.fixture
def a(server: LiveServer) -> Phone:
    return phone_at(server.url)


def until(seen: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not seen():
        assert time.monotonic() < deadline, what


def shown(agent: Agent, who: Phone) -> dict[str, Any]:
    found: dict[str, Any] = agent.see(f"/devices/{who.device}")["device"]
    return found


def test_a_device_is_online_while_its_socket_is_open(
    server: LiveServer, agent: Agent, a: Phone
) -> None:
    socket = Websocket(server.url, token=a.token)
    socket.hello("me")
    until(lambda: shown(agent, a)["online"], "it never came online")
    assert shown(agent, a)["worker"]
    assert shown(agent, a)["state"] == "online"
    socket.close()
    until(lambda: not shown(agent, a)["online"], "it stayed online")
    kinds = {e["kind"] for e in agent.see(f"/devices/{a.device}/events")["events"]}
    assert {"login", "connected", "disconnected"} <= kinds


def test_what_a_socket_is_refused_stands_in_the_timeline(
    server: LiveServer, agent: Agent, a: Phone
) -> None:
    socket = Websocket(server.url, token=a.token)
    socket.hello("me")
    change = {**a.change(put("t", n=1)), "counter": 9}
    socket.send({"type": "push", "ref": 1, "space": "me", "changes": [change]})
    assert socket.until("error")["code"] == "counter_gap"

    def refused() -> bool:
        events = agent.see(f"/devices/{a.device}/events")["events"]
        return "counter_gap" in {event["code"] for event in events}

    until(refused, "the timeline does not show it")
    socket.close()


def test_of_connected_devices_only_the_one_that_was_asked_resets(
    server: LiveServer, agent: Agent, a: Phone
) -> None:
    b = phone_at(server.url, a.email)
    a.sync(a.change(put("t", new=True, n=1)))
    sockets = {who.device: Websocket(server.url, token=who.token) for who in (a, b)}
    for who in (a, b):
        who.sync()
        who.sync()
        sockets[who.device].hello("me", cursor=1, epoch=1)
    answer = agent.do(f"/devices/{b.device}/reset", reason="the screen shows old rows")
    assert answer.status_code == 200, answer.text
    taken = {device: socket.until("delta") for device, socket in sockets.items()}
    assert (taken[a.device]["reset"], taken[a.device]["records"]) == (False, [])
    assert taken[b.device]["reset"] is True
    assert [record["id"] for record in taken[b.device]["records"]] == ["t"]
    assert taken[b.device]["cursor"] == taken[a.device]["cursor"] == 2
    for socket in sockets.values():
        socket.close()


def test_a_server_that_stops_writes_the_last_of_the_timeline(
    start_server: Callable[..., LiveServer],
) -> None:
    server = start_server()
    a = phone_at(server.url)
    for n in range(5):
        a.sync(a.change(put("t", n=n)))
    server.stop()
    made = make_engine(server.database_url, 1)
    sql = text("SELECT sum(changes) FROM events WHERE device_id = :device AND kind = 'pushed'")
    with made.connect() as connection:
        assert connection.scalar(sql, {"device": a.device}) == 5
    made.dispose()
