"""Many at once: positions come in order for whoever reads, and everything happens once.

The cursor's promise is tested on the exchange and, by the same writers and readers, on a mutant
that takes positions from a `bigserial`: there, readers lose changes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID, uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from app.access import Visit
from app.auth import Principal
from app.exchange import Exchange
from app.hints import Hints
from app.turns import Turns
from storage.accounts import Registration, create_user, register_device
from sync.changes import Change, Context, Put
from sync.errors import SyncError
from sync.limits import Limits
from sync.requests import Pull, Push
from tests.contract.devices import Phone, phone, put

WRITERS, CHANGES, READERS = 16, 20, 3
PATIENCE_SECONDS = 60


def _at_once(*tasks: Callable[[], Any]) -> list[Any]:
    """All of them, each in a thread, begun at the same moment; what each returned."""
    gate = threading.Barrier(len(tasks))

    def run(task: Callable[[], Any]) -> Any:
        gate.wait(PATIENCE_SECONDS)
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return [each.result(PATIENCE_SECONDS) for each in [pool.submit(run, t) for t in tasks]]


class Log(Protocol):
    """What a race is run on: each writer's key becomes one change."""

    def write(self, writer: int, number: int) -> None: ...

    def read(self, cursor: int) -> tuple[int, list[tuple[int, str]]]:
        """(new cursor, (position, key) of what stands after the old one)"""


@dataclass
class Seen:
    """What one reader made of the log while it grew."""

    keys: list[str] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)


def _race(log: Log) -> list[Seen]:
    """Writers, and readers that follow until the writers are done and nothing is left."""
    done = threading.Event()

    def follow() -> Seen:
        seen, cursor = Seen(), 0
        while True:
            last = done.is_set()
            cursor, found = log.read(cursor)
            seen.positions += [position for position, _ in found]
            seen.keys += [key for _, key in found]
            if last and not found:
                return seen

    def write(writer: int) -> None:
        for number in range(CHANGES):
            log.write(writer, number)

    with ThreadPoolExecutor(READERS) as readers:
        following = [readers.submit(follow) for _ in range(READERS)]
        try:
            _at_once(*[lambda w=w: write(w) for w in range(WRITERS)])
        finally:
            done.set()
        return [each.result(PATIENCE_SECONDS) for each in following]


def _every_key() -> list[str]:
    return sorted(f"{w:03}{n:03}" for w in range(WRITERS) for n in range(CHANGES))


# The exchange -------------------------------------------------------------------------------


class ByExchange:
    """Each writer is a device of its own in one shared space; readers pull."""

    def __init__(self, engine: Engine) -> None:
        self.exchange = Exchange(engine, Limits(), Hints(), Turns())
        with engine.begin() as connection:
            user = create_user(connection, f"race-{uuid4()}@example.org", "no password")
            assert user is not None
            self.devices = [_device(connection, user.id) for _ in range(WRITERS + 1)]
        self.space = str(user.personal_space_id)

    def visit(self, number: int) -> Visit:
        return Visit(self.devices[number], int(time.time() * 1000))

    def write(self, writer: int, number: int) -> None:
        op = Put("c", f"{writer:03}{number:03}", {"n": number}, True)
        change = Change(number + 1, Context(0), 1, [op])
        self.exchange.push(self.visit(writer), self.space, Push(changes=[change]))

    def read(self, cursor: int) -> tuple[int, list[tuple[int, str]]]:
        answer = self.exchange.pull(self.visit(WRITERS), self.space, Pull(cursor=cursor))
        assert isinstance(answer.records, list)
        assert answer.page is None
        return answer.cursor, [(record.position, record.id) for record in answer.records]


def _device(connection: Any, user: UUID) -> Principal:
    from datetime import UTC, datetime

    device = uuid4()
    about = Registration(device, user, None, None, None, None)
    register_device(connection, about, datetime.now(UTC))
    return Principal(user, device, "user")


def test_sixteen_writers_and_no_reader_misses_a_change_or_sees_one_before_its_time(
    engine: Engine,
) -> None:
    log = ByExchange(engine)
    for seen in _race(log):
        assert seen.positions == list(range(1, WRITERS * CHANGES + 1))
        assert sorted(seen.keys) == _every_key()


