"""What an operator does to the log: epochs after a restore, and dropping tombstones."""

from __future__ import annotations

from uuid import UUID

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from storage import upkeep
from tests.contract.devices import Phone, delete, phone, put


@pytest.fixture
def a(client: FlaskClient) -> Phone:
    return phone(client)


def space_of(engine: Engine, a: Phone) -> UUID:
    with engine.begin() as connection:
        query = text("SELECT personal_space_id FROM users WHERE email = :email")
        found: UUID = connection.execute(query, {"email": a.email}).scalar_one()
        return found


def test_a_tombstone_stays_until_every_device_has_acknowledged_it(
    client: FlaskClient, engine: Engine, a: Phone
) -> None:
    b = phone(client, a.email)
    a.sync(a.change(put("t1", new=True)), a.change(put("t2", new=True)))
    b.sync()
    b.sync()
    a.sync(a.change(delete("t1")))
    a.sync()
    space = space_of(engine, a)
    with engine.begin() as connection:
        assert upkeep.drop_tombstones(connection, space, before=0) == 0
    (gone,) = b.sync()["records"]
    assert gone["deleted"] is True
    b.sync()
    with engine.begin() as connection:
        assert upkeep.drop_tombstones(connection, space, before=0) == 1
    assert b.sync()["reset"] is False


def test_a_device_that_applied_nothing_yet_holds_no_tombstone(
    client: FlaskClient, engine: Engine, a: Phone
) -> None:
    pusher = phone(client, a.email)
    pushed = pusher.post("/v1/spaces/me/push", {"changes": [pusher.change(put("t1", new=True))]})
    assert pushed.status_code == 200
    a.sync()
    a.sync(a.change(delete("t1")))
    a.sync()
    with engine.begin() as connection:
        assert upkeep.drop_tombstones(connection, space_of(engine, a), before=0) == 1


def test_a_device_behind_the_horizon_is_reset_and_keeps_its_pending_changes(
    client: FlaskClient, engine: Engine, a: Phone
) -> None:
    b = phone(client, a.email)
    a.sync(a.change(put("t1", new=True)), a.change(put("t2", new=True, n=1)))
    b.sync()
    started = phone(client, a.email)
    page = started.sync(limit=1)["page"]
    a.sync(a.change(delete("t1")))
    space = space_of(engine, a)
    with engine.begin() as connection:
        assert upkeep.drop_tombstones(connection, space, before=2**60) == 1
    answer = b.sync(b.change(put("t3", new=True)))
    assert answer["reset"] is True
    assert [r["id"] for r in answer["records"]] == ["t2", "t3"]
    assert answer["accepted"] == 1
    assert started.sync(page=page)["error"]["code"] == "bad_page", "it saw t1 alive"
    assert [r["id"] for r in started.sync()["records"]] == ["t2", "t3"]


def test_a_restored_database_starts_the_next_epoch_and_devices_give_back_what_it_lost(
    client: FlaskClient, engine: Engine, a: Phone
) -> None:
    b = phone(client, a.email)
    a.sync(a.change(put("t1", new=True, n=1)))
    b.sync()
    lost = [a.change(put("t1", n=2)), a.change(put("t2", new=True))]
    a.sync(*lost)
    b.sync()
    space = space_of(engine, a)
    with engine.begin() as connection:
        _roll_back(engine, space, position=1, counter=1)
        assert upkeep.start_next_epoch(connection) >= 1
    answer = b.sync(b.change(put("t1", n=3)))
    assert (answer["epoch"], answer["reset"], answer["accepted"]) == (2, True, 1)
    assert a.sync()["accepted"] == 1, "below its own count: give back"
    assert a.sync(*lost)["accepted"] == 3
    record = a.pull_all()["tasks", "t1"]
    values = [side["value"] for side in record["conflicts"]["n"]]
    assert sorted(values) == [2, 3], "both were made without a sight of the other that survived"
    assert a.sync(a.change(put("t9"), context={"epoch": 3, "cursor": 0}))["rejected"]


def _roll_back(engine: Engine, space: UUID, position: int, counter: int) -> None:
    """As a backup taken at this position would have it: the record t1 is written anew from it."""
    with engine.begin() as connection:
        values = {"space": space, "position": position, "counter": counter}
        for statement in (
            "DELETE FROM changes WHERE space_id = :space AND position > :position",
            "UPDATE spaces SET head = :position WHERE id = :space",
            "UPDATE replicas SET counter = least(counter, :counter) WHERE space_id = :space",
            "DELETE FROM records WHERE space_id = :space AND id <> 't1'",
        ):
            names = {k: v for k, v in values.items() if f":{k}" in statement}
            connection.execute(text(statement), names)
        first = {"space": space, "data": '{"n": 1}', "causality": _first_row()}
        connection.execute(
            text(
                "UPDATE records SET position = 1, conflicts = 0, data = :data,"
                " causality = :causality WHERE space_id = :space"
            ),
            first,
        )


def _first_row() -> bytes:
    import msgspec

    return msgspec.msgpack.encode([[[1, 1, 1, 1_763_800_000_000]], [0], 0, {"n": 0}])
