"""An agent reads a space: its log, a record's past, the conflicts and what was put aside."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from app.admin import records
from app.runtime import EXTENSION, Runtime
from sync.past import rebuilt
from tests.contract.devices import Phone, add, delete, increment, phone, put, remove
from tests.contract.people import told
from tests.contract.staff import Agent

SECRET = "something that only Ada should know"


@pytest.fixture
def agent(client: FlaskClient, engine: Engine) -> Agent:
    return Agent(client, engine, "support")


@pytest.fixture
def admin(client: FlaskClient, engine: Engine) -> Agent:
    return Agent(client, engine, "admin")


@pytest.fixture
def a(client: FlaskClient) -> Phone:
    return phone(client, name="Ada's phone")


@pytest.fixture
def space(a: Phone) -> str:
    found: str = a.get("/v1/spaces").json["spaces"][0]["id"]
    return found


def conflicting(a: Phone) -> Phone:
    """Another phone, which wrote the same field without having seen a's write."""
    b = phone(a.http, a.email)
    a.sync(a.change(put("t", new=True, title="Tea", note="n")))
    b.sync()
    a.sync(a.change(put("t", title="Milk"), at=2_000))
    b.sync(b.change(put("t", title="Oat milk"), at=1_000))
    return b


def test_the_log_comes_newest_first_with_dot_context_times_and_outcome(
    agent: Agent, a: Phone, space: str
) -> None:
    b = conflicting(a)
    first = agent.see(f"/spaces/{space}/log", limit=2)
    (newest, before) = first["changes"]
    assert (newest["position"], newest["counter"], newest["outcome"]) == (3, 1, "conflict")
    assert newest["author"] == {"device": b.device, "name": "phone", "email": a.email}
    assert newest["context"] == {"epoch": 1, "cursor": 1}
    assert (newest["at"], newest["at_corrected"]) == (1_000, 1_000)
    assert newest["conflicts"] == [{"collection": "tasks", "id": "t", "field": "title"}]
    assert (before["position"], before["outcome"]) == (2, "applied")
    rest = agent.see(f"/spaces/{space}/log", page=first["page"])
    assert [c["position"] for c in rest["changes"]] == [1]
    assert rest["page"] is None
    of_b = agent.see(f"/spaces/{space}/log", device=b.device)["changes"]
    assert [c["position"] for c in of_b] == [3]
    assert [c["position"] for c in agent.see(f"/spaces/{space}/log", before=2)["changes"]] == [1]


def test_a_page_of_the_log_is_bounded_in_bytes_and_goes_on(
    agent: Agent, a: Phone, space: str
) -> None:
    a.sync(*[a.change(put(f"t{n}", text="x" * 200_000)) for n in range(9)])
    seen: list[int] = []
    page: dict[str, Any] = {}
    while True:
        found = agent.see(f"/spaces/{space}/log", **page)
        seen += [change["position"] for change in found["changes"]]
        assert len(found["changes"]) < 9
        if found["page"] is None:
            break
        page = {"page": found["page"]}
    assert seen == list(range(9, 0, -1))


def test_a_space_shows_its_members_and_its_clock(agent: Agent, a: Phone, space: str) -> None:
    b = conflicting(a)
    shown = agent.see(f"/spaces/{space}")
    assert (shown["head"], shown["personal"]) == (3, True)
    assert [member["email"] for member in shown["members"]] == [a.email]
    clock = {replica["author"]["device"]: replica["counter"] for replica in shown["replicas"]}
    assert clock == {a.device: 2, b.device: 1}


def test_a_record_shows_its_siblings_and_its_history_who_had_seen_what(
    agent: Agent, admin: Agent, a: Phone, space: str
) -> None:
    b = conflicting(a)
    key = {"collection": "tasks", "id": "t"}
    opened = {**key, "values": "true", "reason": "the customer asked"}
    shown = admin.see(f"/spaces/{space}/record", **opened)
    fields = {field["name"]: field for field in shown["fields"]}
    assert fields["title"]["in_conflict"]
    sides = [(s["value"]["value"], s["author"]["device"]) for s in fields["title"]["siblings"]]
    assert sides == [("Milk", a.device), ("Oat milk", b.device)]
    assert fields["note"]["value"]["value"] == "n"
    changes = agent.see(f"/spaces/{space}/record/history", **key)["changes"]
    assert [(c["position"], c["unseen"]) for c in changes] == [(3, [2]), (2, []), (1, [])]


