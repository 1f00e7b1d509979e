"""The support desk, asked by those who may not, and with what means harm."""

from __future__ import annotations

import base64
from hashlib import blake2b
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from app.openapi import described_routes
from tests.contract.devices import PASSWORD, Phone, add, phone, put
from tests.contract.people import Person, told
from tests.contract.staff import Agent
from tests.hostile.doors import MSGPACK, ledger, written

MARKUP = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
# What a search, a name or an id may hold: metacharacters of SQL, LIKE, regular expressions, paths.
NASTY = [
    "'; DROP TABLE users; --",
    "' OR '1'='1",
    "%",
    "_",
    "\\",
    "%' ESCAPE '",
    "$1",
    ":name",
    "%(x)s",
    "{x}",
    ".*",
    "../../etc/passwd",
    MARKUP,
    "\u202e" * 40,
    "e\u0301" * 60,
    "😀" * 50,
]


@pytest.fixture
def agent(client: FlaskClient, engine: Engine) -> Agent:
    return Agent(client, engine, "support")


@pytest.fixture
def admin(client: FlaskClient, engine: Engine) -> Agent:
    return Agent(client, engine, "admin")


@pytest.fixture
def space(a: Phone) -> str:
    found: str = a.get("/v1/spaces").json["spaces"][0]["id"]
    return found


def doors(app: Flask) -> list[tuple[str, str]]:
    """(method, path) of each endpoint of staff's, with ids that name nothing."""
    found = []
    for rule, method, _ in described_routes(app):
        if rule.rule.startswith("/v1/admin/"):
            path = rule.rule
            for name in rule.arguments:
                value = "1" if name == "counter" else str(uuid4())
                path = path.replace(f"<uuid:{name}>", value).replace(f"<int:{name}>", value)
            found.append((method, path))
    assert len(found) > 20
    return found


def ask(client: FlaskClient, method: str, path: str, headers: dict[str, str], **more: Any) -> Any:
    body = {"json": {"reason": "r"}} if method == "POST" else {}
    return client.open(path, method=method, headers=headers, **{**body, **more})


def test_a_users_token_opens_none_of_it(app: Flask, client: FlaskClient) -> None:
    ada = Person(client)
    for method, path in doors(app):
        told(ask(client, method, path, {}), 401, "token_missing")
        if "record" not in path and "settle" not in path and "restore" not in path:
            told(ask(client, method, path, ada.headers), 403, "forbidden")
        else:
            assert ask(client, method, path, ada.headers).status_code in {400, 403}


def test_a_role_that_was_taken_away_is_gone_with_the_next_request(
    agent: Agent, engine: Engine
) -> None:
    assert agent.ask("/overview").status_code == 200
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE users SET role = 'user' WHERE id = :id"), {"id": agent.user_id}
        )
    told(agent.ask("/overview"), 403, "forbidden")


def test_a_support_token_does_none_of_an_admins_actions(
    agent: Agent, a: Phone, space: str, engine: Engine
) -> None:
    a.sync(a.change(put("t", new=True, n=1)), a.change(add("t", "n", 1)))
    kept = ledger(engine, a)
    for path in (
        f"/devices/{a.device}/revoke",
        f"/spaces/{space}/compact",
        f"/quarantine/{space}/{a.device}/2/discard",
        f"/users/{agent.user_id}/erase",
        f"/users/{agent.user_id}/export",
    ):
        told(agent.do(path, reason="r"), 403, "forbidden")
    told(agent.ask("/audit"), 403, "forbidden")
    assert ledger(engine, a) == kept


@pytest.mark.parametrize("text_", NASTY)
def test_metacharacters_are_text(text_: str, agent: Agent, client: FlaskClient) -> None:
    ada = phone(client, name=text_, platform=text_, app_version=text_)
    strangers = phone(client, name="plain", platform="plain", app_version="plain")
    for name in ("name", "platform", "app_version", "q"):
        found = agent.see("/devices", **{name: text_}, limit=200)["devices"]
        ids = {device["id"] for device in found}
        assert ada.device in ids
        assert strangers.device not in ids
    assert agent.see("/devices", email=text_)["devices"] == []
    assert agent.see("/users", email=text_)["users"] == []
    (shown,) = agent.see("/devices", id=ada.device)["devices"]
    assert (shown["name"], shown["platform"]) == (text_, text_)


