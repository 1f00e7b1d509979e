"""What staff do, as devices with real files live through it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine

import rejoin
from tests.contract.staff import Agent
from tests.edge.fleet import Fleet, rows, sync


@pytest.fixture
def fleet(client: FlaskClient, tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(client, tmp_path)
    yield made
    made.close()


@pytest.fixture
def admin(client: FlaskClient, engine: Engine) -> Agent:
    return Agent(client, engine, "admin")


def pair(fleet: Fleet) -> list[rejoin.Database]:
    made = [fleet.device(), fleet.device()]
    for device in made:
        device.execute("CREATE TABLE tasks (id TEXT PRIMARY KEY, title TEXT, votes INTEGER)")
        device.track("tasks", votes="counter")
    return made


def space_of(fleet: Fleet, admin: Agent) -> tuple[str, int]:
    """(the personal space of the fleet's user, its head)"""
    user = admin.see("/users", email=fleet.email)["users"][0]
    space: str = user["personal_space"]
    return space, admin.see(f"/spaces/{space}")["head"]


def test_a_row_deleted_by_mistake_comes_back_on_both_devices_as_it_was(
    fleet: Fleet, admin: Agent
) -> None:
    a, b = pair(fleet)
    a.execute("INSERT INTO tasks VALUES ('t1', 'Milk', 0)")
    a.execute("UPDATE tasks SET votes = votes + 3 WHERE id = 't1'")
    fleet.settle()
    kept = rows(a)
    space, before = space_of(fleet, admin)
    b.execute("DELETE FROM tasks WHERE id = 't1'")
    fleet.settle()
    assert rows(a) == rows(b) == {"tasks": []}
    _, head = space_of(fleet, admin)
    body = {"collection": "tasks", "id": "t1", "position": before, "seen": head, "reason": "r"}
    answer = admin.do(f"/spaces/{space}/restore", **body)
    assert answer.status_code == 200, answer.text
    fleet.settle()
    assert rows(a) == rows(b) == kept


def test_a_conflict_settled_at_the_desk_is_settled_on_both_devices(
    fleet: Fleet, admin: Agent
) -> None:
    a, b = pair(fleet)
    a.execute("INSERT INTO tasks VALUES ('t1', 'Tea', 0)")
    fleet.settle()
    a.execute("UPDATE tasks SET title = 'Milk' WHERE id = 't1'")
    b.execute("UPDATE tasks SET title = 'Oat milk' WHERE id = 't1'")
    fleet.settle()
    assert a.conflicts()
    space, head = space_of(fleet, admin)
    body = {"collection": "tasks", "id": "t1", "field": "title", "seen": head, "value": "Both"}
    assert admin.do(f"/spaces/{space}/settle", reason="asked", **body).status_code == 200
    fleet.settle()
    assert not a.conflicts()
    assert not b.conflicts()
    assert rows(a) == rows(b)
    assert a.execute("SELECT title FROM tasks").fetchall() == [("Both",)]


def test_a_device_that_is_asked_to_reset_loses_nothing_that_was_pending(
    fleet: Fleet, admin: Agent
) -> None:
    a, b = pair(fleet)
    a.execute("INSERT INTO tasks VALUES ('t1', 'Milk', 0)")
    fleet.settle()
    b.execute("INSERT INTO tasks VALUES ('t2', 'written offline', 0)")
    found = admin.see("/devices", email=fleet.email)["devices"]
    for device in found:
        answer = admin.do(f"/devices/{device['id']}/reset", reason="r")
        assert answer.status_code == 200, answer.text
    sync(b)
    fleet.settle()
    assert rows(a) == rows(b)
    assert [row[0] for row in a.execute("SELECT id FROM tasks ORDER BY id")] == ["t1", "t2"]
    for device in found:
        assert admin.findings(device["id"]) == []


def test_the_devices_of_a_user_who_is_erased_are_told_and_the_others_go_on(
    fleet: Fleet, admin: Agent, client: FlaskClient, tmp_path: Path
) -> None:
    a, _ = pair(fleet)
    (tmp_path / "others").mkdir()
    others = Fleet(client, tmp_path / "others")
    c, d = pair(others)
    c.execute("INSERT INTO tasks VALUES ('t1', 'ours', 0)")
    a.execute("INSERT INTO tasks VALUES ('t1', 'theirs', 0)")
    fleet.settle()
    others.settle()
    user = admin.see("/users", email=fleet.email)["users"][0]["id"]
    assert admin.do(f"/users/{user}/erase", reason="asked").status_code == 200
    with pytest.raises(rejoin.RejoinError):
        a.sync()
    d.execute("UPDATE tasks SET title = 'still ours' WHERE id = 't1'")
    others.settle()
    assert rows(c) == rows(d)
    assert c.execute("SELECT title FROM tasks").fetchall() == [("still ours",)]
    others.close()
