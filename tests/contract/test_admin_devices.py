"""An agent finds a customer's devices and sees how they stand."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine

from app.recording import Recorder
from app.runtime import EXTENSION, Runtime
from tests.contract.devices import Phone, phone, put
from tests.contract.people import Person, told
from tests.contract.staff import Agent


@pytest.fixture
def runtime(app: Flask) -> Runtime:
    found: Runtime = app.extensions[EXTENSION]
    return found


@pytest.fixture
def recorder(runtime: Runtime) -> Recorder:
    return runtime.recorder


@pytest.fixture
def agent(client: FlaskClient, engine: Engine) -> Agent:
    return Agent(client, engine, "support")


@pytest.fixture
def a(client: FlaskClient) -> Phone:
    return phone(client, name="Ada's Phone", platform="iOS 19.1", app_version="4.2.0")


def ids(found: dict[str, Any]) -> set[str]:
    return {device["id"] for device in found["devices"]}


def test_a_device_is_found_by_whatever_the_customer_says(agent: Agent, a: Phone) -> None:
    user = agent.see("/users", email=a.email.upper())["users"][0]
    for query in (
        {"q": a.email[:-3]},
        {"q": a.device},
        {"q": user["id"]},
        {"email": a.email[:9].upper() + a.email[9:]},
        {"name": "ada's", "user": user["id"]},
        {"platform": "IOS", "app_version": "4.2", "user": user["id"]},
        {"id": a.device},
    ):
        assert a.device in ids(agent.see("/devices", **query, limit=200)), query
    for query in ({"name": "da's", "user": user["id"]}, {"id": uuid4()}, {"q": "%"}, {"q": "_"}):
        assert a.device not in ids(agent.see("/devices", **query, limit=200)), query


def test_pages_fit_together_and_one_past_the_end_is_empty(agent: Agent, a: Phone) -> None:
    mine = {phone(a.http, a.email).device for _ in range(4)} | {a.device}
    seen: list[str] = []
    page: dict[str, Any] = {}
    while True:
        found = agent.see("/devices", email=a.email, limit=2, **page)
        seen += [device["id"] for device in found["devices"]]
        if found["page"] is None:
            break
        page = {"page": found["page"]}
    assert sorted(mine) == seen
    assert agent.see("/devices", email=a.email, **page)["devices"][0]["id"] == seen[-1]


def test_a_token_of_another_list_or_a_damaged_one_is_a_bad_page(agent: Agent, a: Phone) -> None:
    token = agent.see("/users", limit=1)["page"]
    for bad in (token, token[:-1], "x", "", "A" * 4_096, token + "\0"):
        assert agent.ask("/devices", page=bad).status_code == 400
    told(agent.ask("/devices", page=token), 400, "bad_page")


def test_lag_counts_what_others_wrote_and_not_its_own(
    agent: Agent, a: Phone, recorder: Recorder
) -> None:
    b = phone(a.http, a.email)
    a.sync(a.change(put("t", new=True, n=1)))
    b.sync()
    b.sync()
    a.sync(*[a.change(put("t", n=n)) for n in range(3)])
    recorder.flush()
    recorder.sweep()
    assert agent.see(f"/devices/{a.device}")["spaces"][0]["behind"] == 0
    (space,) = agent.see(f"/devices/{b.device}")["spaces"]
    assert (space["cursor"], space["head"], space["behind"]) == (1, 4, 3)
    assert ids(agent.see("/devices", email=a.email, behind=2)) == {b.device}
    assert ids(agent.see("/devices", email=a.email, behind=3)) == set()
    b.sync()
    b.sync()
    recorder.flush()
    recorder.sweep()
    assert ids(agent.see("/devices", email=a.email, behind=0)) == set()


def test_a_device_is_listed_under_each_state_it_is_in(
    agent: Agent, a: Phone, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = runtime.recorder
    b = phone(a.http, a.email)
    assert ids(agent.see("/devices", email=a.email, state="ok")) == {a.device, b.device}
    a.sync(a.change(put("t", new=True, n=1)))
    b.sync()
    b.sync()
    a.sync(a.change(put("t", n=1)), {**a.change(), "ops": 7})
    now = runtime.now_ms()
    a.post("/v1/sync", {"sent_at": now - 120_000, "spaces": {}})
    # Its own thread would sweep by the clocks below, too, and end when it likes.
    recorder.stop()
    assert recorder._thread is not None
    recorder._thread.join()
    monkeypatch.setattr(runtime, "clock", lambda: now / 1000 + 600)
    recorder.sweep()
    assert ids(agent.see("/devices", email=a.email, state="lagging")) == {b.device}
    for state in ("quarantined", "clock_off"):
        assert ids(agent.see("/devices", email=a.email, state=state)) == {a.device}
    monkeypatch.setattr(runtime, "clock", lambda: now / 1000 + 700_000)
    recorder.sweep()
    monkeypatch.undo()
    assert ids(agent.see("/devices", email=a.email, state="silent")) == {a.device, b.device}
    shown = agent.see(f"/devices/{a.device}")["device"]
    assert shown["states"] == ["quarantined", "clock_off", "silent"]
    assert shown["state"] == "quarantined"


def test_the_timeline_comes_newest_first_page_by_page(
    agent: Agent, a: Phone, recorder: Recorder
) -> None:
    a.sync(a.change(put("t", n=1)))
    a.post("/v1/spaces/me/push", {"changes": [{**a.change(put("t")), "counter": 9}]})
    recorder.flush()
    first = agent.see(f"/devices/{a.device}/events", limit=1)
    rest = agent.see(f"/devices/{a.device}/events", page=first["page"])
    kinds = [(e["kind"], e["code"]) for e in first["events"] + rest["events"]]
    assert sorted(kinds) == [("login", ""), ("pushed", ""), ("refused", "counter_gap")]
    assert rest["page"] is None


def test_users_have_no_business_here(client: FlaskClient, a: Phone) -> None:
    ada = Person(client)
    for path in ("/users", "/devices", f"/devices/{a.device}", f"/devices/{a.device}/diagnosis"):
        told(ada.get(f"/v1/admin{path}"), 403, "forbidden")
        told(client.get(f"/v1/admin{path}"), 401, "token_missing")


def test_what_is_not_there_is_not_found(agent: Agent) -> None:
    nobody = uuid4()
    for path in (f"/users/{nobody}", f"/devices/{nobody}", f"/devices/{nobody}/diagnosis"):
        told(agent.ask(path), 404, "not_found")
