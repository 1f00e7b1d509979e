"""What is recorded of a device: soon after, bounded, and never in a request's way."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import jwt
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from app.auth import ALGORITHM
from app.recording import NOTES_MAX, Recorder
from app.runtime import EXTENSION, Runtime
from storage import events
from tests.contract.devices import PASSWORD, Phone, increment, phone, put
from tests.contract.people import Person


@pytest.fixture
def recorder(app: Flask) -> Recorder:
    runtime: Runtime = app.extensions[EXTENSION]
    return runtime.recorder


@pytest.fixture
def a(client: FlaskClient) -> Phone:
    return phone(client)


def timeline(engine: Engine, device: str) -> dict[tuple[str, str], tuple[int, ...]]:
    """{(kind, code): (times, changes, rejected, records)}, minutes added up."""
    sql = text("""
        SELECT kind, code, sum(times), sum(changes), sum(rejected), sum(records) FROM events
        WHERE device_id = :device GROUP BY 1, 2
    """)
    with engine.connect() as connection:
        rows = connection.execute(sql, {"device": device}).all()
    return {(row[0], row[1]): tuple(int(n) for n in row[2:]) for row in rows}


def state(engine: Engine, device: str) -> dict[str, Any]:
    sql = text("SELECT * FROM device_states WHERE device_id = :device")
    with engine.connect() as connection:
        return dict(connection.execute(sql, {"device": device}).mappings().one())


def test_a_push_a_pull_and_a_refusal_stand_in_the_timeline(
    a: Phone, recorder: Recorder, engine: Engine
) -> None:
    b = phone(a.http, a.email)
    a.sync(a.change(put("t", new=True, n=1)), a.change(increment("t", "n", 1)))
    b.sync()
    assert a.post("/v1/spaces/me/push", {"changes": [{**a.change(put("t")), "counter": 9}]})
    recorder.flush()
    mine = timeline(engine, a.device)
    assert mine["login", ""] == (1, 0, 0, 0)
    assert mine["pushed", ""] == (1, 2, 1, 0)
    assert mine["refused", "counter_gap"] == (1, 0, 0, 0)
    assert timeline(engine, b.device)["pulled", ""] == (1, 0, 0, 1)


def test_the_devices_own_report_and_its_clock_are_kept(
    a: Phone, recorder: Recorder, engine: Engine
) -> None:
    now = a.get("/v1").json["server_time"]
    client = {"app_version": "4.2.0", "pending": 12, "oldest_pending_at": now - 60_000}
    body = {"sent_at": now - 3_600_000, "client": client, "spaces": {"me": {"cursor": 0}}}
    assert a.post("/v1/sync", body).status_code == 200
    recorder.flush()
    found = state(engine, a.device)
    assert (found["pending"], found["oldest_pending_at"]) == (12, now - 60_000)
    assert 3_600_000 <= found["clock_offset"] < 3_700_000
    assert found["seen_at"] >= found["reported_at"] >= now
    (device,) = a.get("/v1/devices").json["devices"]
    assert device["app_version"] == "4.2.0"
    assert device["seen_at"] == found["seen_at"]


@pytest.mark.parametrize("sent_at", [-(2**63), 2**63 - 1])
def test_any_clock_is_recorded(sent_at: int, a: Phone, recorder: Recorder, engine: Engine) -> None:
    a.post("/v1/sync", {"sent_at": sent_at, "spaces": {"me": {}}})
    recorder.flush()
    assert abs(state(engine, a.device)["clock_offset"]) >= 2**61


def test_an_expired_token_stands_in_its_devices_timeline(
    app: Flask, a: Phone, recorder: Recorder, engine: Engine
) -> None:
    with app.app_context():
        claims = {**jwt.decode(a.token, options={"verify_signature": False}), "exp": 1_000}
        a.token = jwt.encode(claims, app.config["JWT_SECRET_KEY"], ALGORITHM)
    assert a.get("/v1/spaces/me/pull").json["code"] == "token_expired"
    recorder.flush()
    assert timeline(engine, a.device)["refused", "token_expired"] == (1, 0, 0, 0)


def test_a_refused_refresh_stands_in_its_devices_timeline(
    client: FlaskClient, recorder: Recorder, engine: Engine
) -> None:
    ada = Person(client)
    spent = str(ada.session["refresh_token"])
    ada.refresh(spent)
    assert ada.refresh(spent).status_code == 401
    assert ada.call("POST", "/v1/auth/logout", refresh_token=spent).status_code == 204
    recorder.flush()
    mine = timeline(engine, ada.device_id)
    assert mine["token_renewed", ""][0] == mine["refused", "token_reused"][0] == 1
    assert mine["logout", ""][0] == 1


def test_a_stranger_writes_nothing_into_anothers_timeline(
    client: FlaskClient, a: Phone, recorder: Recorder, engine: Engine
) -> None:
    ada = Person(client)
    login = {"email": ada.email, "password": "wrong", "device_id": a.device}
    assert client.post("/v1/auth/login", json=login).status_code == 401
    mine = {"email": a.email, "password": "wrong", "device_id": a.device}
    assert client.post("/v1/auth/login", json=mine).status_code == 401
    assert client.post("/v1/auth/login", json={**mine, "password": PASSWORD}).status_code == 200
    recorder.flush()
    assert timeline(engine, a.device)["refused", "bad_credentials"][0] == 1


def test_two_names_of_one_space_are_one_row(a: Phone, recorder: Recorder, engine: Engine) -> None:
    own = a.get("/v1/spaces").json["spaces"][0]["id"]
    a.sync(a.change(put("t", n=1)))
    a.space = own
    a.sync(a.change(put("t", n=2)))
    recorder.flush()
    assert timeline(engine, a.device)["pushed", ""] == (2, 2, 0, 0)


def test_a_timeline_is_pruned_to_its_newest_rows(
    a: Phone, recorder: Recorder, engine: Engine
) -> None:
    device = UUID(a.device)
    for minute in range(events.EVENTS_PER_DEVICE * 2):
        recorder.happened("login", device, minute * 60_000)
    recorder.flush()
    recorder.flush()
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT count(*), min(minute) FROM events WHERE device_id = :d"), {"d": device}
        ).one()
    assert rows[0] == events.EVENTS_PER_DEVICE
    assert rows[1] > 60_000


def test_a_socket_here_makes_a_device_online_until_the_last_one_closes(
    a: Phone, recorder: Recorder, engine: Engine
) -> None:
    device, now = UUID(a.device), recorder.now()
    recorder.online(device, now)
    recorder.online(device, now)
    recorder.flush()
    assert state(engine, a.device)["worker"] == recorder.worker
    recorder.offline(device, now)
    recorder.flush()
    assert state(engine, a.device)["worker"] == recorder.worker
    recorder.offline(device, now)
    recorder.flush()
    assert state(engine, a.device)["worker"] == ""


def test_the_notes_in_memory_are_bounded(recorder: Recorder) -> None:
    held = Recorder(lambda: pytest.fail("nothing is written"), recorder.now)
    held._thread = recorder._thread
    for n in range(NOTES_MAX + 10):
        held.refused("not_found", UUID(int=n), n)
    assert len(held._notes) == NOTES_MAX


def test_a_device_that_is_erased_meanwhile_hinders_nobody(
    a: Phone, recorder: Recorder, engine: Engine
) -> None:
    recorder.refused("not_found", UUID(int=1), recorder.now())
    recorder.refused("not_found", UUID(a.device), recorder.now())
    recorder.flush()
    assert timeline(engine, a.device)["refused", "not_found"][0] == 1
