"""The door of `/v1/live`, before the handshake, and how its messages are read."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.live.hub import Hub
from app.live.routes import EXTENSION, STRANGERS_MAX
from app.live.sockets import sockets
from app.trees import Body, Doubled, Format, parse_tree
from sync.changes import Change
from sync.errors import BadRequest, SyncError
from sync.limits import Limits
from sync.messages import Ack, Hello, Ping, Presence, Token, about, read_message
from sync.requests import PushMessage, Source
from tests.contract.devices import phone
from tests.contract.people import told

HANDSHAKE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.fixture
def gunicorns(app: Flask) -> dict[str, Any]:
    """An environ as gunicorn makes it. The socket is never looked at: nobody comes so far."""
    return {"gunicorn.socket": None}


def test_a_plain_request_is_no_websocket(client: FlaskClient) -> None:
    told(client.get("/v1/live"), 400, "malformed_request")


def test_without_gunicorn_there_are_no_websockets_and_the_answer_says_so(
    client: FlaskClient,
) -> None:
    told(client.get("/v1/live", headers=HANDSHAKE), 503, "unavailable")


def test_who_may_not_come_in_is_told_by_http(
    client: FlaskClient, gunicorns: dict[str, Any]
) -> None:
    def knock(path: str = "/v1/live", **headers: str) -> Any:
        return client.get(path, headers={**HANDSHAKE, **headers}, environ_base=gunicorns)

    told(knock(Authorization="Bearer x"), 401, "token_invalid")
    told(knock(Authorization="Basic x"), 401, "token_invalid")
    told(knock("/v1/live?token=x"), 401, "token_invalid")
    one = phone(client)
    assert client.delete(f"/v1/devices/{one.device}", headers=one.headers).status_code == 204
    told(knock(**one.headers), 401, "device_revoked")
    told(knock(f"/v1/live?token={one.token}"), 401, "device_revoked")
    two = phone(client)
    phone(client, two.email, replaces=two.device)
    told(knock(**two.headers), 409, "device_fork")


def test_past_the_caps_new_sockets_are_asked_to_come_later(
    app: Flask, client: FlaskClient, gunicorns: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub: Hub = app.extensions[EXTENSION]
    monkeypatch.setattr(hub, "strangers", STRANGERS_MAX)
    answer = client.get("/v1/live", headers=HANDSHAKE, environ_base=gunicorns)
    told(answer, 503, "too_many_sockets")
    assert int(answer.headers["Retry-After"]) > 0
    monkeypatch.setattr(sockets(app), "most", 0)
    told(
        client.get(
            "/v1/live", headers={**HANDSHAKE, "Authorization": "Bearer x"}, environ_base=gunicorns
        ),
        503,
        "too_many_sockets",
    )


# Messages -------------------------------------------------------------------------------------

CHANGE = {
    "counter": 1,
    "context": {"cursor": 0},
    "at": 1,
    "ops": [{"op": "put", "collection": "c", "id": "r", "fields": {"x": 1}}],
}


def source(message: object, format_: Format) -> Source:
    data = json.dumps(message).encode() if format_ == "json" else msgpack.packb(message)
    return Source(data, format_, lambda: parse_tree(Body(data, format_)), Doubled)


@pytest.mark.parametrize("format_", ["json", "msgpack"])
def test_each_message_is_read_in_both_forms_and_unknown_members_are_passed_over(
    format_: Format,
) -> None:
    def read(message: dict[str, Any]) -> Any:
        return read_message(source({**message, "later": [1]}, format_), Limits())

    hello = read({"type": "hello", "spaces": {"me": {"cursor": 3}}, "token": "t"})
    assert isinstance(hello, Hello)
    assert (hello.token, hello.spaces["me"].cursor) == ("t", 3)
    assert read({"type": "ack", "space": "me", "cursor": 4}) == Ack("me", 4)
    assert read({"type": "token", "token": "t"}) == Token("t")
    assert read({"type": "presence", "space": "me", "state": {"x": 1}}) == Presence("me", {"x": 1})
    assert read({"type": "presence", "space": "me", "state": None}) == Presence("me", None)
    assert read({"type": "ping"}) == Ping()
    push = read({"type": "push", "ref": "a", "space": "me", "changes": [CHANGE]})
    assert isinstance(push, PushMessage)
    assert (push.ref, push.space, push.counter) == ("a", "me", None)
    assert isinstance(push.changes[0], Change)


@pytest.mark.parametrize("format_", ["json", "msgpack"])
def test_a_bad_change_on_the_socket_is_its_own_verdict_as_in_a_request(format_: Format) -> None:
    bad = {**CHANGE, "ops": [{"op": "put", "collection": "c", "id": "", "fields": {}}]}
    message = {"type": "push", "space": "me", "changes": [bad, {**CHANGE, "counter": 2}]}
    push = read_message(source(message, format_), Limits())
    assert isinstance(push, PushMessage)
    assert [isinstance(change, Change) for change in push.changes] == [False, True]


def test_what_a_message_was_about_is_told_even_where_it_cannot_be_taken() -> None:
    broken = source({"type": "push", "ref": 7, "space": "me", "changes": 1}, "json")
    with pytest.raises(BadRequest):
        read_message(broken, Limits())
    assert (about(broken).ref, about(broken).space) == (7, "me")
    nothing = Source(b"nonsense", "json", lambda: None, Doubled)
    assert (about(nothing).ref, about(nothing).space) == (None, None)


def test_a_hello_to_more_spaces_than_allowed_is_refused() -> None:
    hello = {"type": "hello", "spaces": {str(n): {} for n in range(4)}}
    with pytest.raises(SyncError) as refused:
        read_message(source(hello, "json"), Limits(spaces_per_request=3))
    assert refused.value.code == "too_many_spaces"
