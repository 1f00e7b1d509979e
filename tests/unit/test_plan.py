"""What a push does: verdicts, repeats, gaps, forks, and changes that stand or fall alone."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from sync.limits import Limits
from tests.oracle.model import Op
from tests.oracle.space import Space

NOW = 1_800_000_000_000


def put(id_: str = "a", **fields: Any) -> Op:
    return {"op": "put", "collection": "c", "id": id_, "fields": fields}


def increment(by: int = 1, field: str = "n") -> Op:
    return {"op": "increment", "collection": "c", "id": "a", "field": field, "by": by}


def change(counter: int, *ops: Op, cursor: int = 0, at: int = NOW) -> Op:
    return {"counter": counter, "context": {"cursor": cursor}, "at": at, "ops": list(ops)}


def push(space: Space, *changes: Op, device: str = "A", **members: Any) -> Op:
    body = {"changes": list(changes), **members}
    return space.sync(device, json.dumps(body).encode(), NOW)


def codes(answer: Op) -> dict[int, str]:
    return {told["counter"]: told["error"]["code"] for told in answer["rejected"]}


def total(space: Space) -> Any:
    return json.loads(space.rows["c", "a"].data)["n"]


# Exactly once -------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [(1, 2, 3), (1, 2), (2, 3), (3,), ()])
def test_a_push_repeated_whole_or_in_part_is_acknowledged_not_applied(
    again: tuple[int, ...],
) -> None:
    space, three = Space(), [change(n, increment()) for n in (1, 2, 3)]
    push(space, *three)
    before = space.fingerprint()
    assert push(space, *(three[n - 1] for n in again))["accepted"] == 3
    assert space.fingerprint() == before
    assert total(space) == 3


def test_a_repeat_with_new_changes_behind_it_applies_only_these() -> None:
    space, three = Space(), [change(n, increment()) for n in (1, 2, 3)]
    push(space, *three[:2])
    assert push(space, *three[1:])["accepted"] == 3
    assert total(space) == 3


def test_a_refused_change_is_told_again_and_never_blocks_those_behind_it() -> None:
    space = Space()
    changes = [change(1, increment()), change(2, put(n=1)), change(3, increment())]
    assert codes(push(space, *changes)) == {2: "field_type_mismatch"}
    again = push(space, *changes)
    assert (again["accepted"], codes(again)) == (3, {2: "field_type_mismatch"})
    assert total(space) == 2


def test_a_repeat_keeps_the_time_that_the_first_receipt_gave_it() -> None:
    space, one = Space(), change(1, put(f=1), at=NOW + 99_999)
    push(space, one)
    before = space.fingerprint()
    push(space, one, sent_at=NOW - 10**9)
    assert space.fingerprint() == before


def test_what_is_too_much_work_for_one_request_is_left_for_the_next() -> None:
    space = Space(replace(Limits(), work_per_request=2))
    five = [change(n, increment()) for n in (1, 2, 3, 4, 5)]
    assert push(space, *five)["accepted"] == 3
    assert push(space, *five)["accepted"] == 5
    assert total(space) == 5


# All or none --------------------------------------------------------------------------------


def test_a_change_whose_last_operation_fails_leaves_no_trace_of_the_first() -> None:
    space = Space()
    push(space, change(1, increment()))
    answer = push(space, change(2, put("b", f=1), increment(5), put(n=1)))
    assert answer["rejected"][0]["error"]["op"] == 2
    assert total(space) == 1
    assert ("c", "b") not in space.rows
    assert space.head == 1


def test_a_record_may_grow_to_its_limit_and_no_further() -> None:
    space = Space(replace(Limits(), record_bytes=1_000))
    big = [change(n, put(**{f"f{n}": "x" * 280})) for n in (1, 2, 3, 4)]
    assert codes(push(space, *big)) == {4: "record_too_large"}
    # A value that takes another's place does not add to it.
    assert codes(push(space, change(5, put(f1="y" * 280)))) == {}
    # Siblings count: both are kept.
    answer = push(space, change(1, put(f1="z" * 280)), device="B")
    assert codes(answer) == {1: "record_too_large"}


def test_operations_that_add_nothing_do_not_wear_a_record_out() -> None:
    space = Space(replace(Limits(), record_bytes=600))
    answer = push(space, *(change(n, put(f="x" * 200)) for n in range(1, 30)))
    assert codes(answer) == {}


# Gaps, forks, discarded ---------------------------------------------------------------------


def test_a_gap_is_answered_with_what_is_expected_and_nothing_is_applied() -> None:
    space = Space()
    push(space, change(1, increment()))
    error = push(space, change(3, increment()))["error"]
    assert (error["code"], error["expected"]) == ("counter_gap", 2)
    assert total(space) == 1


@pytest.mark.parametrize(
    "other",
    [change(2, increment(7)), change(2, increment(2), at=NOW + 1)],
    ids=["other operations", "another time"],
)
def test_a_known_dot_in_another_form_is_a_fork_and_nothing_of_the_request_is_applied(
    other: Op,
) -> None:
    space, two = Space(), [change(1, increment(1)), change(2, increment(2))]
    push(space, *two)
    error = push(space, two[0], other, change(3, increment(4)))["error"]
    assert (error["code"], error["known"]) == ("device_fork", [1])
    assert total(space) == 3


def test_another_context_alone_is_no_other_form() -> None:
    space = Space()
    push(space, change(1, increment()))
    assert push(space, change(1, increment(), cursor=1))["accepted"] == 1


def test_a_device_that_used_fewer_counters_than_were_decided_is_a_fork() -> None:
    space = Space()
    push(space, change(1, increment()), change(2, increment()))
    assert push(space, counter=1)["error"]["code"] == "device_fork"
    assert push(space, counter=2)["accepted"] == 2


def test_a_frozen_id_is_told_what_is_known_and_writes_nothing() -> None:
    space, one = Space(), change(1, increment())
    push(space, one)
    space.frozen.add("A")
    error = push(space, one, change(2, increment()))["error"]
    assert (error["code"], error["known"]) == ("device_fork", [1])
    assert total(space) == 1


def test_discarded_counters_are_passed_over_and_a_fork_if_they_turn_up() -> None:
    space = Space()
    assert push(space, change(3, increment()), discarded=2)["accepted"] == 3
    assert push(space, change(2, increment()))["error"]["code"] == "device_fork"
    assert push(space, discarded=1)["accepted"] == 3


@pytest.mark.parametrize(
    "request_",
    [
        {"changes": [change(1, put()), change(3, put())]},
        {"changes": [change(2, put()), change(1, put())]},
        {"changes": [change(1, put()), change(1, put())]},
        {"changes": [change(2, put())], "counter": 1},
        {"changes": [], "counter": 1, "discarded": 2},
        {"changes": [change(2, put())], "discarded": 2},
    ],
    ids=[
        "a hole",
        "the wrong order",
        "twice the same",
        "above its own count",
        "discarded above its own count",
        "both held and discarded",
    ],
)
def test_counters_that_contradict_each_other_break_the_envelope(request_: Op) -> None:
    space = Space()
    answer = space.sync("A", json.dumps(request_).encode(), NOW)
    assert answer["error"]["code"] == "bad_counter"
    assert space.head == 0


# Contexts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "context",
    [
        {"cursor": 2},
        {"cursor": 0, "epoch": 2},
        {"cursor": 0, "clock": {"B": 1}},
        {"cursor": 0, "clock": {"A": 2}},
        {"cursor": 0, "clock": {"A": 9}},
    ],
    ids=["above the head", "an epoch to come", "an unknown device", "itself", "what follows it"],
)
def test_a_context_that_names_what_never_was_refuses_the_change_alone(context: Op) -> None:
    space = Space()
    push(space, change(1, increment()))
    bad = {**change(2, increment()), "context": context}
    assert codes(push(space, bad, change(3, increment()))) == {2: "bad_context"}
    assert total(space) == 2


def test_a_context_may_name_an_unknown_device_at_nothing() -> None:
    assert (
        codes(push(Space(), {**change(1, put()), "context": {"cursor": 0, "clock": {"B": 0}}}))
        == {}
    )


def test_a_lost_historys_context_may_name_devices_that_the_backup_never_met() -> None:
    space = Space().restored(2, set())
    lost = {"epoch": 1, "cursor": 9, "clock": {"B": 3}}
    assert codes(push(space, {**change(1, put()), "context": lost})) == {}


# What the log and the device are told ----------------------------------------------------------


def test_an_entry_names_the_fields_that_it_put_in_conflict() -> None:
    space = Space()
    push(space, change(1, put(f=1, g=1)))
    push(space, change(1, put(f=2, g=1)), device="B")
    push(space, change(1, put(h=2)), device="C")
    assert [entry.conflicts for _, entry, _ in space.log] == [(), (("c", "a", "f"),), ()]


def test_a_push_that_met_nothing_at_the_head_is_answered_without_records() -> None:
    space = Space()
    assert push(space, change(1, put(f=1)))["records"] == []
    assert push(space, change(1, put(f=2), cursor=1), device="B", cursor=1)["records"] == []
    met = push(space, change(2, put(f=3), cursor=1), cursor=2)
    assert [told["conflicts"].keys() for told in met["records"]] == [{"f"}]
