"""What an agent does: for a reason, in the trail, and met by devices as any other change."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine

from app.admin import actions, writing
from app.admin.writing import Written
from app.runtime import EXTENSION
from storage import desk, resets
from storage.sql import cursor
from tests.contract.devices import Phone, add, delete, increment, phone, put
from tests.contract.people import told, until_someone_waits
from tests.contract.staff import Agent

KEY = {"collection": "tasks", "id": "t"}


@pytest.fixture
def agent(client: FlaskClient, engine: Engine) -> Agent:
    return Agent(client, engine, "support")


@pytest.fixture
def admin(client: FlaskClient, engine: Engine) -> Agent:
    return Agent(client, engine, "admin")


@pytest.fixture
def a(client: FlaskClient) -> Phone:
    return phone(client)


@pytest.fixture
def b(a: Phone) -> Phone:
    return phone(a.http, a.email)


@pytest.fixture
def space(a: Phone) -> str:
    found: str = a.get("/v1/spaces").json["spaces"][0]["id"]
    return found


def done(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json
    return found


def conflicting(a: Phone, b: Phone) -> None:
    a.sync(a.change(put("t", new=True, title="Tea")))
    b.sync()
    a.sync(a.change(put("t", title="Milk"), at=2_000))
    b.sync(b.change(put("t", title="Oat milk"), at=1_000))


def test_a_revoked_device_is_out_and_the_trail_says_who_and_why(
    admin: Agent, agent: Agent, a: Phone, b: Phone
) -> None:
    told(agent.do(f"/devices/{a.device}/revoke", reason="stolen"), 403, "forbidden")
    done(admin.do(f"/devices/{a.device}/revoke", reason="stolen"))
    told(a.get("/v1/devices"), 401, "device_revoked")
    assert b.get("/v1/devices").status_code == 200
    (entry,) = admin.see("/audit", subject=a.device)["entries"]
    assert (entry["action"], entry["reason"], entry["email"]) == ("revoke", "stolen", admin.email)
    assert entry["before"] == {"revoked_at": None}
    assert entry["after"]["revoked_at"] >= entry["at"] - 1
    told(admin.do(f"/devices/{uuid4()}/revoke", reason="x"), 404, "not_found")


def test_a_device_asked_to_reset_takes_the_space_anew_once_and_keeps_what_is_pending(
    agent: Agent, a: Phone, b: Phone
) -> None:
    a.sync(a.change(put("t", new=True, n=1)))
    for who in (a, b, b):
        who.sync()
    asked = done(agent.do(f"/devices/{b.device}/reset", reason="cursor stuck"))
    assert [one["position"] for one in asked["written"]] == [2]
    assert agent.findings(b.device) == ["reset_asked"]
    assert a.sync()["reset"] is False
    answer = b.sync(b.change(put("t", m=1)))
    assert (answer["reset"], answer["accepted"]) == (True, 1)
    assert [record["id"] for record in answer["records"]] == ["t"]
    assert b.sync()["reset"] is False
    assert agent.findings(b.device) == []
    told(agent.do(f"/devices/{uuid4()}/reset", reason="x"), 404, "not_found")
    new = phone(a.http, a.email)
    told(agent.do(f"/devices/{new.device}/reset", reason="x"), 404, "not_found")


def test_a_reset_of_more_spaces_than_fit_says_what_is_left_and_goes_on(
    agent: Agent, a: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resets, "SPACES_MAX", 2)
    spaces = [a.post("/v1/spaces", {"name": "s"}).json["id"] for _ in range(5)]
    for a.space in spaces:
        a.cursor, a.counter, a.epoch = 0, 0, None
        a.sync(a.change(put("t", new=True, n=1)))
        a.sync()
    path, after, asked = f"/devices/{a.device}/reset", None, []
    for count in (2, 2, 1):
        answer = done(agent.do(path, reason="stuck", after=after))
        assert len(answer["written"]) == count
        asked += [one["space"] for one in answer["written"]]
        after = answer["next"]
    assert (after, asked) == (None, sorted(spaces))


def test_a_reset_in_pages_ends(agent: Agent, a: Phone, b: Phone) -> None:
    a.sync(*[a.change(put(f"t{n}", new=True, n=1)) for n in range(5)])
    for who in (a, b, b):
        who.sync()
    done(agent.do(f"/devices/{b.device}/reset", reason="r"))
    page, seen = None, 0
    while True:
        part = {"cursor": b.cursor, "epoch": 1, "limit": 2, "page": page}
        answer = b.post("/v1/sync", {"spaces": {"me": part}}).json["spaces"]["me"]
        assert answer["reset"] is True
        seen, page = seen + len(answer["records"]), answer["page"]
        if page is None:
            break
    assert seen == 5
    b.cursor = answer["cursor"]
    assert b.sync()["reset"] is False


def test_a_conflict_settled_by_an_agent_is_settled_on_every_device(
    agent: Agent, admin: Agent, a: Phone, b: Phone, space: str
) -> None:
    conflicting(a, b)
    (one,) = agent.see("/conflicts", space=space)["conflicts"]
    loser = one["fields"][0]["siblings"][1]
    dot = {"device": loser["author"]["device"], "counter": loser["counter"]}
    body = {**KEY, "field": "title", "seen": 3, "sibling": dot, "reason": "asked the customer"}
    (written,) = done(agent.do(f"/spaces/{space}/settle", **body))["written"]
    assert written["position"] == 4
    for who in (a, b):
        (record,) = who.sync()["records"]
        assert record["fields"] == {"title": "Oat milk"}
        assert "conflicts" not in record
    (entry,) = admin.see("/audit", subject=space)["entries"]
    assert entry["action"] == "settle"
    assert len(entry["before"]["sides"]) == 2
    assert entry["after"]["value"] == entry["before"]["sides"][1]
    newest = agent.see(f"/spaces/{space}/log", limit=1)["changes"][0]
    assert newest["author"]["email"] == agent.email
    assert newest["context"]["cursor"] == 3


def test_of_two_agents_who_settle_at_once_the_second_looks_again(
    app: Flask, engine: Engine, a: Phone, b: Phone, space: str
) -> None:
    conflicting(a, b)
    agents = [Agent(app.test_client(), engine, "support") for _ in range(4)]

    def settle(agent: Agent) -> tuple[int, str]:
        body = {**KEY, "field": "title", "seen": 3, "reason": "r", "value": agent.email}
        answer = agent.do(f"/spaces/{space}/settle", **body)
        return answer.status_code, answer.json.get("code", "")

    with ThreadPoolExecutor(4) as pool:
        answers = sorted(pool.map(settle, agents))
    assert answers == [(200, ""), *[(409, "record_moved")] * 3]
    assert a.sync()["head"] == 4


def test_a_settlement_that_missed_a_devices_write_is_refused(
    agent: Agent, a: Phone, b: Phone, space: str
) -> None:
    conflicting(a, b)
    b.sync(b.change(put("t", note="by the way")))
    body = {**KEY, "field": "title", "seen": 3, "reason": "r", "value": "Both"}
    answer = told(agent.do(f"/spaces/{space}/settle", **body), 409, "record_moved")
    assert answer["position"] == 4
    done(agent.do(f"/spaces/{space}/settle", **{**body, "seen": 4, "value": None}))
    assert a.pull_all()["tasks", "t"]["fields"]["title"] is None


def test_a_deleted_record_comes_back_as_it_was_on_every_device(
    agent: Agent, a: Phone, b: Phone, space: str
) -> None:
    a.sync(a.change(put("t", new=True, n=1), increment("t", "votes", 5), add("t", "tags", "x")))
    b.sync()
    a.sync(a.change(put("t", n=2), increment("t", "votes", -1), add("t", "tags", "y")))
    a.sync(a.change(delete("t")))
    body = {**KEY, "position": 1, "seen": 3, "reason": "deleted by mistake"}
    done(agent.do(f"/spaces/{space}/restore", **body))
    for who in (a, b):
        (record,) = who.sync()["records"]
        assert record["fields"] == {"n": 1, "votes": 5, "tags": ["x"]}
        assert "deleted" not in record
    told(agent.do(f"/spaces/{space}/restore", **{**body, "position": 3}), 404, "not_found")
    told(agent.do(f"/spaces/{space}/restore", **body), 409, "record_moved")


def test_one_field_is_restored_and_the_others_stay(agent: Agent, a: Phone, space: str) -> None:
    a.sync(a.change(put("t", new=True, n=1, m=1)))
    a.sync(a.change(put("t", n=2, m=2)))
    body = {**KEY, "position": 1, "seen": 2, "names": ["n"], "reason": "r"}
    done(agent.do(f"/spaces/{space}/restore", **body))
    assert a.pull_all()["tasks", "t"]["fields"] == {"n": 1, "m": 2}


@pytest.mark.parametrize("sign", [1, -1])
def test_a_counter_beyond_what_one_increment_holds_is_restored_to_the_last_digit(
    agent: Agent, a: Phone, space: str, sign: int
) -> None:
    step = sign * (2**53 - 1)
    a.sync(a.change(put("t", new=True), *[increment("t", "n", step)] * 3, increment("t", "n", 7)))
    a.sync(a.change(*[increment("t", "n", -step)] * 3))
    body = {**KEY, "position": 1, "seen": 2, "reason": "r"}
    done(agent.do(f"/spaces/{space}/restore", **body))
    assert a.pull_all()["tasks", "t"]["fields"] == {"n": 3 * step + 7}
    a.sync()
    a.sync(a.change(*[increment("t", "n", -step)] * 103))
    body = {**KEY, "position": 3, "seen": 4, "reason": "r"}
    told(agent.do(f"/spaces/{space}/restore", **body), 422, "too_many_operations")
    assert a.sync()["head"] == 4


def test_a_record_whose_tombstone_is_gone_comes_back_too(
    agent: Agent, admin: Agent, a: Phone, space: str
) -> None:
    a.sync(a.change(put("t", new=True, n=1), increment("t", "votes", 5)))
    a.sync(a.change(delete("t")))
    a.sync()
    assert done(admin.do(f"/spaces/{space}/compact", reason="r"))["dropped"] == 1
    body = {**KEY, "position": 1, "seen": 2, "reason": "r"}
    done(agent.do(f"/spaces/{space}/restore", **body))
    assert a.pull_all()["tasks", "t"]["fields"] == {"n": 1, "votes": 5}


def test_a_repaired_change_is_replayed_and_its_device_reads_the_outcome(
    agent: Agent, admin: Agent, a: Phone, b: Phone, space: str
) -> None:
    a.sync(a.change(put("t", new=True, n=1)))
    a.sync(a.change(put("t", n=2), add("t", "n", "x"), at=7_000), a.change(put("u", n=1)))
    path = f"/quarantine/{space}/{a.device}/2"
    assert agent.findings(a.device) == ["quarantined"]
    told(agent.do(f"{path}/replay", reason="as it is"), 422, "field_type_mismatch")
    assert agent.see("/quarantine", device=a.device)["quarantine"][0]["state"] == "open"
    (written,) = done(agent.do(f"{path}/replay", reason="r", drop=[1]))["written"]
    assert b.pull_all()["tasks", "t"]["fields"] == {"n": 2}
    assert "conflicts" not in b.pull_all()["tasks", "t"]
    outcome = a.get("/v1/spaces/me/outcomes").json["outcomes"][1]
    assert (outcome["counter"], outcome["outcome"], outcome["position"]) == (
        2,
        "replayed",
        written["position"],
    )
    change = agent.see(f"/spaces/{space}/log", limit=1)["changes"][0]
    assert change["at"] == 7_000
    assert change["context"] == {"epoch": 1, "cursor": 1, "clock": {a.device: 1}}
    assert agent.findings(a.device) == []
    told(agent.do(f"{path}/replay", reason="again"), 409, "already_settled")
    replayed = agent.see("/quarantine", device=a.device, state="replayed")["quarantine"]
    assert [one["replayed_as"] for one in replayed] == [written["position"]]
    assert admin.see("/audit", action="replay", subject=space)["entries"][0]["after"]["dropped"]


def test_what_was_written_after_it_is_not_overwritten_by_a_replay(
    agent: Agent, a: Phone, b: Phone, space: str
) -> None:
    a.sync(a.change(put("t", new=True, n=1)))
    a.sync(a.change(put("t", n=2), add("t", "n", "x"), at=1_000))
    b.sync()
    b.sync(b.change(put("t", n=3), at=2_000))
    done(agent.do(f"/quarantine/{space}/{a.device}/2/replay", reason="r", drop=[1]))
    record = b.pull_all()["tasks", "t"]
    assert record["fields"] == {"n": 3}
    assert {side["value"] for side in record["conflicts"]["n"]} == {2, 3}


def test_a_change_of_any_form_can_be_repaired_by_other_operations(
    agent: Agent, a: Phone, space: str
) -> None:
    bad = {"counter": 1, "context": "nonsense", "at": "noon", "ops": {"no": "list"}}
    a.counter = 1
    assert a.sync(bad)["rejected"]
    path = f"/quarantine/{space}/{a.device}/1/replay"
    told(agent.do(path, reason="r"), 400, "malformed_request")
    told(agent.do(path, reason="r", ops=[{"op": "what"}]), 422, "unknown_operation")
    told(agent.do(path, reason="r", ops=[put("t", n=1)], drop=["1"]), 400, "malformed_request")
    done(agent.do(path, reason="r", ops=[put("t", new=True, n=1)]))
    assert a.pull_all()["tasks", "t"]["fields"] == {"n": 1}


def test_a_change_may_be_discarded_with_a_reason(
    agent: Agent, admin: Agent, a: Phone, space: str
) -> None:
    a.sync(a.change(put("t", new=True, n=1)), a.change(add("t", "n", 1)))
    path = f"/quarantine/{space}/{a.device}/2/discard"
    told(agent.do(path, reason="r"), 403, "forbidden")
    done(admin.do(path, reason="the customer wants it gone"))
    told(admin.do(path, reason="again"), 409, "already_settled")
    assert agent.findings(a.device) == []
    assert a.get("/v1/spaces/me/outcomes").json["outcomes"][1]["outcome"] == "rejected"


def test_who_discards_what_is_being_replayed_waits_and_is_told(
    app: Flask,
    engine: Engine,
    agent: Agent,
    admin: Agent,
    a: Phone,
    space: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a.sync(a.change(put("t", new=True, n=1)), a.change(add("t", "n", "x")))
    path, ops = f"/quarantine/{space}/{a.device}/2", [put("t", n=2)]
    other = app.test_client()
    with ThreadPoolExecutor(1) as pool:
        discards: list[Future[Any]] = []

        def write(*args: Any) -> Written:
            body = {"path": f"/v1/admin{path}/discard", "json": {"reason": "r"}}
            discards.append(pool.submit(other.post, **body, headers=admin.headers))
            until_someone_waits(engine)
            return writing.write(*args)

        monkeypatch.setattr(actions, "write", write)
        done(agent.do(f"{path}/replay", reason="r", ops=ops))
        told(discards[0].result(20), 409, "already_settled")
    assert agent.see("/quarantine", device=a.device, state="replayed")["quarantine"]
    assert a.get("/v1/spaces/me/outcomes").json["outcomes"][1]["outcome"] == "replayed"


def test_a_replay_of_what_was_settled_meanwhile_writes_nothing(
    engine: Engine, agent: Agent, a: Phone, space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a.sync(a.change(put("t", new=True, n=1)), a.change(add("t", "n", "x")))

    def write(*args: Any) -> Written:
        with engine.begin() as connection:
            item = desk.quarantined_one(connection, UUID(space), UUID(a.device), 2)
            assert item
            assert desk.settle(cursor(connection), item, "discarded", 1)
        return writing.write(*args)

    monkeypatch.setattr(actions, "write", write)
    path = f"/quarantine/{space}/{a.device}/2/replay"
    told(agent.do(path, reason="r", ops=[put("t", n=2)]), 409, "already_settled")
    assert a.pull_all()["tasks", "t"]["fields"] == {"n": 1}
    assert a.sync()["head"] == 1


def test_nothing_is_done_without_a_reason(admin: Agent, a: Phone, space: str) -> None:
    for path in (
        f"/devices/{a.device}/revoke",
        f"/devices/{a.device}/reset",
        f"/spaces/{space}/compact",
        f"/spaces/{space}/settle",
        f"/quarantine/{space}/{a.device}/1/discard",
    ):
        for body in ({}, {"reason": ""}, {"reason": 7}, {"reason": "x" * 1_001}):
            assert told(admin.do(path, **body), 400, "malformed_request")["errors"]["reason"]
    assert admin.see("/audit", subject=a.device)["entries"] == []


def test_the_servers_own_replicas_are_no_customers_devices_unless_asked_for(
    app: Flask, agent: Agent, a: Phone, b: Phone, space: str
) -> None:
    before = agent.see("/overview")["devices"]
    conflicting(a, b)
    (one,) = agent.see("/conflicts", space=space)["conflicts"]
    loser = one["fields"][0]["siblings"][1]
    dot = {"device": loser["author"]["device"], "counter": loser["counter"]}
    body = {**KEY, "field": "title", "seen": 3, "sibling": dot, "reason": "asked the customer"}
    done(agent.do(f"/spaces/{space}/settle", **body))
    a.sync(a.change(put("u", title="Milk"), at=2_000))
    b.sync(b.change(put("u", title="Oat milk"), at=1_000))
    app.extensions[EXTENSION].recorder.sweep()
    theirs = agent.see("/devices", email=agent.email)["devices"]
    assert "rejoin" not in {each["platform"] for each in theirs}
    (replica,) = agent.see("/devices", email=agent.email, platform="rejoin")["devices"]
    assert replica["states"] == []
    assert agent.see("/overview")["devices"] == before


def test_a_replica_of_the_servers_can_not_be_revoked(
    admin: Agent, agent: Agent, a: Phone, space: str
) -> None:
    a.sync(a.change(put("t", new=True, title="Tea")))
    at = a.cursor
    a.sync(a.change(delete("t")))
    restore = {**KEY, "position": at, "reason": "asked"}
    done(agent.do(f"/spaces/{space}/restore", **restore, seen=a.cursor))
    (replica,) = agent.see("/devices", email=agent.email, platform="rejoin")["devices"]
    told(admin.do(f"/devices/{replica['id']}/revoke", reason="x"), 404, "not_found")
    (replica,) = agent.see("/devices", email=agent.email, platform="rejoin")["devices"]
    assert replica["revoked_at"] is None
