"""One user's data: taken along, and erased everywhere, while the others go on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from app.recording import Recorder
from app.runtime import EXTENSION
from storage.tables import metadata
from tests.contract.devices import PASSWORD, Phone, add, phone, put
from tests.contract.people import told, until_someone_waits
from tests.contract.staff import Agent


@pytest.fixture
def admin(client: FlaskClient, engine: Engine) -> Agent:
    return Agent(client, engine, "admin")


@pytest.fixture
def recorder(app: Flask) -> Recorder:
    found: Recorder = app.extensions[EXTENSION].recorder
    return found


def marked(http: FlaskClient, marker: str) -> Phone:
    """A user with the marker in everything that a user can write."""
    device = {"name": f"{marker} phone", "platform": f"{marker} os", "app_version": marker}
    email = f"{marker}@example.org"
    http.post("/v1/auth/signup", json={"email": email, "password": PASSWORD})
    who = phone(http, email, **device)
    row = put(marker, new=True, collection=f"c-{marker}", **{f"f-{marker}": marker, "n": 1})
    bad = {"op": "add", "collection": f"c-{marker}", "id": marker, "field": "n", "values": [marker]}
    gone = {"op": "delete", "collection": f"c-{marker}", "id": f"{marker}-2"}
    who.sync(who.change(row), who.change(bad), who.change(gone), who.change(put("t", tags=marker)))
    who.sync(who.change(put("t", tags=f"{marker}!"), context={"cursor": 0}))
    body = {"client": {"app_version": f"{marker} 2", "pending": 1}, "spaces": {marker[:30]: {}}}
    assert who.post("/v1/sync", body).status_code == 200
    wrong = {"email": email, "password": "wrong", "device_id": who.device}
    assert http.post("/v1/auth/login", json=wrong).status_code == 401
    return who


def user_of(admin: Agent, email: str) -> str:
    found: str = admin.see("/users", email=email)["users"][0]["id"]
    return found


def everything(engine: Engine) -> dict[str, str]:
    """All tables as text, bytes as what they stand for."""
    found: dict[str, str] = {}
    with engine.connect() as connection:
        connection.execute(text("SET bytea_output = 'escape'"))
        for table in metadata.sorted_tables:
            sql = f"SELECT string_agg(t::text, E'\\n') FROM {table.name} AS t"  # noqa: S608
            found[table.name] = connection.scalar(text(sql)) or ""
    return found


def test_what_is_erased_is_in_no_table_any_more_and_the_counts_say_so(
    admin: Agent, client: FlaskClient, engine: Engine, recorder: Recorder
) -> None:
    marker = f"marker{uuid4().hex[:12]}"
    who = marked(client, marker)
    recorder.flush()
    recorder.sweep()
    user = user_of(admin, who.email)
    before = {table for table, rows in everything(engine).items() if marker in rows}
    assert {"users", "devices", "changes", "records", "quarantine"} <= before
    answer = admin.do(f"/users/{user}/erase", reason="asked by letter").json
    rows = answer["rows"]
    assert (rows["users"], rows["devices"], rows["spaces"], rows["quarantine"]) == (1, 1, 1, 1)
    assert (rows["changes"], answer["kept_changes"]) == (4, 0)
    assert rows["events"] >= 3
    recorder.flush()
    left = everything(engine)
    assert {table for table, kept in left.items() if marker in kept} == set()
    assert {table for table, kept in left.items() if user in kept} == {"audit"}
    (entry,) = admin.see("/audit", subject=user)["entries"]
    assert (entry["action"], entry["reason"]) == ("erase", "asked by letter")
    assert entry["after"]["rows"] == rows
    told(who.get("/v1/devices"), 401, "token_invalid")
    told(admin.do(f"/users/{user}/erase", reason="again"), 404, "not_found")


def test_the_others_of_a_shared_space_still_converge(
    admin: Agent, client: FlaskClient, engine: Engine
) -> None:
    marker = f"marker{uuid4().hex[:12]}"
    who = marked(client, marker)
    other = phone(client)
    twin = phone(client, other.email)
    space = who.post("/v1/spaces", {"name": "Crew"}).json["id"]
    path = f"/v1/spaces/{space}/members/{other.email}"
    assert client.put(path, json={"role": "viewer"}, headers=who.headers).status_code == 200
    who.space = other.space = twin.space = space
    who.counter = who.cursor = 0
    who.epoch = None
    who.sync(who.change(put("t", new=True, title="from the one who leaves")))
    who.sync(who.change(add("t", "title", marker)))
    other.sync()
    user = user_of(admin, who.email)
    answer = admin.do(f"/users/{user}/erase", reason="asked").json
    assert answer["kept_changes"] == 1
    assert {table for table, kept in everything(engine).items() if marker in kept} == set()
    # The viewer who is left is the owner now, and writes.
    other.sync(other.change(put("t", title="and on it goes"), put("u", new=True, n=1)))
    twin.sync(twin.change(put("t", title="offline meanwhile"), context={"cursor": 1, "epoch": 1}))
    assert other.pull_all() == twin.pull_all()
    assert set(other.pull_all()) == {("tasks", "t"), ("tasks", "u")}
    (mine,) = [s for s in other.get("/v1/spaces").json["spaces"] if s["id"] == space]
    assert mine["role"] == "owner"
    log = admin.see(f"/spaces/{space}/log")["changes"]
    assert log[-1]["author"] == {"device": who.device, "name": "", "email": ""}


def erased_while(
    app: Flask, engine: Engine, admin: Agent, sql: Sequence[str], **values: object
) -> dict[str, Any]:
    """What the erasure answered that met these statements before their commit."""
    other = app.test_client()
    body: dict[str, Any] = {"json": {"reason": "asked"}, "headers": admin.headers}
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as connection:
            for statement in sql:
                connection.execute(text(statement), values)
            erasing = pool.submit(other.post, f"/v1/admin/users/{values['user']}/erase", **body)
            until_someone_waits(engine)
        answer = erasing.result(20)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json
    return found


def test_a_space_made_while_its_owner_is_erased_goes_too(
    app: Flask, admin: Agent, client: FlaskClient, engine: Engine
) -> None:
    who, marker = phone(client), f"marker{uuid4().hex[:12]}"
    user = user_of(admin, who.email)
    made = (
        "INSERT INTO spaces (id, name, personal) VALUES (:space, :name, false)",
        "INSERT INTO memberships (space_id, user_id, role) VALUES (:space, :user, 'owner')",
    )
    values = {"space": uuid4(), "name": marker, "user": user}
    answer = erased_while(app, engine, admin, made, **values)
    assert answer["rows"]["spaces"] == 2
    assert not [table for table, rows in everything(engine).items() if marker in rows]


@pytest.mark.parametrize("withdrawn", [True, False], ids=["let in again", "invited"])
def test_a_member_who_comes_while_the_owner_is_erased_keeps_the_space(
    app: Flask, admin: Agent, client: FlaskClient, engine: Engine, withdrawn: bool
) -> None:
    who, other = phone(client), phone(client)
    who.space = other.space = who.post("/v1/spaces", {"name": "crew"}).json["id"]
    path = f"/v1/spaces/{who.space}/members/{other.email}"
    if withdrawn:
        assert who.http.put(path, json={"role": "editor"}, headers=who.headers).status_code < 300
        other.sync(other.change(put("o", new=True, text="work")))
        assert who.http.delete(path, headers=who.headers).status_code == 204
    else:
        who.sync(who.change(put("o", new=True, text="work")))
    came = """
        INSERT INTO memberships (space_id, user_id, role) VALUES (:space, :member, 'editor')
        ON CONFLICT (space_id, user_id) DO UPDATE SET withdrawn_at = NULL
    """
    users = {"user": user_of(admin, who.email), "member": user_of(admin, other.email)}
    values = {"space": who.space, **users}
    assert erased_while(app, engine, admin, [came], **values)["rows"]["spaces"] == 1
    assert other.pull_all()["tasks", "o"]["fields"] == {"text": "work"}
    (seen,) = [s for s in other.get("/v1/spaces").json["spaces"] if s["id"] == who.space]
    assert seen["role"] == "owner"


def test_nobody_erases_the_account_that_asks(admin: Agent, engine: Engine) -> None:
    told(admin.do(f"/users/{admin.user_id}/erase", reason="oops"), 409, "own_account")
    agent = Agent(admin.client, engine, "support")
    for action in ("erase", "export"):
        told(agent.do(f"/users/{admin.user_id}/{action}", reason="r"), 403, "forbidden")
    assert admin.ask("/overview").status_code == 200


def test_an_export_holds_all_that_is_kept_of_a_user_and_nothing_of_others(
    admin: Agent, client: FlaskClient, recorder: Recorder
) -> None:
    marker = f"marker{uuid4().hex[:12]}"
    who, other = marked(client, marker), phone(client)
    other.sync(other.change(put("x", new=True, secret="not theirs")))
    recorder.flush()
    user = user_of(admin, who.email)
    answer = admin.do(f"/users/{user}/export", reason="asked by letter")
    assert answer.content_type == "application/x-ndjson"
    lines: list[dict[str, Any]] = [json.loads(line) for line in answer.text.splitlines()]
    kinds = [line["kind"] for line in lines]
    assert kinds[0] == "user"
    assert {"device", "membership", "event", "record", "change", "quarantined"} <= set(kinds)
    assert kinds.count("change") == 4
    assert "not theirs" not in answer.text
    assert "password" not in answer.text
    assert [line["data"] for line in lines if line["kind"] == "record" and line["id"] == marker]
    (entry,) = admin.see("/audit", subject=user)["entries"]
    assert entry["action"] == "export"
    told(admin.do(f"/users/{uuid4()}/export", reason="r"), 404, "not_found")
