"""Signup, login, renewal, logout: what a device may count on."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4, uuid5

import jwt
import msgpack
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from app import create_app, passwords
from app.runtime import EXTENSION, Runtime
from app.settings import Settings
from storage import attempts, tokens
from storage.attempts import FREE_BY_ACCOUNT, FREE_BY_ADDRESS, FREE_SIGNUPS, WAIT_SECONDS_MAX
from tests.contract.people import PASSWORD, Person, new_email, told, until_someone_waits

DAY = 86_400
WRONG = "a wrong password"


@pytest.fixture
def ada(client: FlaskClient) -> Person:
    return Person(client)


@pytest.fixture
def bob(client: FlaskClient) -> Person:
    return Person(client)


# Signup -------------------------------------------------------------------------------------


def test_an_account_comes_with_a_personal_space_that_it_owns(ada: Person) -> None:
    (space,) = ada.get("/v1/spaces").json["spaces"]
    assert space["id"] == ada.session["personal_space"]
    assert (space["role"], space["personal"], space["head"], space["epoch"]) == (
        "owner",
        True,
        0,
        1,
    )


def test_an_email_has_one_account_however_it_is_written(client: FlaskClient) -> None:
    email = new_email()
    Person(client, email)
    for again in (email, email.upper(), f" {email}\t", email.replace("p", "P", 1)):
        answer = client.post("/v1/auth/signup", json={"email": again, "password": PASSWORD})
        told(answer, 409, "email_taken")


def test_of_many_who_sign_up_at_once_with_one_email_one_gets_it(app: Flask, engine: Engine) -> None:
    email = new_email()

    def sign_up(_: int) -> int:
        body = {"email": email, "password": PASSWORD}
        return app.test_client().post("/v1/auth/signup", json=body).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(sign_up, range(8))) == [201] + 7 * [409]
    with engine.connect() as connection:
        count = "SELECT count(*) FROM memberships JOIN users u ON u.id = user_id WHERE email = :e"
        assert connection.scalar(text(count), {"e": email}) == 1


@pytest.mark.parametrize("password", ["", "short12", "x" * 1025, None, 12345678, ["password"]])
def test_a_password_has_8_to_1024_characters(client: FlaskClient, password: object) -> None:
    answer = client.post("/v1/auth/signup", json={"email": new_email(), "password": password})
    assert "password" in told(answer, 400, "malformed_request")["errors"]


@pytest.mark.parametrize(
    "email",
    [
        "",
        "ada",
        "@example.org",
        "a@b@c",
        "a b@example.org",
        f"{'a' * 250}@example.org",
        None,
        7,
        {},
    ],
)
def test_an_email_must_be_one(client: FlaskClient, email: object) -> None:
    answer = client.post("/v1/auth/signup", json={"email": email, "password": PASSWORD})
    assert "email" in told(answer, 400, "malformed_request")["errors"]


def test_a_password_is_the_same_however_a_keyboard_composes_it(client: FlaskClient) -> None:
    email = new_email()
    body = {"email": email, "password": "caf\u00e9 caf\u00e9"}
    assert client.post("/v1/auth/signup", json=body).status_code == 201
    body["password"] = "cafe\u0301 cafe\u0301"
    assert client.post("/v1/auth/login", json=body).status_code == 200


# Login --------------------------------------------------------------------------------------


def test_a_login_makes_a_device_and_says_how_long_its_token_lives(ada: Person) -> None:
    session = ada.log_in(device={"name": "phone", "platform": "iOS", "app_version": "4.2.0"}).json
    assert session["expires_in"] == 900
    assert session["personal_space"] == ada.session["personal_space"]
    assert session["device_id"] != ada.device_id
    newest = ada.get("/v1/devices").json["devices"][-1]
    assert (newest["id"], newest["name"], newest["platform"], newest["app_version"]) == (
        session["device_id"],
        "phone",
        "iOS",
        "4.2.0",
    )


def test_a_device_that_logs_in_again_keeps_its_id_and_what_it_does_not_say(ada: Person) -> None:
    first = ada.log_in(device={"name": "phone", "platform": "iOS 19"}).json
    again = ada.log_in(device_id=first["device_id"], device={"platform": "iOS 20"}).json
    assert again["device_id"] == first["device_id"]
    newest = ada.get("/v1/devices").json["devices"][-1]
    assert (newest["name"], newest["platform"]) == ("phone", "iOS 20")


def test_a_device_that_logs_in_again_ends_its_older_refresh_tokens(ada: Person) -> None:
    old = ada.session["refresh_token"]
    new = ada.log_in(device_id=ada.device_id).json["refresh_token"]
    told(ada.refresh(old), 401, "token_invalid")
    assert ada.refresh(new).status_code == 200


def test_a_device_that_the_server_lost_is_registered_under_its_old_id(ada: Person) -> None:
    lost = str(uuid4())
    assert ada.log_in(device_id=lost, device={"name": "phone"}).json["device_id"] == lost
    assert lost in [device["id"] for device in ada.get("/v1/devices").json["devices"]]


def test_another_users_device_is_not_found(ada: Person, bob: Person) -> None:
    told(bob.log_in(device_id=ada.device_id), 404, "not_found")
    assert ada.get("/v1/devices").status_code == 200


def test_a_revoked_device_can_not_log_in_again(ada: Person) -> None:
    other = ada.log_in().json["device_id"]
    assert ada.delete(f"/v1/devices/{other}").status_code == 204
    told(ada.log_in(device_id=other), 401, "device_revoked")


def test_a_wrong_password_and_an_unknown_email_are_told_the_same(
    ada: Person, client: FlaskClient
) -> None:
    wrong = ada.log_in(password="not the password")
    unknown = client.post("/v1/auth/login", json={"email": new_email(), "password": PASSWORD})
    assert told(wrong, 401, "bad_credentials") == told(unknown, 401, "bad_credentials")


def test_an_unknown_email_costs_a_hash_like_a_known_one(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[str] = []
    real = passwords._verified

    def noting(password: str, kept: str) -> bool:
        verified.append(kept)
        return real(password, kept)

    monkeypatch.setattr(passwords, "_verified", noting)
    client.post("/v1/auth/login", json={"email": new_email(), "password": PASSWORD})
    assert len(verified) == 1


def test_a_hash_leaves_the_other_connections_of_a_gevent_worker_running() -> None:
    program = """
