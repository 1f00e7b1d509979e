"""Faults, each put in through the requests that cause it: the first finding names it.

And fifty devices that are well, in all the ways in which devices are well: none has a finding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from uuid import UUID, uuid4

import jwt
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from app.auth import ALGORITHM
from app.runtime import EXTENSION, Runtime
from storage.upkeep import drop_tombstones, start_next_epoch
from sync.diagnosis import DAY, FINDINGS, HOUR, MINUTE
from tests.contract.devices import PASSWORD, Phone, delete, phone, put
from tests.contract.staff import Agent

HEALTHY = 50


@dataclass
class Scene:
    """A user with two phones, a support agent, and a clock that moves when told."""

    app: Flask
    http: FlaskClient
    engine: Engine
    runtime: Runtime
    agent: Agent
    a: Phone
    b: Phone
    skipped: int = 0

    def later(self, ms: int) -> None:
        self.skipped += ms

    def now(self) -> int:
        return self.runtime.now_ms()

    def record(self) -> None:
        self.runtime.recorder.flush()
        self.runtime.recorder.sweep()

    def findings(self, who: Phone) -> list[str]:
        self.runtime.recorder.flush()
        return self.agent.findings(who.device)

    def shared(self, role: str) -> str:
        """A space of another user's, of which a's user is a member."""
        owner = phone(self.http)
        space = str(owner.post("/v1/spaces", {"name": "Crew"}).json["id"])
        path = f"/v1/spaces/{space}/members/{self.a.email}"
        made = self.http.put(path, json={"role": role}, headers=owner.headers)
        assert made.status_code == 200
        self.owner = owner
        return space


@pytest.fixture
def scene(
    app: Flask, client: FlaskClient, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> Scene:
    runtime: Runtime = app.extensions[EXTENSION]
    agent = Agent(client, engine, "support")
    a = phone(client, app_version="4.2.0")
    made = Scene(app, client, engine, runtime, agent, a, phone(client, a.email))
    clock = runtime.clock
    monkeypatch.setattr(runtime, "clock", lambda: clock() + made.skipped / 1000)
    monkeypatch.setattr(runtime, "settings", replace(runtime.settings, min_app_version="2.0"))
    return made


def revoked(s: Scene) -> None:
    s.http.delete(f"/v1/devices/{s.a.device}", headers=s.b.headers)


def replaced(s: Scene) -> None:
    about = {"replaces": s.a.device}
    login = {"email": s.a.email, "password": PASSWORD, "device": about}
    assert s.http.post("/v1/auth/login", json=login).status_code == 200


def forked(s: Scene) -> None:
    s.a.sync(s.a.change(put("t", n=1)), s.a.change(put("t", n=2)))
    s.a.counter = 1
    assert s.a.sync()["error"]["code"] == "device_fork"


def expired(s: Scene) -> None:
    claims = jwt.decode(s.a.token, options={"verify_signature": False})
    key = s.app.config["JWT_SECRET_KEY"]
    s.a.token = jwt.encode({**claims, "exp": 1_000}, key, ALGORITHM)
    for _ in range(3):
        assert s.a.get("/v1/spaces/me/pull").status_code == 401


def old(s: Scene) -> None:
    client = {"app_version": "1.9.12"}
    s.a.post("/v1/sync", {"client": client, "spaces": {"me": {}}})


def withdrawn(s: Scene) -> None:
    s.a.space = s.shared("editor")
    s.a.sync()
    path = f"/v1/spaces/{s.a.space}/members/{s.a.email}"
    assert s.http.delete(path, headers=s.owner.headers).status_code == 204
    assert s.a.sync()["error"]["code"] == "forbidden"


def viewer(s: Scene) -> None:
    s.a.space = s.shared("viewer")
    assert s.a.sync(s.a.change(put("t", n=1)))["error"]["code"] == "forbidden"


def gap(s: Scene) -> None:
    change = {**s.a.change(put("t", n=1)), "counter": 7}
    for _ in range(2):
        answer = s.a.post("/v1/spaces/me/push", {"changes": [change]})
        assert answer.json["code"] == "counter_gap"


def above(s: Scene) -> None:
    s.a.sync(s.a.change(put("t", n=1)))
    s.a.cursor = 99
    assert s.a.sync()["reset"] is True


def lost(s: Scene) -> None:
    s.b.sync(s.b.change(put("t", n=1)))
    with s.engine.begin() as connection:
        start_next_epoch(connection)
    s.b.sync(*[s.b.change(put("t", n=n)) for n in range(9)])
    s.a.epoch, s.a.cursor = 1, 5
    assert s.a.sync()["reset"] is True


def horizon(s: Scene) -> None:
    s.b.sync(s.b.change(put("t", new=True, n=1)))
    for _ in range(2):
        s.a.sync()
    s.b.sync(s.b.change(put("u", n=1)), s.b.change(delete("t")))
    s.b.sync(s.b.change(put("u", n=1)))
    space = s.a.get("/v1/spaces").json["spaces"][0]["id"]
    with s.engine.begin() as connection:
        assert drop_tombstones(connection, space, s.now() + HOUR) == 1


def body(s: Scene) -> None:
    s.a.sync(s.a.change(put("t", n=1)))
    answer = s.a.http.post("/v1/sync", data=b" " * (8 * 2**20 + 1), headers=s.a.headers)
    assert answer.status_code == 413


def value(s: Scene) -> None:
    assert s.a.sync(s.a.change(put("t", n="x" * 300_000)))["rejected"]


def broken(s: Scene) -> None:
    for _ in range(2):
        assert s.a.http.post("/v1/sync", data=b"{", headers=s.a.headers).status_code == 400


def mistyped(s: Scene) -> None:
    s.b.sync(s.b.change(put("t", new=True, n=1)))
    add = {"op": "add", "collection": "tasks", "id": "t", "field": "n", "values": [1]}
    assert s.a.sync(s.a.change(add))["rejected"]


def limited(s: Scene) -> None:
    s.runtime.settings = replace(s.runtime.settings, rate_limits=True)
    login = {"email": s.a.email, "password": "wrong", "device_id": s.a.device}
    codes = {s.http.post("/v1/auth/login", json=login).status_code for _ in range(9)}
    assert codes == {401, 429}


def waiting(s: Scene) -> None:
    client = {"pending": 12, "oldest_pending_at": s.now() - HOUR}
    s.a.post("/v1/sync", {"client": client, "spaces": {"me": {}}})


def stubborn(s: Scene) -> None:
    s.b.sync(s.b.change(put("t", new=True, n=1)))
    for _ in range(2):
        s.a.sync()
    s.b.sync(s.b.change(put("t", n=2)))
    s.later(MINUTE)
    for _ in range(3):
        assert s.a.sync()["cursor"] == 2
        s.a.cursor = 1


def deaf(s: Scene) -> None:
    """Its socket is open, and it acknowledges nothing."""
    s.b.sync(s.b.change(put("t", new=True, n=1)))
    for _ in range(2):
        s.a.sync()
    s.b.sync(s.b.change(put("t", n=2)))
    s.later(6 * MINUTE)
    s.runtime.recorder.online(UUID(s.a.device), s.now())


def clock_off(s: Scene) -> None:
    body = {"sent_at": s.now() + 5 * MINUTE, "spaces": {"me": {}}}
    assert s.a.post("/v1/sync", body).status_code == 200


def silent(s: Scene) -> None:
    s.a.sync()
    s.later(8 * DAY)


def growing(s: Scene) -> None:
    s.b.sync(s.b.change(put("t", new=True, n=1)))
    for cursor in (1, 2, 3):
        s.a.cursor = cursor
        s.a.sync()
        s.a.cursor = cursor
        s.b.sync(*[s.b.change(put("t", n=n)) for n in range(100)])
        s.record()
        s.later(4 * MINUTE)
    s.a.sync()
    moved = "UPDATE replicas SET cursor_at = to_timestamp(:now / 1000.0) WHERE device_id = :device"
    with s.engine.begin() as connection:  # PostgreSQL's clock does not move with the scene's
        connection.execute(text(moved), {"now": s.now(), "device": s.a.device})


def conflicting(s: Scene) -> None:
    for who in (s.a, s.b):
        who.sync(who.change(put("t", n=who.device), context={"cursor": 0}))


FAULTS: dict[str, tuple[Callable[[Scene], None], str]] = {
    "a revoked device": (revoked, "device_revoked"),
    "a replaced device": (replaced, "device_replaced"),
    "two installations of one identity": (forked, "device_fork"),
    "a token that is refused again and again": (expired, "token_refused"),
    "an app that is too old": (old, "app_too_old"),
    "a membership withdrawn": (withdrawn, "membership_withdrawn"),
    "a viewer who writes": (viewer, "role_too_small"),
    "a gap in the counters": (gap, "counter_gap"),
    "a cursor above the head": (above, "cursor_above_head"),
    "a cursor from a lost epoch": (lost, "lost_epoch"),
    "a cursor behind the horizon": (horizon, "behind_horizon"),
    "a body that is too large": (body, "limit_hit"),
    "a value that is too large": (value, "limit_hit"),
    "requests that can't be read": (broken, "client_broken"),
    "a quarantined change": (mistyped, "quarantined"),
    "attempts without end": (limited, "rate_limited"),
    "changes reported and not pushed": (waiting, "not_pushing"),
    "a cursor that does not move": (stubborn, "not_acknowledging"),
    "a socket that acknowledges nothing": (deaf, "not_acknowledging"),
    "a clock that is off": (clock_off, "clock_off"),
    "a device that is silent": (silent, "silent"),
    "a lag that grows": (growing, "lag_growing"),
    "a conflict that nobody settles": (conflicting, "conflicts_open"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_first_finding_is_the_fault_that_was_put_in(fault: str, scene: Scene) -> None:
    inject, code = FAULTS[fault]
    inject(scene)
    assert scene.findings(scene.a)[:1] == [code]
    shown = scene.agent.see(f"/devices/{scene.a.device}/diagnosis")["findings"][0]
    assert shown["evidence"]
    assert (shown["sentence"], shown["next_step"]) == (
        FINDINGS[code].sentence,
        FINDINGS[code].next_step,
    )
    for link in shown["links"]:
        assert link.startswith("/v1/admin/")


def test_a_space_of_strangers_is_no_fault_of_the_device(scene: Scene) -> None:
    scene.a.space = str(uuid4())
    assert scene.a.sync()["error"]["code"] == "not_found"
    assert scene.findings(scene.a) == []


def _plain(s: Scene, who: Phone) -> None:
    who.sync(who.change(put(f"{who.device}-1", new=True, n=1)))
    who.sync()


def _asleep(s: Scene, who: Phone) -> None:
    """Pushed and went to sleep: its cursor stands where it was."""
    who.sync(*[who.change(put(f"{who.device}-{n}", new=True, n=1)) for n in range(5)])


def _reported(s: Scene, who: Phone) -> None:
    """Said what it was about to push."""
    changes = [who.change(put(f"{who.device}-{n}", new=True, n=1)) for n in range(3)]
    client = {"app_version": "2.0.1", "pending": 3, "oldest_pending_at": s.now() - DAY}
    part = {"cursor": who.cursor, "counter": who.counter, "changes": changes}
    asked = {"client": client, "sent_at": s.now() - 800, "spaces": {"me": part}}
    assert who.post("/v1/sync", asked).status_code == 200


def _retried(s: Scene, who: Phone) -> None:
    """Lost an answer and asked again."""
    change = who.change(put(f"{who.device}-1", new=True, n=1))
    for _ in range(2):
        who.sync(change)


def _paged(s: Scene, who: Phone) -> None:
    """Took a transfer in small pages, with one cursor."""
    page = None
    while True:
        query = {"page": page} if page else {}
        answer = who.get("/v1/spaces/me/pull", cursor=0, limit=1, **query).json
        page = answer["page"]
        if page is None:
            break
    who.cursor = answer["cursor"]
    who.sync()


def _renewed(s: Scene, who: Phone) -> None:
    """Came with an expired token, renewed it, went on."""
    claims = jwt.decode(who.token, options={"verify_signature": False})
    key = s.app.config["JWT_SECRET_KEY"]
    good, who.token = who.token, jwt.encode({**claims, "exp": 1_000}, key, ALGORITHM)
    assert who.get("/v1/spaces/me/pull").status_code == 401
    who.token = good
    who.sync()


def _reset_and_whole(s: Scene, who: Phone) -> None:
    """Was told to reset, did, and came again."""
    who.cursor = 10_000
    assert who.sync()["reset"] is True
    who.sync()


WAYS = (_plain, _asleep, _reported, _retried, _paged, _renewed, _reset_and_whole)


def test_fifty_healthy_devices_have_no_finding(scene: Scene) -> None:
    crowd = [phone(scene.http, app_version="2.10") for _ in range(HEALTHY // 5)]
    crowd += [phone(scene.http, who.email, app_version="2.10") for who in crowd for _ in range(4)]
    assert len({who.device for who in crowd}) == HEALTHY
    for number, who in enumerate(crowd):
        WAYS[number % len(WAYS)](scene, who)
    scene.record()
    scene.later(2 * DAY)
    scene.record()
    wrong = {who.device: scene.agent.findings(who.device) for who in crowd}
    assert {device: found for device, found in wrong.items() if found} == {}


def test_every_finding_is_in_the_table_of_the_docs() -> None:
    assert set(FINDINGS) - {code for _, code in FAULTS.values()} == {"reset_asked"}