def test_a_record_is_shown_as_it_was_at_any_position(admin: Agent, a: Phone, space: str) -> None:
    a.sync(a.change(put("t", new=True, n=1), increment("t", "votes", 2), add("t", "tags", "x")))
    a.sync(a.change(increment("t", "votes", 3), remove("t", "tags", "x"), add("t", "tags", "y")))
    a.sync(a.change(delete("t")))
    a.sync(a.change(put("t", new=True, n=2)))

    def at(position: int | None) -> tuple[bool, dict[str, Any]]:
        query = {"collection": "tasks", "id": "t", "values": "true", "reason": "r"}
        where = {} if position is None else {"at": position}
        shown = admin.see(f"/spaces/{space}/record", **query, **where)
        values = {field["name"]: field["value"]["value"] for field in shown["fields"]}
        return shown["deleted"], values

    assert at(1) == (False, {"n": 1, "votes": 2, "tags": ["x"]})
    assert at(2) == (False, {"n": 1, "votes": 5, "tags": ["y"]})
    assert at(3)[0] is True
    assert at(4) == at(None) == (False, {"n": 2})
    query = {"collection": "tasks", "id": "t", "at": 0}
    told(admin.ask(f"/spaces/{space}/record", **query), 404, "not_found")


def test_what_is_rebuilt_from_the_log_is_what_is_kept(engine: Engine, a: Phone, space: str) -> None:
    b = conflicting(a)
    b.sync(b.change(increment("t", "votes", 1)), b.change(add("t", "tags", "b")))
    a.sync(a.change(add("t", "tags", "a"), increment("t", "votes", 5)))
    a.sync(a.change(put("t", new=True, title="new"), context={"cursor": 3, "epoch": 1}))
    b.sync(b.change(delete("t")))
    with engine.connect() as connection:
        kept = records.kept(connection, UUID(space), ("tasks", "t"))
        was = records.was(connection, UUID(space), ("tasks", "t"), 99)
    assert kept is not None
    assert was is not None
    assert (was.position, was.whole, was.life) == (kept.position, kept.whole, kept.life)
    assert {n: _state(f) for n, f in was.fields.items()} == {
        n: _state(f) for n, f in kept.fields.items()
    }
    assert rebuilt(("tasks", "t"), [], lambda *_: []) is None


def _state(field: Any) -> Any:
    """All but the tail, which is the log's, and the order of siblings."""
    parts = {name: getattr(field, name) for name in field.__struct_fields__ if name != "tail"}
    if "siblings" in parts:
        parts["siblings"] = sorted(parts["siblings"])
    return parts


def test_values_are_names_sizes_and_hashes_unless_they_are_opened(
    agent: Agent, admin: Agent, a: Phone, space: str
) -> None:
    a.sync(a.change(put("t", new=True, title=SECRET, same=SECRET), add("t", "tags", SECRET)))
    a.sync(a.change(put("t", tags=SECRET)))
    key = {"collection": "tasks", "id": "t"}
    for path, query in (
        (f"/spaces/{space}/log", {}),
        (f"/spaces/{space}/record", key),
        (f"/spaces/{space}/record/history", key),
        (f"/quarantine/{space}/{a.device}/2", {}),
    ):
        for who in (agent, admin):
            assert SECRET not in who.ask(path, **query).text
        opened = {**query, "values": "true"}
        told(agent.ask(path, **opened, reason="r"), 403, "forbidden")
        told(admin.ask(path, **opened), 400, "bad_parameter")
        assert SECRET in admin.ask(path, **opened, reason="ticket 7").text
    fields = {f["name"]: f["value"] for f in agent.see(f"/spaces/{space}/record", **key)["fields"]}
    assert fields["title"] == fields["same"]
    assert (fields["title"]["type"], fields["title"]["bytes"]) == ("string", len(SECRET) + 2)
    trail = admin.see("/audit", subject=space, action="open_values")["entries"]
    assert len(trail) == 4
    assert {entry["reason"] for entry in trail} == {"ticket 7"}
    assert {entry["email"] for entry in trail} == {admin.email}
    assert SECRET not in json.dumps(trail)