import gevent.monkey; gevent.monkey.patch_all()
import gevent
from app import passwords
turns = 0
def turn():
    global turns
    while True:
        turns += 1
        gevent.sleep(0)
other = gevent.spawn(turn)
passwords.hashed("a password")
print(turns)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert int(done.stdout) > 10, done.stderr


# Replaced devices ---------------------------------------------------------------------------


def test_a_replaced_device_is_frozen_for_good(ada: Person) -> None:
    old = ada.log_in().json
    new = ada.log_in(device={"name": "restored", "replaces": old["device_id"]}).json
    assert new["device_id"] != old["device_id"]
    told(ada.refresh(old["refresh_token"]), 409, "device_fork")
    told(ada.log_in(device_id=old["device_id"]), 409, "device_fork")
    header = {"Authorization": f"Bearer {old['access_token']}"}
    told(ada.client.get("/v1/devices", headers=header), 409, "device_fork")
    devices = {device["id"]: device for device in ada.get("/v1/devices").json["devices"]}
    assert devices[new["device_id"]]["replaces"] == old["device_id"]
    assert devices[old["device_id"]]["frozen_at"] is not None


def test_a_login_that_replaces_may_be_repeated_after_a_lost_answer(ada: Person) -> None:
    old = ada.log_in().json["device_id"]
    sessions = [ada.log_in(device={"replaces": old}) for _ in range(2)]
    assert [answer.status_code for answer in sessions] == [200, 200]
    assert sessions[0].json["device_id"] != sessions[1].json["device_id"]