@pytest.mark.parametrize("id_", [*NASTY, "a" * 128, "\n", " "])
def test_records_of_any_name_are_found_and_settled(
    id_: str, agent: Agent, a: Phone, space: str
) -> None:
    b = phone(a.http, a.email)
    for who in (a, b):
        change = who.change(put(id_, collection=id_, **{id_: who.device}), context={"cursor": 0})
        assert who.sync(change)["rejected"] == []
    key = {"collection": id_, "id": id_}
    assert agent.see(f"/spaces/{space}/record", **key)["fields"][0]["name"] == id_
    assert len(agent.see(f"/spaces/{space}/record/history", **key)["changes"]) == 2
    body = {**key, "field": id_, "seen": 2, "value": MARKUP, "reason": MARKUP}
    assert agent.do(f"/spaces/{space}/settle", **body).status_code == 200
    assert a.pull_all()[id_, id_]["fields"] == {id_: MARKUP}


BAD_QUERIES = [
    ("/devices", {"state": "broken"}),
    ("/devices", {"behind": "-1"}),
    ("/devices", {"behind": "1e9"}),
    ("/devices", {"behind": "9" * 30}),
    ("/devices", {"behind_seconds": "9" * 18}),
    ("/devices", {"limit": "0"}),
    ("/devices", {"limit": "201"}),
    ("/devices", {"id": "no uuid"}),
    ("/devices", {"user": "{00000000-0000-0000-0000-000000000000}"}),
    ("/devices", {"q": "x" * 255}),
    ("/devices", {"q": "a\0b"}),
    ("/devices", {"unknown": "1"}),
    ("/users", {"email": "x" * 255}),
    ("/audit", {"actor": "me"}),
    ("/conflicts", {"space": "me"}),
    ("/conflicts", {"values": "yes"}),
    ("/quarantine", {"state": "all"}),
]


@pytest.mark.parametrize(("path", "query"), BAD_QUERIES)
def test_a_bad_parameter_is_named(path: str, query: dict[str, str], admin: Agent) -> None:
    answer = admin.ask(path, **query)
    assert answer.status_code == 400, answer.text
    assert answer.json["code"] in {"bad_parameter", "invalid_text"}


def forged(kind: str, *key: Any) -> str:
    """A token with a right checksum: whoever reads the code can make one."""
    packed = msgspec.msgpack.encode([kind, list(key)])
    whole = blake2b(packed, digest_size=8).digest() + packed
    return base64.urlsafe_b64encode(whole).decode().rstrip("=")


@pytest.mark.parametrize(
    ("path", "kind", "key"),
    [
        ("/devices", "devices", ("not an id",)),
        ("/devices", "devices", ()),
        ("/devices", "devices", (str(uuid4()), 1)),
        ("/devices", "users", (str(uuid4()),)),
        ("/conflicts", "conflicts", (str(uuid4()), "a\0b", "c")),
        ("/conflicts", "conflicts", (str(uuid4()), 7, "c")),
        ("/quarantine", "quarantine", (str(uuid4()), 2**63, 1)),
        ("/audit", "audit", (2**64 - 1,)),
        ("/audit", "audit", (-1,)),
    ],
)
def test_a_forged_page_token_is_a_bad_page(
    path: str, kind: str, key: tuple[Any, ...], admin: Agent
) -> None:
    told(admin.ask(path, page=forged(kind, *key)), 400, "bad_page")


def test_pages_past_the_end_are_empty(admin: Agent) -> None:
    last = "ffffffff-ffff-ffff-ffff-ffffffffffff"
    assert admin.see("/devices", page=forged("devices", last)) == {"devices": [], "page": None}
    assert admin.see("/users", page=forged("users", last)) == {"users": [], "page": None}
    assert admin.see("/audit", page=forged("audit", 0))["entries"] == []
    assert admin.see("/conflicts", page=forged("conflicts", last, "z", "z"))["conflicts"] == []


BAD_CHANGES: list[Any] = [
    {"ops": [{"op": "put", "collection": "c", "id": "\ud800", "fields": {"\ud800": "\udfff"}}]},
    {"ops": [{"op": "put", "collection": "a\0b", "id": "i", "fields": {"f": "a\0b"}}]},
    {"ops": [{"op": MARKUP}]},
    {"ops": [7, None, [], "x"]},
    {"ops": {"op": "put"}},
    {"ops": 10**400},
    {"ops": [{"op": "put", "collection": "c", "id": "i", "fields": {"f": 2**70}}]},
    {"ops": [{"op": "increment", "collection": "c", "id": "i", "field": "f", "by": 1e400}]},
    {"context": {"cursor": MARKUP, "clock": {"x": []}}, "ops": []},
    {"context": None, "ops": []},
    {"at": MARKUP, "ops": []},
]