# The mutant ---------------------------------------------------------------------------------


class BySerial:
    """The same log with the row lock left out and positions from a `bigserial`."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.table = engine, f"mutant_{uuid4().hex}"
        self.execute(f"CREATE TABLE {self.table} (position bigserial PRIMARY KEY, key text)")

    def execute(self, statement: str) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(statement))

    def write(self, writer: int, number: int) -> None:
        with self.engine.begin() as connection:
            sql = f"INSERT INTO {self.table} (key) VALUES (:key)"  # noqa: S608
            connection.execute(text(sql), {"key": f"{writer:03}{number:03}"})
            # What a push does between taking its position and its commit.
            connection.execute(text("SELECT count(*) FROM records WHERE id = 'x'"))

    def read(self, cursor: int) -> tuple[int, list[tuple[int, str]]]:
        with self.engine.begin() as connection:
            sql = f"SELECT position, key FROM {self.table} WHERE position > :c ORDER BY 1"  # noqa: S608
            rows = [(row[0], row[1]) for row in connection.execute(text(sql), {"c": cursor})]
        return (rows[-1][0] if rows else cursor), rows


@pytest.fixture
def by_serial(engine: Engine) -> Iterator[BySerial]:
    made = BySerial(engine)
    yield made
    made.execute(f"DROP TABLE {made.table}")


def test_the_same_race_loses_changes_when_positions_come_from_a_bigserial(
    by_serial: BySerial,
) -> None:
    # Chance decides how many; that none of a few runs loses any does not happen.
    assert any(
        sorted(seen.keys) != _every_key()
        for _ in range(5)
        for seen in _race(by_serial_of(by_serial))
    )


def by_serial_of(log: BySerial) -> BySerial:
    """The mutant, empty again."""
    log.execute(f"TRUNCATE {log.table} RESTART IDENTITY")
    return log


def test_a_bigserial_shows_a_later_position_before_an_earlier_one(by_serial: BySerial) -> None:
    # The same without chance: two connections, and the first commits late.
    with by_serial.engine.connect() as early, by_serial.engine.connect() as late:
        sql = text(f"INSERT INTO {by_serial.table} (key) VALUES (:key)")  # noqa: S608
        early.execute(sql, {"key": "early"})
        late.execute(sql, {"key": "late"})
        late.commit()
        cursor, rows = by_serial.read(0)
        assert rows == [(2, "late")]
        early.commit()
    assert by_serial.read(cursor) == (2, []), "position 1 is lost to this reader for ever"


# Devices over HTTP --------------------------------------------------------------------------


def _twin(app: Flask, one: Phone) -> Phone:
    """The same device on a connection of its own."""
    return Phone(app.test_client(), one.email, one.token, one.device, one.space)


@pytest.mark.parametrize("times", range(5))
def test_the_first_push_of_a_device_sent_twice_at_once_is_applied_once(
    times: int, app: Flask, client: FlaskClient
) -> None:
    a = phone(client)
    changes = [a.change(put(f"t{n}", new=True)) for n in range(3)]
    twins = [_twin(app, a) for _ in range(8)]
    for twin in twins:
        twin.counter = 3
    answers = _at_once(*[lambda t=t: t.sync(*changes) for t in twins])
    assert {(each["accepted"], each["head"]) for each in answers} == {(3, 3)}
    assert len(a.get("/v1/spaces/me/log").json["changes"]) == 3


@pytest.mark.parametrize("times", range(5))
def test_the_first_pull_and_push_of_a_device_at_once_give_it_one_number(
    times: int, app: Flask, client: FlaskClient
) -> None:
    other = phone(client)
    other.sync(other.change(put("t", new=True)))
    a = phone(client, other.email)
    change = a.change(put("u", new=True))

    def read() -> int:
        return int(_twin(app, a).get("/v1/spaces/me/pull", cursor=1).status_code)

    def write() -> int:
        body = {"changes": [change]}
        return int(_twin(app, a).post("/v1/spaces/me/push", body).status_code)

    assert _at_once(*[read] * 4, *[write] * 4) == [200] * 8


def test_many_devices_that_come_at_once_get_a_number_each(
    app: Flask, client: FlaskClient, engine: Engine
) -> None:
    first = phone(client)
    crew = [first, *[phone(client, first.email) for _ in range(11)]]
    crew = [_twin(app, each) for each in crew]
    answers = _at_once(
        *[lambda p=p: p.sync(p.change(put(p.device, new=True))) for p in crew],
    )
    assert [each["accepted"] for each in answers] == [1] * 12
    log = first.get("/v1/spaces/me/log").json["changes"]
    assert {change["device"] for change in log} == {each.device for each in crew}
    assert [change["position"] for change in log] == list(range(1, 13))


def test_two_that_touch_two_spaces_crosswise_do_not_wait_for_each_other_for_ever(
    app: Flask, client: FlaskClient
) -> None:
    owner, editor = phone(client), phone(client)
    spaces = [owner.post("/v1/spaces", {"name": name}).json["id"] for name in "xy"]
    for space in spaces:
        path = f"/v1/spaces/{space}/members/{editor.email}"
        client.put(path, json={"role": "editor"}, headers=owner.headers)

    def push(who: Phone, order: list[str]) -> list[int]:
        mine, accepted = _twin(app, who), []
        for counter in range(1, 21):
            change = {"counter": counter, "context": {"cursor": 0}, "at": 1, "ops": [put("t")]}
            body = {"spaces": {space: {"changes": [change]} for space in order}}
            answer = mine.post("/v1/sync", body).json["spaces"]
            accepted += [answer[space]["accepted"] for space in order]
        return accepted

    done = _at_once(lambda: push(owner, spaces), lambda: push(editor, spaces[::-1]))
    assert done == [[n for n in range(1, 21) for _ in range(2)]] * 2


@pytest.mark.parametrize("times", range(3))
def test_a_membership_withdrawn_in_the_middle_of_pushes_cuts_them_off_clean(
    times: int, app: Flask, client: FlaskClient
) -> None:
    owner, editor = phone(client), phone(client)
    owner.space = space = owner.post("/v1/spaces", {"name": "Crew"}).json["id"]
    path = f"/v1/spaces/{space}/members/{editor.email}"
    client.put(path, json={"role": "editor"}, headers=owner.headers)
    begun = threading.Event()

    def push() -> int:
        mine = _twin(app, editor)
        mine.space = space
        while True:
            answer = mine.sync(mine.change(put("t", n=mine.counter)))
            if "error" in answer:
                assert answer["error"]["code"] == "forbidden"
                return mine.counter - 1
            begun.set()

    def withdraw() -> int:
        assert begun.wait(PATIENCE_SECONDS)
        return int(app.test_client().delete(path, headers=owner.headers).status_code)

    accepted, status = _at_once(push, withdraw)
    assert status == 204
    log = owner.get(f"/v1/spaces/{space}/log", limit=1000).json
    assert log["head"] == len(log["changes"]) == accepted, "the acknowledged, and no other"


def test_a_push_that_waited_while_its_author_was_withdrawn_is_refused(engine: Engine) -> None:
    log = ByExchange(engine)
    with engine.begin() as holder:
        space = UUID(log.space)
        holder.execute(text("SELECT FROM spaces WHERE id = :s FOR NO KEY UPDATE"), {"s": space})
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(log.write, 0, 0)
            _wait_for_a_waiter(engine)
            holder.execute(
                text("UPDATE memberships SET withdrawn_at = now() WHERE space_id = :s"),
                {"s": space},
            )
            holder.commit()
            with pytest.raises(SyncError, match="withdrawn"):
                waiting.result(PATIENCE_SECONDS)
    with engine.connect() as connection:
        found = connection.scalar(text("SELECT head FROM spaces WHERE id = :s"), {"s": space})
    assert found == 0


def _wait_for_a_waiter(engine: Engine) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    while time.monotonic() < end:
        with engine.connect() as connection:
            if connection.scalar(waiting):
                return
    pytest.fail("nobody waits")