def test_another_users_device_can_not_be_replaced_and_nothing_is_left(
    ada: Person, bob: Person
) -> None:
    for new in ({}, {"device_id": "00000000-0000-4000-8000-000000000001"}):
        told(bob.log_in(device={"replaces": ada.device_id}, **new), 404, "not_found")
    assert len(bob.get("/v1/devices").json["devices"]) == 1
    assert ada.get("/v1/devices").status_code == 200


def test_a_replaced_device_that_the_server_lost_is_frozen_too(ada: Person) -> None:
    lost = str(uuid4())
    assert ada.log_in(device={"replaces": lost}).status_code == 200
    told(ada.log_in(device_id=lost), 409, "device_fork")


@pytest.mark.parametrize("name", ["rejoin", "Support"])
def test_nobody_logs_in_as_a_replica_of_the_servers_or_freezes_one(
    ada: Person, bob: Person, engine: Engine, name: str
) -> None:
    replica = str(uuid5(ada.user_id, name))
    others = bob.log_in(device={"replaces": ada.device_id})
    for there in (False, True):
        if there:
            with engine.begin() as connection:
                connection.execute(_REPLICA, {"id": replica, "user": ada.user_id})
        told(ada.log_in(device_id=replica), 404, "not_found")
        told(ada.log_in(device_id=str(uuid4()), device={"replaces": replica}), 404, "not_found")
        assert ada.log_in(device={"replaces": replica}).json == others.json
    with engine.connect() as connection:
        found = connection.execute(_STANDING, {"user": ada.user_id}).all()
    assert {str(row.id) for row in found if row.frozen_at is None} == {ada.device_id, replica}
    assert len(found) == 2


_REPLICA = text("""
    INSERT INTO devices (id, user_id, name, platform, created_at, seen_at)
    VALUES (:id, :user, 'Server', 'rejoin', now(), now())
""")
_STANDING = text("SELECT id, frozen_at FROM devices WHERE user_id = :user")


def test_a_device_can_not_replace_itself(ada: Person) -> None:
    answer = ada.log_in(device_id=ada.device_id, device={"replaces": ada.device_id})
    told(answer, 400, "malformed_request")
    assert ada.get("/v1/devices").status_code == 200


# Renewal ------------------------------------------------------------------------------------


def test_a_refresh_token_is_good_once_and_gives_the_next(ada: Person) -> None:
    renewed = ada.refresh().json
    assert renewed.keys() == ada.session.keys()
    assert renewed["device_id"] == ada.device_id
    assert ada.refresh(renewed["refresh_token"]).status_code == 200


def test_a_refresh_token_used_twice_ends_its_family(ada: Person) -> None:
    renewed = ada.refresh().json
    told(ada.refresh(), 401, "token_reused")
    told(ada.refresh(renewed["refresh_token"]), 401, "token_invalid")
    assert ada.log_in(device_id=ada.device_id).status_code == 200


def test_a_family_ends_alone(ada: Person) -> None:
    other = ada.log_in().json
    ada.refresh()
    told(ada.refresh(), 401, "token_reused")
    assert ada.refresh(other["refresh_token"]).status_code == 200


def test_of_many_renewals_at_once_exactly_one_wins(app: Flask, ada: Person) -> None:
    body = {"refresh_token": ada.session["refresh_token"]}

    def renew(_: int) -> tuple[int, str]:
        answer = app.test_client().post("/v1/auth/refresh", json=body)
        return answer.status_code, str(answer.json.get("refresh_token", ""))

    with ThreadPoolExecutor(8) as pool:
        answers = sorted(pool.map(renew, range(8)))
    assert [status for status, _ in answers] == [200] + 7 * [401]
    # Nobody can tell the thief from the owner: what the winner got has ended too.
    told(ada.refresh(answers[0][1]), 401, "token_invalid")


NOW = datetime(2027, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=90)


