"""Who may not: bad tokens, other people's spaces, wrong methods and paths. Nothing is decided."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import jwt
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine

from tests.conftest import SECRET
from tests.contract.devices import PASSWORD, Phone, phone
from tests.hostile.doors import Ledger, good, ledger

READS = ("pull", "log", "outcomes", "snapshot")


def _claims(a: Phone) -> dict[str, Any]:
    read: dict[str, Any] = jwt.decode(a.token, options={"verify_signature": False})
    return read


def _signed(claims: dict[str, Any], key: str = SECRET, algorithm: str = "HS256") -> str:
    return jwt.encode(claims, key, algorithm)


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _without(claims: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in claims.items() if key != name}


TOKENS: dict[str, tuple[Callable[[Phone], str], str]] = {
    "garbage": (lambda _: "x.y.z", "token_invalid"),
    "dots": (lambda _: "..", "token_invalid"),
    "half of it": (lambda a: a.token[: len(a.token) // 2], "token_invalid"),
    "a letter changed": (lambda a: a.token[:-5] + "AAAAA", "token_invalid"),
    "no signature": (lambda a: a.token.rpartition(".")[0] + ".", "token_invalid"),
    "another's key": (
        lambda a: _signed(_claims(a), "another secret of thirty-two bytes"),
        "token_invalid",
    ),
    "another algorithm": (lambda a: _signed(_claims(a), SECRET * 2, "HS512"), "token_invalid"),
    "our key, another algorithm": (lambda a: _signed(_claims(a), SECRET, "HS384"), "token_invalid"),
    "no algorithm": (
        lambda a: f"{_part({'alg': 'none', 'typ': 'JWT'})}.{_part(_claims(a))}.",
        "token_invalid",
    ),
    "no algorithm, in capitals": (
        lambda a: f"{_part({'alg': 'NONE'})}.{_part(_claims(a))}.",
        "token_invalid",
    ),
    "a critical header": (
        lambda a: jwt.encode(_claims(a), SECRET, headers={"crit": ["b64"], "b64": False}),
        "token_invalid",
    ),
    "a deep header": (lambda _: _part(eval("[" * 80 + "]" * 80)) + ".e30.x", "token_invalid"),  # noqa: S307
    "a header that is no object": (lambda _: f"{_part([1])}.{_part({})}.x", "token_invalid"),
    "claims that are no object": (
        lambda _: f"{_part({'alg': 'HS256'})}.{_part(1)}.x",
        "token_invalid",
    ),
    "too long": (lambda a: a.token + "x" * 5000, "token_invalid"),
    "no ASCII": (lambda a: a.token[:-1] + "é", "token_invalid"),
    "expired": (lambda a: _signed({**_claims(a), "exp": int(time.time()) - 60}), "token_expired"),
    "not yet good": (
        lambda a: _signed({**_claims(a), "nbf": int(time.time()) + 600}),
        "token_invalid",
    ),
    "for ever": (lambda a: _signed(_without(_claims(a), "exp")), "token_invalid"),
    "for renewal": (lambda a: _signed({**_claims(a), "type": "refresh"}), "token_invalid"),
    "an unknown device": (
        lambda a: _signed({**_claims(a), "device": str(uuid4())}),
        "token_invalid",
    ),
    "no device": (lambda a: _signed(_without(_claims(a), "device")), "token_invalid"),
    "a device that is no id": (lambda a: _signed({**_claims(a), "device": "x\0"}), "token_invalid"),
    "another user": (lambda a: _signed({**_claims(a), "sub": str(uuid4())}), "token_invalid"),
    "an unknown role": (lambda a: _signed({**_claims(a), "role": "king"}), "token_invalid"),
}


@pytest.mark.parametrize("what", TOKENS)
def test_a_bad_token_is_401_and_decides_no_change(
    what: str, a: Phone, kept: Ledger, engine: Engine
) -> None:
    make, code = TOKENS[what]
    _require_refused(a, {"Authorization": f"Bearer {make(a)}"}, code)
    assert ledger(engine, a) == kept


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "token_missing"),
        ("Bearer", "token_invalid"),
        ("Bearer ", "token_invalid"),
        ("Basic dXNlcjpwYXNz", "token_invalid"),
        ("{token}", "token_invalid"),
        ("Token {token}", "token_invalid"),
        ("Bearer {token} {token}", "token_invalid"),
        ("Bearer \xff\xfe", "token_invalid"),
    ],
)
def test_an_odd_authorization_is_401(header: str | None, code: str, a: Phone) -> None:
    headers = {"Authorization": header.format(token=a.token)} if header else {}
    _require_refused(a, headers, code)


def _require_refused(a: Phone, headers: dict[str, str], code: str) -> None:
    change = good(a)
    a.counter -= 1
    asked = [
        a.http.post("/v1/sync", json={"spaces": {"me": {"changes": [change]}}}, headers=headers),
        a.http.post("/v1/spaces/me/push", json={"changes": [change]}, headers=headers),
        *[a.http.get(f"/v1/spaces/me/{path}", headers=headers) for path in READS],
    ]
    for answer in asked:
        assert (answer.status_code, answer.json["code"]) == (401, code), answer.text
        assert answer.content_type == "application/problem+json"
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_refresh_token_opens_no_door(client: FlaskClient, a: Phone) -> None:
    body = {"email": a.email, "password": PASSWORD, "device": {"name": "x"}}
    answer = client.post("/v1/auth/login", json=body)
    _require_refused(
        a, {"Authorization": f"Bearer {answer.json['refresh_token']}"}, "token_invalid"
    )


def test_an_access_token_ends_with_its_time(
    app: Flask, a: Phone, kept: Ledger, engine: Engine
) -> None:
    claims = _claims(a)
    soon = _signed({**claims, "exp": int(time.time()) + 30})
    headers = {"Authorization": f"Bearer {soon}"}
    assert a.http.get("/v1/spaces/me/pull", headers=headers).status_code == 200
    assert claims["exp"] - claims["iat"] == 900


@pytest.mark.parametrize(
    "name",
    ["{theirs}", "00000000-0000-0000-0000-000000000000", "nonsense", "", "me ", "Me", "../me",
     "%00", "{{{theirs}}}", "urn:uuid:{theirs}", "x" * 100_000, "ｍｅ", "me\n"],
)  # fmt: skip
def test_what_one_may_not_see_is_not_there(
    name: str, client: FlaskClient, a: Phone, kept: Ledger, engine: Engine
) -> None:
    stranger = phone(client)
    theirs = a.post("/v1/spaces", {"name": "Crew"}).json["id"]
    name = name.replace("{theirs}", theirs)
    for part in ({}, {"changes": [good(stranger)]}, {"cursor": 5, "counter": 0}):
        answer = stranger.post("/v1/sync", {"spaces": {name: part, "me": {}}})
        assert answer.status_code == 200
        assert answer.json["spaces"][name]["error"]["code"] == "not_found"
        assert answer.json["spaces"]["me"]["head"] == 0, "one space's error harms no other"
    assert ledger(engine, a) == kept


def test_a_viewer_reads_and_changes_nothing(client: FlaskClient, engine: Engine) -> None:
    owner, viewer = phone(client), phone(client)
    space = owner.post("/v1/spaces", {"name": "Crew"}).json["id"]
    path = f"/v1/spaces/{space}/members/{viewer.email}"
    assert client.put(path, json={"role": "viewer"}, headers=owner.headers).status_code == 200
    owner.space = viewer.space = space
    owner.sync(good(owner))
    before = ledger(engine, owner)
    for part in ({"changes": [good(viewer)]}, {"discarded": 5}):
        answer = viewer.post("/v1/sync", {"spaces": {space: part}}).json["spaces"][space]
        assert answer["error"]["code"] == "forbidden"
        pushed = viewer.post(f"/v1/spaces/{space}/push", part)
        assert (pushed.status_code, pushed.json["code"]) == (403, "forbidden")
    assert ledger(engine, owner) == before
    for read in READS:
        assert viewer.get(f"/v1/spaces/{space}/{read}").status_code == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "TRACE", "BREW"])
def test_another_method_is_405_and_names_those_there_are(method: str, a: Phone) -> None:
    for path in ("/v1/sync", "/v1/spaces/me/push"):
        answer = a.http.open(path, method=method, headers=a.headers, data=b"{}")
        assert (answer.status_code, answer.json["code"]) == (405, "method_not_allowed")
        assert "POST" in answer.headers["Allow"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "BREW"])
def test_reading_is_not_writing(method: str, a: Phone, kept: Ledger, engine: Engine) -> None:
    for path in READS:
        answer = a.http.open(f"/v1/spaces/me/{path}", method=method, headers=a.headers)
        assert (answer.status_code, answer.json["code"]) == (405, "method_not_allowed")
    assert ledger(engine, a) == kept


@pytest.mark.parametrize(
    "path",
    ["/v1/spaces/%00/pull", "/v1/spaces/me%00/pull", "/v1/spaces/%ff/pull", "/v1/spaces/me/pull%00",
     "/v1//spaces/me/pull", "/v1/spaces//pull", "/v1/spaces/me/../me/pull", "/v1/spaces/me/",
     "/v1/spaces/ME/pull", "/v1/spaces/%2e%2e/pull", "/V1/sync",
     "/v1/spaces/" + "a" * 100_000 + "/pull", "/v1/spaces/" + "0" * 36 + "/pull",
     "/v1/spaces/00000000_0000_0000_0000_000000000000/pull", "/v1/spaces/me/pull/" + "x/" * 1000],
)  # fmt: skip
def test_an_odd_path_leads_nowhere(path: str, a: Phone) -> None:
    answer = a.http.get(path, headers=a.headers)
    assert (answer.status_code, answer.json["code"]) == (404, "not_found"), answer.text
    assert answer.content_type == "application/problem+json"