@pytest.mark.parametrize("bad", BAD_CHANGES)
@pytest.mark.parametrize("format_", ["application/json", MSGPACK])
def test_whatever_was_put_aside_is_shown_and_can_be_repaired(
    bad: dict[str, Any], format_: str, agent: Agent, admin: Agent, a: Phone, space: str
) -> None:
    if format_ == MSGPACK and isinstance(bad["ops"], int):
        bad = {"ops": 2**64 - 1}
    change = {"counter": 1, "context": {"cursor": 0}, "at": 1, **bad}
    if format_ == MSGPACK:
        change = _packable(change)
    data = written({"spaces": {"me": {"changes": [change]}}}, format_)
    headers = {**a.headers, "Content-Type": format_, "Accept": "application/json"}
    answer = a.http.post("/v1/sync", data=data, headers=headers).json["spaces"]["me"]
    assert [one["counter"] for one in answer["rejected"]] == [1]
    path = f"/quarantine/{space}/{a.device}/1"
    query = {"values": "true", "reason": "r"}
    for accept in ("application/json", MSGPACK):
        for asked in ({}, query):
            shown = admin.client.get(
                f"/v1/admin{path}",
                query_string=asked,
                headers={**admin.headers, "Accept": accept},
            )
            assert shown.status_code == 200, shown.text
    refused = agent.do(f"{path}/replay", reason="as it is")
    assert refused.status_code in {200, 400, 422}, refused.text
    if refused.status_code != 200:
        repaired = agent.do(f"{path}/replay", reason="r", ops=[put("t", new=True, n=1)])
        assert repaired.status_code == 200, repaired.text
    assert agent.see("/quarantine", device=a.device)["quarantine"] == []


def _packable(change: dict[str, Any]) -> dict[str, Any]:
    """Without integers beyond MessagePack's."""
    return {
        name: 2**64 - 1 if type(part) is int and part > 2**64 else part
        for name, part in change.items()
        if name != "ops" or "70" not in str(part)
    } | {"ops": change["ops"] if "1180591620717411303424" not in str(change["ops"]) else [1]}


@pytest.mark.parametrize(
    "body",
    [
        {"seen": -1},
        {"seen": "3"},
        {"seen": 1.5},
        {"seen": 2**60},
        {"field": 7},
        {"value": 1, "sibling": {"device": str(uuid4()), "counter": 1}},
        {"sibling": {"device": "x", "counter": 1}},
        {"sibling": {"device": str(uuid4()), "counter": 0}},
        {"unknown": 1},
        {},
    ],
)
def test_a_settlement_that_is_not_one_changes_nothing(
    body: dict[str, Any], agent: Agent, a: Phone, space: str, engine: Engine
) -> None:
    a.sync(a.change(put("t", new=True, n=1)))
    kept = ledger(engine, a)
    whole = {"collection": "tasks", "id": "t", "field": "n", "seen": 1, "reason": "r", **body}
    answer = agent.do(f"/spaces/{space}/settle", **whole)
    told(answer, 400, "malformed_request")
    assert ledger(engine, a) == kept


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (2**70, "invalid_number"),
        ("x" * 300_000, "body_too_large"),
        ([[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]], "too_deep"),
        ("a\0b", "invalid_text"),
    ],
)
def test_a_settlement_on_no_value_is_refused_whole(
    value: Any, code: str, agent: Agent, a: Phone, space: str, engine: Engine
) -> None:
    a.sync(a.change(put("t", new=True, n=1)))
    kept = ledger(engine, a)
    body = {"collection": "tasks", "id": "t", "field": "n", "seen": 1, "reason": "r"}
    answer = agent.do(f"/spaces/{space}/settle", **body, value=value)
    assert answer.status_code in {400, 413, 422}
    assert answer.json["code"] == code
    assert ledger(engine, a) == kept


def test_an_action_that_fails_leaves_nothing_in_the_trail(
    admin: Agent, a: Phone, space: str
) -> None:
    a.sync(a.change(put("t", new=True, n=1)), a.change(add("t", "n", 1)))
    path = f"/quarantine/{space}/{a.device}/2/replay"
    told(admin.do(path, reason="r"), 422, "field_type_mismatch")
    told(admin.do(path, reason="r", drop=[7]), 400, "malformed_request")
    assert admin.see("/audit", subject=space)["entries"] == []


def test_another_spaces_record_is_not_reached_by_this_ones_name(
    agent: Agent, a: Phone, space: str
) -> None:
    other = phone(a.http)
    other.sync(other.change(put("secret", new=True, n=1)))
    query = {"collection": "tasks", "id": "secret"}
    told(agent.ask(f"/spaces/{space}/record", **query), 404, "not_found")
    told(agent.ask(f"/spaces/{uuid4()}/record", **query), 404, "not_found")
    told(agent.ask(f"/spaces/{space}/log", device=other.device), 404, "not_found")


def test_a_login_can_not_make_itself_staff(client: FlaskClient) -> None:
    email = f"{uuid4()}@example.org"
    body = {"email": email, "password": PASSWORD, "role": "admin"}
    told(client.post("/v1/auth/signup", json=body), 400, "malformed_request")