def _spend(engine: Engine, token: str) -> str:
    with engine.begin() as connection:
        spent = tokens.spend(connection, token, NOW)
    assert spent is not None
    return spent.verdict


def test_a_token_that_is_being_spent_is_spent_for_who_comes_then(
    ada: Person, engine: Engine
) -> None:
    token = ada.session["refresh_token"]
    with ThreadPoolExecutor(1) as pool, engine.connect() as first:
        spent = tokens.spend(first, token, NOW)
        second = pool.submit(_spend, engine, token)
        until_someone_waits(engine)
        first.commit()
        assert spent is not None
        assert (spent.verdict, second.result()) == ("good", "reused")


def test_no_renewal_outlives_a_family_that_ends_at_the_same_moment(
    ada: Person, engine: Engine
) -> None:
    spent = ada.session["refresh_token"]
    good = ada.refresh().json["refresh_token"]
    with ThreadPoolExecutor(1) as pool, engine.connect() as first:
        renewed = tokens.spend(first, good, NOW)
        assert renewed is not None
        thief = pool.submit(_spend, engine, spent)
        until_someone_waits(engine)
        newest = tokens.issue(first, tokens.Grant(renewed.device_id, renewed.family, NOW, LATER))
        first.commit()
        assert thief.result() == "reused"
    told(ada.refresh(newest), 401, "token_invalid")


