"""Pushes that come in together go to the database together, and none of them can tell."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from app import turns as module
from app.access import Visit
from app.auth import Principal
from app.exchange import Exchange
from app.runtime import runtime
from app.turns import TURNS_MAX, Turn, Turns
from storage import decisions, opening, replicas
from storage.engine import one_push, one_statement
from storage.sql import cursor
from storage.together import together
from sync.changes import Change, Context, Increment, Put
from sync.errors import Conflict
from sync.pace import pace
from sync.plan import Plan
from sync.requests import SpaceRequest
from tests.contract.devices import Phone, phone

PATIENCE_SECONDS = 20
MOVERS, LOOKS = 4, 300
NOBODY = Visit(Principal(UUID(int=1), UUID(int=2), "user"), 0)


def turn(name: str = "me", visit: Visit = NOBODY, *changes: Change) -> Turn:
    return Turn(visit, name, SpaceRequest(counter=len(changes), changes=[*changes]))


class Gate:
    """A `run` that keeps what it was given, and ends only when it is let through."""

    def __init__(self, error: Exception | None = None) -> None:
        self.runs: list[list[Turn]] = []
        self.entered, self.open = threading.Semaphore(0), threading.Event()
        self.error = error

    def __call__(self, turns: list[Turn]) -> None:
        self.runs.append(turns)
        self.entered.release()
        assert self.open.wait(PATIENCE_SECONDS)
        if self.error:
            raise self.error
        for one in turns:
            one.done = Conflict("device_fork", known=[])


@pytest.fixture
def crowd() -> Iterator[Callable[[Turns, Turn, Gate], Future[None]]]:
    """Takes a turn in a thread of its own, and returns when it is in the queue or runs."""
    with ThreadPoolExecutor(2 * TURNS_MAX) as pool:

        def take(turns: Turns, one: Turn, gate: Gate) -> Future[None]:
            def waits() -> bool:
                with turns._lock:
                    return one in turns.waiting and not one.leads

            taken = pool.submit(turns.take, one, gate)
            while not (waits() or any(one in run for run in gate.runs)):
                threading.Event().wait(0.001)
            return taken

        yield take


Take = Callable[[Turns, Turn, Gate], "Future[None]"]


def test_who_opens_a_space_that_just_moved_sees_it_as_it_is(
    engine: Engine, client: FlaskClient
) -> None:
    one = phone(client)
    one.sync(one.change({"op": "put", "collection": "c", "id": "i", "fields": {}}))
    with engine.begin() as connection:
        found = text("SELECT user_id FROM devices WHERE id = :id")
        user = connection.execute(found, {"id": one.device}).scalar_one()
    asked, start = [(user, None, UUID(one.device))], threading.Barrier(MOVERS)

    def move(_: int) -> int:
        start.wait(PATIENCE_SECONDS)
        moved = 0
        for _ in range(LOOKS):
            with one_push(engine, begun=False) as connection:
                cur = cursor(connection)
                for space in opening.begin(cur, asked, ())[0].values():
                    assert space.counter == space.head, "one of them is from before"
                    to = space.head + 1
                    assert space.replica
                    moves = replicas.Moved(str(space.id), space.replica, to, to, 0, 1)
                    decisions.write(cur, (), (), (), [moves], 0)
                    moved += 1
        return moved

    with ThreadPoolExecutor(MOVERS) as pool:
        moved = sum(pool.map(move, range(MOVERS)))
    with one_push(engine, begun=False) as connection:
        (space,) = opening.begin(cursor(connection), asked, ())[0].values()
    assert moved > MOVERS
    assert (space.head, space.counter) == (1 + moved, 1 + moved)


def test_who_comes_alone_waits_for_nobody() -> None:
    turns, gate, mine = Turns(), Gate(), turn()
    gate.open.set()
    turns.take(mine, gate)
    assert gate.runs == [[mine]]
    assert mine.done is not None


def test_those_who_came_meanwhile_go_together_and_no_more_than_so_many(crowd: Take) -> None:
    turns, gate = Turns(), Gate()
    first, others = turn(), [turn() for _ in range(TURNS_MAX + 3)]
    taken = [crowd(turns, one, gate) for one in (first, *others)]
    gate.open.set()
    for each in taken:
        each.result(PATIENCE_SECONDS)
    assert [len(run) for run in gate.runs] == [1, TURNS_MAX, 3]
    assert all(one.done is not None for one in (first, *others))


def test_who_has_arrived_when_the_first_is_about_to_go_comes_along(
    crowd: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns, gate, first, second = Turns(), Gate(), turn(), turn()
    gate.open.set()
    taken = []
    arrive = lambda: taken.append(crowd(turns, second, gate))  # noqa: E731
    monkeypatch.setattr(module, "give_way", arrive)
    turns.take(first, gate)
    taken[0].result(PATIENCE_SECONDS)
    assert gate.runs == [[first, second]]


def test_who_was_ended_before_it_went_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    turns, gate, ended, mine = Turns(), Gate(), turn(), turn()
    gate.open.set()
    killed = iter([KeyboardInterrupt()])

    def give_way() -> None:
        for error in killed:
            raise error

    monkeypatch.setattr(module, "give_way", give_way)
    with pytest.raises(KeyboardInterrupt):
        turns.take(ended, gate)
    assert turns.idle
    turns.take(mine, gate)
    assert gate.runs == [[mine]]


def test_who_leads_when_all_have_gone_already_runs_nothing() -> None:
    turns, gate, mine = Turns(), Gate(), turn()
    gate.open.set()
    turns._lead(gate)
    assert gate.runs == []
    turns.take(mine, gate)
    assert mine.done is not None


def test_a_transaction_that_failed_leaves_all_of_it_to_go_alone(crowd: Take) -> None:
    turns, gate = Turns(), Gate(RuntimeError("the database is away"))
    both = [turn(), turn()]
    taken = [crowd(turns, one, gate) for one in both]
    gate.open.set()
    for each in taken:
        each.result(PATIENCE_SECONDS)
    assert [one.done for one in both] == [None, None]


def test_who_was_ended_while_it_waited_holds_up_nobody(crowd: Take) -> None:
    turns, gate = Turns(), Gate()
    first, ended, last = turn(), turn(), turn()

    class Ended(BaseException):
        pass

    class Interrupted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            # As when a worker is told to go: the wait does not return.
            super().wait(timeout)
            raise Ended

    ended.called = Interrupted()
    running, dying, waiting = (crowd(turns, one, gate) for one in (first, ended, last))
    gate.open.set()
    running.result(PATIENCE_SECONDS)
    with pytest.raises(Ended):
        dying.result(PATIENCE_SECONDS)
    waiting.result(PATIENCE_SECONDS)
    assert last.done is not None
    assert ended.done is None


def test_a_transaction_that_hangs_holds_up_nobody_else(
    crowd: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.2)
    turns, stuck, gate = Turns(), Gate(), Gate()
    first, second, third = turn(), turn(), turn()
    hanging = crowd(turns, first, stuck)
    crowd(turns, second, gate).result(PATIENCE_SECONDS)
    assert second.done is None, "it goes alone"
    gate.open.set()
    turns.take(third, gate)
    assert third.done is not None, "the next one leads"
    stuck.open.set()
    hanging.result(PATIENCE_SECONDS)
    assert first.done is not None
    fourth = turn()
    turns.take(fourth, gate)
    assert fourth.done is not None


# On the database ------------------------------------------------------------------------------


@pytest.fixture
def exchange(app: Flask) -> Exchange:
    with app.app_context():
        return runtime().exchange


@pytest.fixture
def phones(client: FlaskClient) -> list[Phone]:
    """Of three users; each has pushed before."""
    made = [phone(client) for _ in range(3)]
    for each in made:
        each.sync(each.change({"op": "put", "collection": "c", "id": "0", "fields": {"n": 1}}))
    return made


def asked(one: Phone, *ops: Any, counter: int = 2, name: str | None = None) -> Turn:
    """A turn of this phone with its next change."""
    claims = one.token.split(".")[1]
    user = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["sub"]
    visit = Visit(Principal(UUID(user), UUID(one.device), "user"), 1_763_800_000_000)
    change = Change(counter, Context(one.cursor), 1, list(ops))
    return Turn(visit, name or "me", SpaceRequest(cursor=one.cursor, counter=counter,
                                                  changes=[change]))  # fmt: skip


def personal(one: Phone) -> str:
    space: str = one.get("/v1/spaces").json["spaces"][0]["id"]
    return space


def put(id_: str, **fields: Any) -> Put:
    return Put("c", id_, fields)


def plans(turns: list[Turn]) -> list[Plan | None]:
    return [one.done[1] if isinstance(one.done, tuple) else None for one in turns]


def test_pushes_to_several_spaces_are_each_in_their_own_log_and_record(
    exchange: Exchange, phones: list[Phone]
) -> None:
    turns = [asked(one, put("0", n=n), put(f"new {n}", n=n)) for n, one in enumerate(phones)]
    exchange.push_turns(turns)
    assert [plan and plan.head for plan in plans(turns)] == [2, 2, 2]
    for n, one in enumerate(phones):
        records = one.pull_all()
        assert {key[1]: record["fields"]["n"] for key, record in records.items()} == {
            "0": n, f"new {n}": n,
        }  # fmt: skip


def test_the_refusal_of_one_is_its_own(exchange: Exchange, phones: list[Phone]) -> None:
    mismatched = Increment("c", "0", "n", 1)
    turns = [
        asked(phones[0], put("1", n=1)),
        asked(phones[1], put("1", n=1), counter=9),
        asked(phones[2], mismatched),
    ]
    exchange.push_turns(turns)
    good, gap, refused = turns
    assert isinstance(good.done, tuple)
    assert isinstance(gap.done, Conflict)
    assert gap.done.code == "counter_gap"
    assert isinstance(refused.done, tuple)
    assert [error["code"] for _, error in refused.done[1].rejected] == ["field_type_mismatch"]
    assert refused.done[1].accepted == 2
    outcomes = phones[2].get("/v1/spaces/me/outcomes").json["outcomes"]
    assert [one["outcome"] for one in outcomes] == ["applied", "rejected"]


def test_a_space_that_another_has_locked_is_left_to_go_alone(
    exchange: Exchange, phones: list[Phone], engine: Engine
) -> None:
    turns = [asked(one, put("1", n=1)) for one in phones]
    lock = text("SELECT id FROM spaces WHERE id = :space FOR UPDATE")
    space = personal(phones[1])
    with engine.begin() as other:
        other.execute(lock, {"space": space})
        exchange.push_turns(turns)
    assert [one.done is not None for one in turns] == [True, False, True]


def test_two_turns_of_one_space_do_not_go_in_one_transaction(
    exchange: Exchange, client: FlaskClient, phones: list[Phone]
) -> None:
    other = phone(client, phones[0].email)
    other.sync(other.change({"op": "put", "collection": "c", "id": "9", "fields": {}}))
    turns = [asked(phones[0], put("1", n=1)), asked(other, put("2", n=1))]
    exchange.push_turns(turns)
    assert sorted(one.done is not None for one in turns) == [False, True]


def test_two_spaces_of_one_user_go_together(exchange: Exchange, phones: list[Phone]) -> None:
    one = phones[0]
    shared = replace(
        one, space=one.post("/v1/spaces", {"name": "s"}).json["id"], counter=0, cursor=0
    )
    shared.sync(shared.change({"op": "put", "collection": "c", "id": "0", "fields": {}}))
    turns = [asked(one, put("1", n=1)), asked(shared, put("1", n=1), name=shared.space)]
    exchange.push_turns(turns)
    assert [plan and plan.head for plan in plans(turns)] == [2, 2]


def test_a_stranger_and_a_name_that_is_none_are_left_to_be_refused_alone(
    exchange: Exchange, phones: list[Phone]
) -> None:
    theirs = personal(phones[0])
    turns = [
        asked(phones[1], put("1", n=1), name=theirs),
        asked(phones[1], put("1", n=1), name="no id"),
        asked(phones[2], put("1", n=1)),
    ]
    exchange.push_turns(turns)
    assert [one.done is not None for one in turns] == [False, False, True]


def test_records_are_read_for_members_alone(engine: Engine, phones: list[Phone]) -> None:
    space, key = personal(phones[0]), ('{"c"}', '{"0"}')
    users = [asked(one).visit.who.user_id for one in phones[:2]]
    with one_statement(engine) as connection:
        reads = [opening._READ(f"{{{user}}}", f"{{{space}}}", *key) for user in users]
        mine, strangers = together(cursor(connection), *reads)
    assert [row[1:3] for row in mine] == [("c", "0")]
    assert strangers == []


def test_a_push_repeated_by_another_turn_is_acknowledged_not_applied(
    exchange: Exchange, phones: list[Phone]
) -> None:
    for _ in range(2):
        mine = asked(phones[0], put("1", n=1))
        exchange.push_turns([mine, asked(phones[1], put("1", n=1))])
        assert [plan and (plan.accepted, plan.head) for plan in plans([mine])] == [(2, 2)]


def test_a_worker_does_its_other_work_while_a_large_document_is_read(app: Flask) -> None:
    assert app
    assert pace.give_way is module.give_way
