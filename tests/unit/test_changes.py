"""Changes and their operations: one verdict each, and the form that tells a repeat from a fork."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from sync.changes import BadChange, Change, from_tree
from sync.errors import BadRequest
from sync.limits import Limits
from tests.oracle.space import Doubled

PUT = {"op": "put", "collection": "c", "id": "a", "fields": {"f": 1}}
ADD = {"op": "add", "collection": "c", "id": "a", "field": "s", "values": ["x"]}
EDIT = {"op": "edit", "collection": "c", "id": "a", "field": "d"}
STEP = {"op": "increment", "collection": "c", "id": "a", "field": "n", "by": 1}


def tree(*ops: Any, **members: Any) -> dict[str, Any]:
    return {"counter": 1, "context": {"cursor": 0}, "at": 0, "ops": list(ops), **members}


def read(change: Any, limits: Limits | None = None) -> Change | BadChange:
    return from_tree(change, limits or Limits(), Doubled)


def verdict(change: Any, limits: Limits | None = None) -> str | None:
    found = read(change, limits)
    return found.error.code if isinstance(found, BadChange) else None


def form(change: Any) -> bytes:
    found = read(change)
    return found.digest if isinstance(found, BadChange) else found.form()[1]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (tree(PUT), None),
        (tree(), None),
        (tree({**PUT, "fields": {}}), None),
        (tree({"op": "multiply"}), "unknown_operation"),
        (tree({**EDIT, "update": "AAA="}), None),
        (tree({**EDIT, "update": "AA"}), "malformed_change"),
        (tree({**EDIT, "update": [0]}), "malformed_change"),
        (tree({"collection": "c", "id": "a"}), "malformed_change"),
        (tree({**PUT, "fields": [1]}), "malformed_change"),
        (tree({**PUT, "new": 1}), "malformed_change"),
        (tree({**STEP, "by": 2**53}), "malformed_change"),
        (tree({**STEP, "by": 1.5}), "malformed_change"),
        (tree({**STEP, "by": -(2**53) + 1}), None),
        (tree({**ADD, "values": "x"}), "malformed_change"),
        (tree(PUT, at="now"), "malformed_change"),
        (tree(PUT, at=2**63), "malformed_change"),
        (tree(PUT, at=-(2**63)), None),
        (tree(PUT, context={}), "malformed_change"),
        (tree(PUT, context={"cursor": -1}), "malformed_change"),
        (tree(PUT, context={"cursor": 0, "epoch": 0}), "malformed_change"),
        ({"counter": 1}, "malformed_change"),
        (tree({**PUT, "id": ""}), "invalid_id"),
        (tree({**PUT, "id": "x" * 129}), "invalid_id"),
        (tree({**PUT, "id": "é" * 128}), None),
        (tree({**PUT, "collection": ""}), "invalid_id"),
        (tree({**PUT, "fields": {"": 1}}), "invalid_id"),
        (tree({**PUT, "id": "a\0"}), "invalid_text"),
        (tree({**PUT, "id": "\ud800"}), "invalid_text"),
        (tree({**PUT, "fields": {"a\0": 1}}), "invalid_text"),
        (tree({**ADD, "values": ["\udfff"]}), "invalid_text"),
        (tree({**PUT, "fields": {"f": float("nan")}}), "invalid_number"),
        (tree({**PUT, "fields": {"f": 2**64}}), "invalid_number"),
        (tree({**PUT, "fields": Doubled(f=1)}), "duplicate_key"),
        (Doubled(tree(PUT)), "duplicate_key"),
    ],
)
def test_each_change_gets_its_own_verdict(change: Any, code: str | None) -> None:
    assert verdict(change) == code


@pytest.mark.parametrize(
    ("change", "limits", "code"),
    [
        (tree(PUT, PUT, PUT), {"operations_per_change": 2}, "too_many_operations"),
        (tree({**PUT, "fields": {"f": "x" * 99}}), {"value_bytes": 100}, "value_too_large"),
        (tree({**PUT, "fields": {"f": "x" * 98}}), {"value_bytes": 100}, None),
        (tree({**PUT, "fields": {"f": [[1]]}}), {"value_depth": 1}, "too_deep"),
        (
            tree(PUT, context={"cursor": 0, "clock": {"a": 1, "b": 1}}),
            {"clock_entries": 1},
            "too_many_clock_entries",
        ),
    ],
)
def test_a_change_beyond_a_limit_is_refused_by_that_limits_code(
    change: Any, limits: dict[str, int], code: str | None
) -> None:
    assert verdict(change, replace(Limits(), **limits)) == code


@pytest.mark.parametrize("counter", [None, 0, -1, 2**53, 1.0, True, "1"])
def test_a_change_without_a_readable_counter_breaks_the_envelope(counter: Any) -> None:
    with pytest.raises(BadRequest):
        read(tree(PUT, counter=counter))
    with pytest.raises(BadRequest):
        read([counter])


def test_the_operation_at_fault_is_named() -> None:
    found = read(tree(PUT, {**PUT, "id": ""}))
    assert isinstance(found, BadChange)
    assert found.error.extra == {"op": 1}


def test_the_form_is_the_operations_and_the_time_and_not_the_context() -> None:
    assert form(tree(PUT)) == form(tree(PUT, context={"cursor": 9, "epoch": 3}))
    assert form(tree(PUT)) == form(tree({**PUT, "new": False}))
    assert form(tree(PUT)) == form(tree(dict(reversed(PUT.items()))))
    others = [
        tree(PUT, at=1),
        tree(PUT, PUT),
        tree({**PUT, "new": True}),
        tree({**PUT, "fields": {"f": 2}}),
        tree({**PUT, "fields": {"f": "1"}}),
        tree({**PUT, "id": "b"}),
    ]
    assert len({form(tree(PUT)), *map(form, others)}) == 7


@pytest.mark.parametrize(
    "op", [PUT, {"op": "multiply"}, {**STEP, "by": 1.5}, {**PUT, "id": "\ud800"}, {**PUT, "id": ""}]
)
def test_the_context_is_no_part_of_the_form_of_any_change(op: Any) -> None:
    assert form(tree(op)) == form(tree(op, context={"cursor": 9, "epoch": 3}))


def test_the_form_of_a_refused_change_tells_its_repeat_from_another() -> None:
    one, other = tree({"op": "multiply", "by": 2}), tree({"op": "multiply", "by": 3})
    assert form(one) == form(one)
    assert form(one) != form(other)
    bad, worse = tree({**PUT, "id": "\ud800"}), tree({**PUT, "id": "\ud801"})
    assert form(bad) == form(bad)
    assert form(bad) != form(worse)


@pytest.mark.parametrize(
    "op",
    [
        {**PUT, "fields": {"f": 1, "g": 2}},
        {**PUT, "fields": {"f": "\ud800", "g": 2}},
        {"op": "multiply", "by": 2, "how": {"a": 1, "b": 2}},
        {**STEP, "by": 1.5},
        Doubled(PUT),
    ],
    ids=["taken", "invalid text", "unknown", "malformed", "a key twice"],
)
def test_a_repeat_may_name_its_keys_in_another_order(op: dict[str, Any]) -> None:
    """A dictionary has no order in some of the languages that devices are written in."""

    def turned(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return type(value)((k, turned(v)) for k, v in reversed(value.items()))

    assert form(tree(op)) == form(tree(turned(op)))


@pytest.mark.parametrize(
    "change",
    [
        tree({**PUT, "fields": {"f": "\0\ud800"}}),
        tree({**PUT, "fields": {"f": 2**70}}),
        tree({"op": "multiply", "extra": [1, {"x": None}]}, unknown=1),
    ],
)
def test_a_refused_change_is_kept_whole(change: Any) -> None:
    found = read(change)
    assert isinstance(found, BadChange)
    assert json.loads(found.body) == change
    assert found.body.isascii()


def test_a_change_taken_is_kept_whole_too() -> None:
    change = tree({**PUT, "new": True}, ADD, STEP, {"op": "delete", "collection": "c", "id": "a"})
    found = read(change)
    assert isinstance(found, Change)
    assert json.loads(found.body()) == change
    assert msgspec.json.decode(found.form()[0]) == change["ops"]
