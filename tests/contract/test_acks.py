"""Acknowledgements of many devices are one write that waits for nobody."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from app.auth import admitted
from app.live import acks as module
from app.live.acks import Acks
from app.runtime import EXTENSION
from tests.contract.devices import Phone, phone, put

Step = Callable[[], None]


@pytest.fixture
def due(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """What the acknowledgements want done in a moment: the test says when that is."""
    made: list[Step] = []
    monkeypatch.setattr(module.gevent, "spawn_later", lambda _seconds, do: made.append(do))
    return made


@pytest.fixture
def acks(app: Flask) -> Acks:
    return Acks(app.extensions[EXTENSION])


@pytest.fixture
def phones(client: FlaskClient) -> list[Phone]:
    """Of one user, with nothing acknowledged."""
    first = phone(client)
    made = [first, phone(client, first.email), phone(client, first.email)]
    for one in made:
        one.sync(one.change(put("r", x=1)))
    return made


def remember(acks: Acks, one: Phone, cursor: int) -> None:
    spaces = one.get("/v1/spaces").json["spaces"]
    space = next(each["id"] for each in spaces if each["personal"])
    with one.http.application.app_context():
        who, _ = admitted(one.token)
    acks.remember(who, UUID(space), 1, cursor)


def cursors(engine: Engine, phones: list[Phone]) -> list[int]:
    wanted = text("SELECT cursor FROM replicas WHERE device_id = :device")
    with engine.connect() as connection:
        return [connection.execute(wanted, {"device": one.device}).scalar_one() for one in phones]


def test_a_row_that_another_has_locked_is_written_later_and_the_others_at_once(
    engine: Engine, acks: Acks, phones: list[Phone], due: list[Step]
) -> None:
    before = cursors(engine, phones)
    for one in phones:
        remember(acks, one, 3)
    with engine.begin() as other:
        lock = text("SELECT 1 FROM replicas WHERE device_id = :device FOR NO KEY UPDATE")
        other.execute(lock, {"device": phones[1].device})
        due.pop()()
        assert cursors(engine, phones) == [3, before[1], 3] != [3, 3, 3]
    due.pop()()
    assert cursors(engine, phones) == [3, 3, 3]
    assert due == [], "nothing is left to write"


def test_what_was_told_meanwhile_is_not_overwritten_by_what_had_to_wait(
    engine: Engine, acks: Acks, phones: list[Phone], due: list[Step]
) -> None:
    remember(acks, phones[0], 2)
    with engine.begin() as other:
        lock = text("SELECT 1 FROM replicas WHERE device_id = :device FOR NO KEY UPDATE")
        other.execute(lock, {"device": phones[0].device})
        due.pop()()
        remember(acks, phones[0], 3)
    due.pop()()
    assert cursors(engine, phones[:1]) == [3]


def test_a_device_without_a_number_is_given_one(
    engine: Engine, client: FlaskClient, acks: Acks, phones: list[Phone], due: list[Step]
) -> None:
    late = phone(client, phones[0].email)
    remember(acks, late, 3)
    remember(acks, phones[0], 3)
    due.pop()()
    assert cursors(engine, [phones[0], late]) == [3, 3]
    assert due == []
