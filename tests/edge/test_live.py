"""`/v1/live` on a real gunicorn with two workers: what comes, where, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import LiveServer
from tests.contract.devices import Phone, put
from tests.edge.sockets import Closed, Refused, Websocket
from tests.edge.web import on_each_worker, phone_at


@pytest.fixture(scope="module")
def server(start_server: Callable[..., LiveServer]) -> LiveServer:
    return start_server()


@pytest.fixture
def a(server: LiveServer) -> Phone:
    return phone_at(server.url)


def space_of(phone: Phone) -> str:
    answer = phone.get("/v1/spaces").json
    found: str = next(one["id"] for one in answer["spaces"] if one["personal"])
    return found


def live(server: LiveServer, phone: Phone, **how: Any) -> Websocket:
    return Websocket(server.url, token=phone.token, **how)


@pytest.mark.parametrize("packed", [False, True])
def test_a_push_of_one_device_comes_to_the_other_through_another_worker(
    server: LiveServer, a: Phone, packed: bool
) -> None:
    b = phone_at(server.url, a.email)
    pids = server.worker_pids()
    one, two = on_each_worker(pids, lambda: live(server, b, packed=packed))
    writer = live(server, a, packed=packed)
    for socket in (one, two, writer):
        ready = socket.hello("me")
        assert ready["spaces"] == {"me": {"epoch": 1, "head": 0}}
    writer.send({"type": "push", "ref": 7, "space": "me", "changes": [a.change(put("t", x=1))]})
    pushed = writer.until("pushed")
    assert (pushed["ref"], pushed["accepted"], pushed["rejected"]) == (7, 1, [])
    for socket in (one, two):
        delta = socket.receive()
        assert (delta["type"], delta["space"]) == ("delta", "me")
        assert (delta["from"], delta["cursor"], delta["partial"]) == (0, 1, False)
        assert delta["records"][0]["fields"] == {"x": 1}
        assert delta["clock"] == {a.device: 1}
        socket.close()
    writer.close()


def test_a_token_may_come_in_the_query_or_in_the_first_message(
    server: LiveServer, a: Phone
) -> None:
    in_query = Websocket(server.url, f"/v1/live?token={a.token}")
    assert in_query.hello("me")["spaces"]["me"]["head"] == 0
    in_message = Websocket(server.url)
    assert in_message.hello("me", token=a.token)["spaces"]["me"]["head"] == 0
    in_query.close()
    in_message.close()


def test_a_bad_token_is_answered_before_the_handshake(server: LiveServer) -> None:
    with pytest.raises(Refused) as refused:
        Websocket(server.url, token="nonsense")
    assert (refused.value.status, refused.value.problem["code"]) == (401, "token_invalid")


def test_without_a_token_the_first_message_must_bring_one(server: LiveServer) -> None:
    socket = Websocket(server.url)
    socket.send({"type": "hello", "spaces": {}})
    assert socket.receive()["code"] == "token_missing"
    assert socket.closed() == Closed(4401, "token_missing")


def test_a_second_hello_changes_the_set_and_streams_go_on(server: LiveServer, a: Phone) -> None:
    shared = a.post("/v1/spaces", {"name": "shared"}).json["id"]
    socket = live(server, a)
    socket.hello("me")
    a.sync(a.change(put("t", x=1)))
    assert socket.until("delta")["cursor"] == 1
    socket.hello("me", shared)
    other = Phone(a.http, a.email, a.token, a.device, shared)
    other.sync(other.change(put("s", x=1)))
    delta = socket.receive()
    assert (delta["space"], delta["from"], delta["cursor"]) == (shared, 0, 1)
    a.sync(a.change(put("t", x=2)))
    delta = socket.receive()
    assert (delta["space"], delta["from"], delta["cursor"]) == ("me", 1, 2)
    socket.hello(shared, cursor=1)
    a.sync(a.change(put("t", x=3)))
    other.sync(other.change(put("s", x=2)))
    delta = socket.receive()
    assert (delta["space"], delta["from"], delta["cursor"]) == (shared, 1, 2)
    socket.close()


def test_a_push_repeated_on_the_socket_is_acknowledged_not_applied(
    server: LiveServer, a: Phone
) -> None:
    socket = live(server, a)
    socket.hello("me")
    push = {"type": "push", "ref": 1, "space": "me", "changes": [a.change(put("t", x=1))]}
    for _ in range(2):
        socket.send(push)
        pushed = socket.until("pushed")
        assert (pushed["accepted"], pushed["head"]) == (1, 1)
    socket.close()