def test_support_opens_values_where_the_setting_allows_it(
    app: Flask, agent: Agent, a: Phone, space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime: Runtime = app.extensions[EXTENSION]
    a.sync(a.change(put("t", title=SECRET)))
    monkeypatch.setattr(runtime, "settings", replace(runtime.settings, support_sees_values=True))
    query = {"values": "true", "reason": "r"}
    assert SECRET in agent.ask(f"/spaces/{space}/log", **query).text


def test_conflicts_are_listed_until_they_are_settled_and_then_as_settled(
    agent: Agent, admin: Agent, a: Phone, space: str
) -> None:
    conflicting(a)
    opened = {"space": space, "values": "true", "reason": "r"}
    (one,) = admin.see("/conflicts", **opened)["conflicts"]
    assert (one["collection"], one["id"]) == ("tasks", "t")
    (field,) = one["fields"]
    assert [side["value"]["value"] for side in field["siblings"]] == ["Milk", "Oat milk"]
    assert agent.see("/conflicts/settled", space=space)["conflicts"] == []
    a.sync()
    a.sync(a.change(put("t", title="Both")))
    assert agent.see("/conflicts", space=space)["conflicts"] == []
    (was,) = admin.see("/conflicts/settled", **opened)["conflicts"]
    assert sorted(side["value"]["value"] for side in was["sides"]) == ["Milk", "Oat milk"]
    assert was["current"]["value"]["value"] == "Both"


def test_pages_of_conflicts_fit_together(agent: Agent, a: Phone, space: str) -> None:
    b = phone(a.http, a.email)
    for who in (a, b):
        changes = [who.change(put(f"t{n}", x=who.device), context={"cursor": 0}) for n in range(5)]
        who.sync(*changes)
    first = agent.see("/conflicts", space=space, limit=3)
    rest = agent.see("/conflicts", space=space, limit=3, page=first["page"])
    assert [c["id"] for c in first["conflicts"] + rest["conflicts"]] == [f"t{n}" for n in range(5)]


def test_the_quarantine_shows_the_change_and_why(agent: Agent, a: Phone, space: str) -> None:
    a.sync(a.change(put("t", new=True, n=1)), a.change(add("t", "n", SECRET)))
    (one,) = agent.see("/quarantine", device=a.device)["quarantine"]
    assert (one["counter"], one["state"], one["error"]["code"]) == (
        2,
        "open",
        "field_type_mismatch",
    )
    item = agent.see(f"/quarantine/{space}/{a.device}/2")
    (op,) = item["change"]["ops"]
    assert (op["op"], op["id"], op["field"]) == ("add", "t", "n")
    assert op["values"][0]["bytes"] == len(SECRET) + 2
    assert agent.see("/quarantine", device=a.device, code="x")["quarantine"] == []
    told(agent.ask(f"/quarantine/{space}/{a.device}/1"), 404, "not_found")
    told(agent.ask(f"/quarantine/{space}/{a.device}/{10**30}"), 404, "not_found")


def test_the_overview_counts_what_there_is(
    app: Flask, agent: Agent, a: Phone, space: str, engine: Engine
) -> None:
    runtime: Runtime = app.extensions[EXTENSION]
    conflicting(a)
    a.sync(a.change(put("u", new=True, n=1)), a.change(delete("u")), a.change(add("t", "title", 1)))
    runtime.recorder.flush()
    runtime.recorder.sweep()
    shown = agent.see("/overview")
    with engine.connect() as connection:
        assert shown["users"] == connection.scalar(text("SELECT count(*) FROM users"))
        assert shown["devices"] == connection.scalar(
            text("SELECT count(*) FROM devices WHERE platform <> 'rejoin'")
        )
    assert shown["quarantined"] >= 1
    assert shown["conflicts"] >= 1
    assert shown["states"]["quarantined"] >= 1
    assert sum(minute["changes"] for minute in shown["traffic"]) >= 6
    assert sum(minute["bytes"] for minute in shown["traffic"]) > 1_000
    assert any(held["tombstones"] for held in shown["held_back"])
    assert shown["largest"][0]["head"] >= 3


def test_the_trail_is_for_admins_and_the_database_keeps_it(
    agent: Agent, admin: Agent, a: Phone, space: str, engine: Engine
) -> None:
    told(agent.ask("/audit"), 403, "forbidden")
    a.sync(a.change(put("t", n=1)))
    admin.see(f"/spaces/{space}/log", values="true", reason="r")
    for statement in ("UPDATE audit SET reason = ''", "DELETE FROM audit", "TRUNCATE audit"):
        with engine.connect() as connection, pytest.raises(Exception, match="append-only"):
            connection.execute(text(statement))
    assert admin.see("/audit", subject=space)["entries"][0]["action"] == "open_values"
