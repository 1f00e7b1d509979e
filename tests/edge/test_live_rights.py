"""Who may not stay is sent away within two seconds, on every worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import LiveServer
from tests.contract.devices import PASSWORD, Phone, put
from tests.edge.sockets import Closed, Refused, Websocket
from tests.edge.web import on_each_worker, phone_at

PROMISED_SECONDS = 2.0
# For a machine that others work on too.
ALLOWED_SECONDS = PROMISED_SECONDS + 2.0


@pytest.fixture(scope="module")
def server(start_server: Callable[..., LiveServer]) -> LiveServer:
    return start_server()


@pytest.fixture
def a(server: LiveServer) -> Phone:
    return phone_at(server.url)


def each_worker(server: LiveServer, phone: Phone, *spaces: str) -> list[Websocket]:
    made = on_each_worker(server.worker_pids(), lambda: Websocket(server.url, token=phone.token))
    for socket in made:
        assert "error" not in str(socket.hello(*spaces)["spaces"])
    return made


def _soon(ended: Callable[[], Any]) -> Any:
    began = time.monotonic()
    found = ended()
    assert time.monotonic() - began < ALLOWED_SECONDS
    return found


def test_a_revoked_device_is_sent_away_from_every_worker(server: LiveServer, a: Phone) -> None:
    b = phone_at(server.url, a.email)
    sockets = each_worker(server, b, "me")
    assert a.http.delete(f"/v1/devices/{b.device}", headers=a.headers).status_code == 204
    for socket in sockets:
        assert _soon(socket.closed) == Closed(4403, "device_revoked")
    with pytest.raises(Refused) as refused:
        Websocket(server.url, token=b.token)
    assert (refused.value.status, refused.value.problem["code"]) == (401, "device_revoked")


def test_a_replaced_device_is_told_of_the_fork(server: LiveServer, a: Phone) -> None:
    sockets = each_worker(server, a, "me")
    phone_at(server.url, a.email, replaces=a.device)
    for socket in sockets:
        assert _soon(socket.closed) == Closed(4409, "device_fork")
    with pytest.raises(Refused) as refused:
        Websocket(server.url, token=a.token)
    assert (refused.value.status, refused.value.problem["code"]) == (409, "device_fork")


def test_a_withdrawn_member_hears_so_and_keeps_the_other_spaces(
    server: LiveServer, a: Phone
) -> None:
    b = phone_at(server.url)
    space = a.post("/v1/spaces", {"name": "shared"}).json["id"]
    member = f"/v1/spaces/{space}/members/{b.email}"
    added = a.http.put(member, json={"role": "editor"}, headers=a.headers)
    assert added.status_code < 300, added.text
    sockets = each_worker(server, b, "me", space)
    assert a.http.delete(member, headers=a.headers).status_code < 300
    for socket in sockets:
        error = _soon(lambda one=socket: one.until("error"))
        assert (error["code"], error["space"]) == ("forbidden", space)
    a.space = space
    assert a.sync(a.change(put("t", x=1)))["accepted"] == 1
    b.sync(b.change(put("mine", x=1)))
    for socket in sockets:
        assert socket.until("delta")["space"] == "me"
        socket.close()


def test_an_expired_token_ends_the_session_and_a_fresh_one_keeps_it(
    start_server: Callable[..., LiveServer],
) -> None:
    server = start_server(REJOIN_ACCESS_TOKEN_SECONDS="10")
    a = phone_at(server.url)
    left, kept = each_worker(server, a, "me")
    for socket in (left, kept):
        assert 0 <= socket.until("token_expiring")["in"] <= 10
    fresh = _login_again(a)
    kept.send({"type": "token", "token": fresh})
    assert left.closed() == Closed(4401, "token_expired")
    kept.send({"type": "ping"})
    assert kept.until("pong")
    assert kept.closed() == Closed(4401, "token_expired")


def _login_again(a: Phone) -> str:
    body = {
        "email": a.email,
        "password": PASSWORD,
        "device_id": a.device,
        "device": {"name": "phone", "platform": "test", "app_version": "1"},
    }
    answer = a.http.post("/v1/auth/login", json=body)
    assert answer.status_code == 200, answer.text
    token: str = answer.json["access_token"]
    return token


def test_another_devices_token_does_not_renew_this_ones(server: LiveServer, a: Phone) -> None:
    b = phone_at(server.url, a.email)
    socket = Websocket(server.url, token=a.token)
    socket.hello("me")
    socket.send({"type": "token", "token": b.token})
    assert socket.closed() == Closed(4401, "token_invalid")


def test_a_viewer_reads_and_a_push_of_theirs_is_an_error_with_its_ref(
    server: LiveServer, a: Phone
) -> None:
    b = phone_at(server.url)
    space = a.post("/v1/spaces", {"name": "shared"}).json["id"]
    a.http.put(f"/v1/spaces/{space}/members/{b.email}", json={"role": "viewer"}, headers=a.headers)
    socket = Websocket(server.url, token=b.token)
    socket.hello(space)
    push = {"type": "push", "ref": "x", "space": space, "changes": [b.change(put("t", x=1))]}
    socket.send(push)
    error = socket.until("error")
    assert (error["code"], error["ref"], error["space"]) == ("forbidden", "x", space)
    a.space = space
    a.sync(a.change(put("t", x=2)))
    assert socket.until("delta")["records"][0]["fields"] == {"x": 2}
    socket.close()


def test_a_device_behind_its_own_count_is_told_of_the_fork(server: LiveServer, a: Phone) -> None:
    a.sync(a.change(put("t", x=1)), a.change(put("t", x=2)))
    socket = Websocket(server.url, token=a.token)
    socket.send({"type": "hello", "spaces": {"me": {"cursor": 2, "counter": 1}}})
    assert socket.closed() == Closed(4409, "device_fork")


def test_a_gap_is_an_error_and_the_session_goes_on(server: LiveServer, a: Phone) -> None:
    socket = Websocket(server.url, token=a.token)
    socket.hello("me")
    a.counter = 4
    change = a.change(put("t", x=1))
    socket.send({"type": "push", "ref": 1, "space": "me", "changes": [change]})
    error = socket.until("error")
    assert (error["code"], error["expected"], error["ref"]) == ("counter_gap", 1, 1)
    socket.send({"type": "ping"})
    assert socket.until("pong")
    socket.close()