def test_a_refresh_token_expires(app: Flask, ada: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime: Runtime = app.extensions[EXTENSION]
    later = runtime.clock() + 181 * DAY
    monkeypatch.setattr(runtime, "clock", lambda: later)
    told(ada.refresh(), 401, "token_expired")


def test_a_refresh_token_is_not_kept_as_it_is(ada: Person, engine: Engine) -> None:
    with engine.connect() as connection:
        digests = connection.scalars(text("SELECT digest FROM refresh_tokens")).all()
    assert ada.session["refresh_token"].encode() not in digests
    assert {len(digest) for digest in digests} == {32}


def _rows(engine: Engine, device_id: str) -> int:
    query = text("SELECT count(*) FROM refresh_tokens WHERE device_id = :id")
    with engine.connect() as connection:
        return int(connection.scalar(query, {"id": device_id}) or 0)


def test_a_device_that_renews_and_logs_in_for_years_has_one_row(
    ada: Person, engine: Engine
) -> None:
    for _ in range(5):
        ada.session = ada.refresh().json
    assert _rows(engine, ada.device_id) == 1
    for _ in range(3):
        ada.session = ada.log_in(device_id=ada.device_id).json
    assert _rows(engine, ada.device_id) == 1
    assert ada.refresh().status_code == 200


def test_a_reuse_is_noticed_however_many_renewals_came_after(ada: Person) -> None:
    first = ada.session["refresh_token"]
    for _ in range(5):
        ada.session = ada.refresh().json
    told(ada.refresh(first), 401, "token_reused")
    told(ada.refresh(), 401, "token_invalid")
    told(ada.refresh(first), 401, "token_reused")


def test_a_used_refresh_token_still_logs_its_device_out(ada: Person) -> None:
    first = ada.session["refresh_token"]
    ada.session = ada.refresh().json
    assert ada.call("POST", "/v1/auth/logout", refresh_token=first).status_code == 204
    told(ada.refresh(), 401, "token_invalid")


@pytest.mark.parametrize("token", ["A" * 64, "=" * 64, "A" * 63 + "=", "ü" * 64, "-_" * 32])
def test_a_refresh_token_of_no_family_of_ours_is_invalid(ada: Person, token: str) -> None:
    told(ada.refresh(token), 401, "token_invalid")


def test_an_unknown_refresh_token_is_invalid(ada: Person) -> None:
    told(ada.refresh("A" * 43), 401, "token_invalid")
    told(ada.refresh(ada.session["access_token"][:256]), 401, "token_invalid")


def test_a_logout_ends_the_devices_refresh_tokens(ada: Person) -> None:
    told_nothing = ada.call("POST", "/v1/auth/logout", refresh_token=ada.session["refresh_token"])
    assert (told_nothing.status_code, told_nothing.data) == (204, b"")
    told(ada.refresh(), 401, "token_invalid")


def test_a_logout_by_access_token_needs_no_body(ada: Person) -> None:
    assert ada.client.post("/v1/auth/logout", headers=ada.headers).status_code == 204
    told(ada.refresh(), 401, "token_invalid")
    told(ada.client.post("/v1/auth/logout"), 401, "token_missing")


def test_a_logout_by_an_unknown_token_is_done_already(ada: Person) -> None:
    assert ada.call("POST", "/v1/auth/logout", refresh_token="A" * 43).status_code == 204
    assert ada.refresh().status_code == 200


# Access tokens ------------------------------------------------------------------------------


def _claims(person: Person) -> dict[str, object]:
    claims: dict[str, object] = jwt.decode(
        person.session["access_token"], options={"verify_signature": False}
    )
    return claims


def _segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _unsigned(claims: dict[str, object]) -> str:
    return f"{_segment({'alg': 'none', 'typ': 'JWT'})}.{_segment(claims)}."


def _nested(head: dict[str, object] | None) -> str:
    deep = base64.urlsafe_b64encode(b"[" * 2_900).decode().rstrip("=")
    return f"{_segment(head)}.{deep}.AAAA" if head else f"{deep}.e30.AAAA"


BAD_TOKENS: dict[str, Callable[[dict[str, object], str], str]] = {
    "alg none": lambda claims, _: _unsigned(claims),
    "garbled": lambda claims, secret: jwt.encode(claims, secret)[:-3] + "AAA",
    "another key": lambda claims, _: jwt.encode(claims, "another secret of 32 characters…"),
    "another algorithm": lambda claims, secret: jwt.encode(claims, secret * 2, "HS512"),
    "a refresh token": lambda claims, secret: jwt.encode({**claims, "type": "refresh"}, secret),
    "no device": lambda claims, secret: jwt.encode(
        {k: v for k, v in claims.items() if k != "device"}, secret
    ),
    "no expiry": lambda claims, secret: jwt.encode(
        {k: v for k, v in claims.items() if k != "exp"}, secret
    ),
    "no role": lambda claims, secret: jwt.encode({**claims, "role": None}, secret),
    "a role as a list": lambda claims, secret: jwt.encode({**claims, "role": []}, secret),
    "a device that is none": lambda claims, secret: jwt.encode({**claims, "device": 7}, secret),
    "an unknown device": lambda claims, secret: jwt.encode(
        {**claims, "device": str(uuid4())}, secret
    ),
    "a user that is none": lambda claims, secret: jwt.encode({**claims, "sub": "ada"}, secret),
    "from the future": lambda claims, secret: jwt.encode({**claims, "iat": 2**33}, secret),
    "a head nested deep": lambda *_: _nested(None),
    "claims nested deep": lambda *_: _nested({"alg": "HS256"}),
    "no token at all": lambda *_: "…",
    "dots": lambda *_: "..",
    "long": lambda *_: "a" * 100_000,
}


@pytest.mark.parametrize("make", BAD_TOKENS.values(), ids=BAD_TOKENS.keys())
def test_a_token_that_is_not_ours_is_invalid(
    ada: Person, settings: Settings, make: Callable[[dict[str, object], str], str]
) -> None:
    token = make(_claims(ada), settings.secret).encode().decode("latin-1")
    answer = ada.client.get("/v1/devices", headers={"Authorization": f"Bearer {token}"})
    told(answer, 401, "token_invalid")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="rejoin", error="invalid_token"'


def test_a_missing_token_is_missing_and_an_old_one_expired(ada: Person, settings: Settings) -> None:
    answer = ada.client.get("/v1/devices")
    told(answer, 401, "token_missing")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="rejoin"'
    old = jwt.encode({**_claims(ada), "exp": 1_000_000_000}, settings.secret)
    answer = ada.client.get("/v1/devices", headers={"Authorization": f"Bearer {old}"})
    told(answer, 401, "token_expired")
    answer = ada.client.get("/v1/devices", headers={"Authorization": "Basic YTpi"})
    told(answer, 401, "token_invalid")


# Slowed guesses -----------------------------------------------------------------------------


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limited(settings: Settings, clock: Clock, engine: Engine) -> Iterator[Flask]:
    """An app with rate limits on, whose clock stands, and of which no failure is left."""
    app = create_app(replace(settings, rate_limits=True))
    runtime: Runtime = app.extensions[EXTENSION]
    runtime.clock = clock
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM login_failures"))
    yield app
    runtime.close()


def _guess(app: Flask, email: str, password: str = WRONG, address: str = "") -> int:
    answer = app.test_client().post(
        "/v1/auth/login",
        json={"email": email, "password": password},
        environ_base={"REMOTE_ADDR": address or "192.0.2.1"},
    )
    if answer.status_code == 429:
        problem = told(answer, 429, "too_many_attempts")
        assert answer.headers["Retry-After"] == str(problem["retry_after"])
        return -int(problem["retry_after"])
    return answer.status_code


@pytest.mark.parametrize("known", [True, False])
def test_failed_logins_of_an_account_are_slowed_down(
    limited: Flask, clock: Clock, known: bool
) -> None:
    email = Person(limited.test_client()).email if known else new_email()
    assert [_guess(limited, email) for _ in range(FREE_BY_ACCOUNT)] == FREE_BY_ACCOUNT * [401]
    waits = []
    for _ in range(12):
        waits.append(-_guess(limited, email))
        clock.seconds += waits[-1]
        assert _guess(limited, email) == 401
    assert waits[:4] == [2, 3, 5, 9]
    assert waits[-1] == WAIT_SECONDS_MAX + 1


def test_who_has_to_wait_is_not_made_to_wait_longer_by_asking(limited: Flask) -> None:
    email = new_email()
    for _ in range(FREE_BY_ACCOUNT):
        _guess(limited, email)
    assert len({_guess(limited, email) for _ in range(10)}) == 1


def test_an_address_that_has_to_wait_makes_no_account_wait(limited: Flask) -> None:
    for _ in range(FREE_BY_ADDRESS):
        _guess(limited, new_email())
    email = new_email()
    assert all(_guess(limited, email) < 0 for _ in range(2 * FREE_BY_ACCOUNT))
    assert _guess(limited, email, address="192.0.2.2") == 401


def test_a_good_login_starts_the_account_anew(limited: Flask, clock: Clock) -> None:
    email = Person(limited.test_client()).email
    for _ in range(FREE_BY_ACCOUNT - 1):
        _guess(limited, email)
    assert _guess(limited, email, PASSWORD) == 200
    assert [_guess(limited, email) for _ in range(FREE_BY_ACCOUNT)] == FREE_BY_ACCOUNT * [401]
    assert _guess(limited, email, PASSWORD) < 0
    clock.seconds += 2
    assert _guess(limited, email, PASSWORD) == 200


def test_failures_are_forgotten_after_an_hour(limited: Flask, clock: Clock) -> None:
    email = new_email()
    for _ in range(FREE_BY_ACCOUNT):
        _guess(limited, email)
    clock.seconds += 3_601
    assert [_guess(limited, email) for _ in range(FREE_BY_ACCOUNT)] == FREE_BY_ACCOUNT * [401]


def test_guesses_at_many_accounts_from_one_address_are_slowed_down(limited: Flask) -> None:
    for _ in range(FREE_BY_ADDRESS):
        assert _guess(limited, new_email()) == 401
    assert _guess(limited, new_email()) < 0
    assert _guess(limited, new_email(), address="192.0.2.2") == 401


def test_a_good_login_does_not_wash_its_address_clean(limited: Flask) -> None:
    email = Person(limited.test_client()).email
    for _ in range(FREE_BY_ADDRESS - 1):
        _guess(limited, new_email())
    assert _guess(limited, email, PASSWORD) == 200
    assert _guess(limited, new_email()) == 401
    assert _guess(limited, new_email()) < 0


def test_guesses_at_once_are_each_counted(limited: Flask) -> None:
    email = new_email()
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: _guess(limited, email), range(30)))
    assert answers.count(401) == FREE_BY_ACCOUNT


def _sign_up(app: Flask, address: str = "192.0.2.1", email: str = "") -> int:
    answer = app.test_client().post(
        "/v1/auth/signup",
        json={"email": email or new_email(), "password": PASSWORD},
        environ_base={"REMOTE_ADDR": address},
    )
    if answer.status_code == 429:
        problem = told(answer, 429, "too_many_attempts")
        assert answer.headers["Retry-After"] == str(problem["retry_after"])
        return -int(problem["retry_after"])
    return answer.status_code


def test_signups_from_one_address_are_slowed_down(
    limited: Flask, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = new_email()
    assert _sign_up(limited, email=taken) == 201
    asked = [_sign_up(limited, email=taken) for _ in range(FREE_SIGNUPS - 2)]
    assert asked == (FREE_SIGNUPS - 2) * [409]
    assert _sign_up(limited) == 201
    with monkeypatch.context() as patched:
        patched.setattr(passwords, "hashed", None)
        assert _sign_up(limited) == -2, "who waits costs no hash"
    assert _sign_up(limited, address="192.0.2.2") == 201
    assert _guess(limited, taken, PASSWORD) == 200, "logins are counted by themselves"
    clock.seconds += 2
    assert [_sign_up(limited), _sign_up(limited)] == [201, -3]
    clock.seconds += 3_601
    assert [_sign_up(limited) for _ in range(FREE_SIGNUPS)] == FREE_SIGNUPS * [201]


def test_signups_are_not_counted_where_rate_limits_are_off(app: Flask) -> None:
    assert {_sign_up(app, email=new_email()) for _ in range(FREE_SIGNUPS + 2)} == {201}


def test_counts_that_are_over_are_dropped_without_an_operator(
    limited: Flask, clock: Clock, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "FORGET_AT_ONCE", 8)
    for _ in range(20):
        _guess(limited, new_email())
    clock.seconds += 3_601
    _guess(limited, new_email())
    assert _counted(engine) > 2, "some at a time"
    for _ in range(3):
        _guess(limited, new_email())
    assert _counted(engine) == 5, "of the last four guesses and their address"


def _counted(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(text("SELECT count(*) FROM login_failures")) or 0)


# Hostile bodies -----------------------------------------------------------------------------

DOORS = [
    ("POST", "/v1/auth/signup"),
    ("POST", "/v1/auth/login"),
    ("POST", "/v1/auth/refresh"),
    ("POST", "/v1/auth/logout"),
    ("POST", "/v1/spaces"),
    ("PUT", "/v1/spaces/me/members/a@example.org"),
]
HOSTILE: dict[str, tuple[bytes, str, set[str]]] = {
    "nothing": (b"", "json", {"malformed_body", "token_missing"}),
    "no JSON": (b"{", "json", {"malformed_body"}),
    "no UTF-8": (b'{"email": "\xff"}', "json", {"malformed_body"}),
    "a number": (b"1", "json", {"malformed_request"}),
    "null": (b"null", "json", {"malformed_request"}),
    "a list": (b"[]", "json", {"malformed_request"}),
    "NaN": (b'{"email": NaN}', "json", {"malformed_body"}),
    "infinity": (b'{"email": 1e999}', "json", {"malformed_body"}),
    "a huge integer": (b'{"email": 1' + b"0" * 9_999 + b"}", "json", {"malformed_body"}),
    "past 64 bits": (b'{"email": 18446744073709551616}', "json", {"malformed_request"}),
    "doubled": (b'{"email": "a", "email": "b"}', "json", {"duplicate_key"}),
    "doubled inside": (b'{"device": {"a": 1, "a": 1}}', "json", {"duplicate_key"}),
    "deep": (b"[" * 30_000, "json", {"too_deep"}),
    "deep and whole": (b'{"a":' * 500 + b"1" + b"}" * 500, "json", {"too_deep"}),
    "unknown names": (
        json.dumps({f"\ud800{n}" * 9: n for n in range(300)}).encode(),
        "json",
        {"malformed_request"},
    ),
    "a huge text": (
        json.dumps({"email": "a" * 60_000, "password": "a" * 4_000}).encode(),
        "json",
        {"malformed_request"},
    ),
    "a huge body": (b" " * 70_000, "json", {"body_too_large"}),
    "no MessagePack": (b"\xc1", "msgpack", {"malformed_body"}),
    "four billion elements": (b"\xdd\xff\xff\xff\xff", "msgpack", {"malformed_body"}),
    "a short map": (b"\x82\x01", "msgpack", {"malformed_body"}),
    "a list as a key": (b"\x81\x90\x01", "msgpack", {"malformed_body"}),
    "keys that are none": (b"\x82\x01\x01\xc4\x01a\x01", "msgpack", {"malformed_request"}),
    "bytes": (
        msgpack.packb({"email": b"a@b.c", "password": b"x" * 9}),
        "msgpack",
        {"malformed_request"},
    ),
    "a timestamp": (
        msgpack.packb({"email": msgpack.Timestamp(1)}),
        "msgpack",
        {"malformed_request"},
    ),
    "more behind": (b"\x80\x80", "msgpack", {"malformed_body"}),
    "deep MessagePack": (b"\x91" * 5_000 + b"\x01", "msgpack", {"too_deep"}),
}


@pytest.mark.parametrize(("method", "path"), DOORS)
@pytest.mark.parametrize(("body", "kind", "codes"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_body_is_refused_with_a_stable_code(
    client: FlaskClient, method: str, path: str, body: bytes, kind: str, codes: set[str]
) -> None:
    answer = client.open(path, method=method, data=body, content_type=f"application/{kind}")
    assert answer.json["code"] in codes, answer.text
    assert 400 <= answer.status_code < 500
    assert len(answer.data) < 10_000


@pytest.mark.parametrize("poison", ["\0", "\ud800", "a\0b", "x\udfff"])
@pytest.mark.parametrize("name", ["email", "password", "device.name", "device.platform"])
def test_text_that_the_database_can_not_hold_is_refused(
    ada: Person, name: str, poison: str
) -> None:
    members: dict[str, object] = {"email": ada.email, "password": PASSWORD}
    outer, _, inner = name.partition(".")
    members[outer] = {inner: poison} if inner else f"{poison}12345678@example.org"
    answer = ada.client.post("/v1/auth/login", json=members)
    told(answer, 400, "invalid_text")
    assert len(ada.get("/v1/devices").json["devices"]) == 1


@pytest.mark.parametrize(
    "members",
    [
        {"device_id": "me"},
        {"device_id": "{00000000-0000-4000-8000-000000000001}"},
        {"device_id": 7},
        {"device": None},
        {"device": []},
        {"device": {"name": 7}},
        {"device": {"name": "x" * 201}},
        {"device": {"replaces": "x"}},
        {"role": "admin"},
    ],
)
def test_a_login_of_a_wrong_form_makes_no_device(ada: Person, members: dict[str, object]) -> None:
    told(ada.log_in(**members), 400, "malformed_request")
    assert len(ada.get("/v1/devices").json["devices"]) == 1


@pytest.mark.parametrize("members", [{"device_id": None}, {"device": {"replaces": None}}])
def test_null_says_the_same_as_nothing(ada: Person, members: dict[str, object]) -> None:
    assert ada.log_in(**members).status_code == 200
