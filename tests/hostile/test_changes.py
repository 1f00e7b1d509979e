"""One bad change: its own verdict, kept whole, and never in the way of its neighbours."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from sqlalchemy import Engine

from tests.contract.devices import Phone, add, increment, put
from tests.hostile.doors import FORMATS, JSON, MSGPACK, good, ledger, send, sync, written

Tree = dict[str, Any]
STRANGER = "00000000-0000-4000-8000-000000000000"


def _nested(depth: int, kind: str = "array") -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind == "array" else {"a": value}
    return value


def _with(**members: Any) -> Callable[[Tree], None]:
    return lambda change: change.update(members)


def _without(name: str) -> Callable[[Tree], None]:
    return lambda change: change.pop(name, None)


def _op(**members: Any) -> Callable[[Tree], None]:
    return lambda change: change["ops"][0].update(members)


def _ops(*ops: Any) -> Callable[[Tree], None]:
    return lambda change: change.update(ops=[*ops])


def _value(value: Any) -> Callable[[Tree], None]:
    return _op(fields={"f": value})


def _context(**members: Any) -> Callable[[Tree], None]:
    return lambda change: change["context"].update(members)


TEXTS = {"a NUL": "a\0b", "a lone surrogate": "a\ud800", "a lone low surrogate": "\udfffb"}
NO_INT64 = [1.5, "1", True, None, [], {}, 2**63, -(2**63) - 1, float("nan"), 10**4299]
NO_STRING = [1, 1.5, True, None, [], {}]
NO_COUNT = [-1, 1.5, "1", True, [], 2**53]

BAD: dict[str, tuple[Callable[[Tree], None], str]] = {
    **{
        f"{name} left out": (_without(name), "malformed_change")
        for name in ("context", "at", "ops")
    },
    **{f"at {v!r:.20}": (_with(at=v), "malformed_change") for v in NO_INT64},
    **{f"ops {v!r}": (_with(ops=v), "malformed_change") for v in (None, 1, "x", {}, [1], [[]])},
    **{f"context {v!r}": (_with(context=v), "malformed_change") for v in (None, 1, "x", [], {})},
    "an operation without a name": (_ops({"collection": "c", "id": "i"}), "malformed_change"),
    "an unknown operation": (_ops({"op": "fly"}), "unknown_operation"),
    "an operation called NUL": (_ops({"op": "\0"}), "unknown_operation"),
    "an operation called by a surrogate": (_ops({"op": "\ud800"}), "unknown_operation"),
    "1,001 operations": (_ops(*[put("t")] * 1001), "too_many_operations"),
    "a set for a field's type": (_ops(add("fine", "title", 1)), "field_type_mismatch"),
    "one bad operation of three": (
        _ops(put("t", n=1), increment("t", "n", 1), put("t", n=2)),
        "field_type_mismatch",
    ),
    # Names
    **{
        f"{m} {v!r}": (_op(**{m: v}), "malformed_change")
        for m in ("id", "collection")
        for v in NO_STRING
    },
    **{
        f"{m} with {what}": (_op(**{m: v}), "invalid_text")
        for m in ("id", "collection")
        for what, v in TEXTS.items()
    },
    **{
        f"{m} of {len(v)} characters": (_op(**{m: v}), "invalid_id")
        for m in ("id", "collection")
        for v in ("", "x" * 129, "x" * 300_000)
    },
    **{f"a field named {w}": (_op(fields={v: 1}), "invalid_text") for w, v in TEXTS.items()},
    "a field without a name": (_op(fields={"": 1}), "invalid_id"),
    "a field with a long name": (_op(fields={"x" * 129: 1}), "invalid_id"),
    "a counter's field with a NUL": (_ops(increment("t", "\0", 1)), "invalid_text"),
    **{f"fields {v!r}": (_op(fields=v), "malformed_change") for v in (None, 1, "x", [])},
    **{f"new {v!r}": (_op(new=v), "malformed_change") for v in (None, 1, "x", [])},
    # Values
    **{f"a value with {what}": (_value(v), "invalid_text") for what, v in TEXTS.items()},
    **{f"an element with {w}": (_ops(add("t", "s", v)), "invalid_text") for w, v in TEXTS.items()},
    **{
        f"a nested key with {w}": (_value({"k": [{v: 1}]}), "invalid_text")
        for w, v in TEXTS.items()
    },
    "NaN": (_value(float("nan")), "invalid_number"),
    "infinity": (_value([float("inf")]), "invalid_number"),
    "minus infinity": (_value({"a": float("-inf")}), "invalid_number"),
    "2^63": (_value(2**63), "invalid_number"),
    "-2^63-1": (_value(-(2**63) - 1), "invalid_number"),
    "4,300 digits": (_value(10**4299), "invalid_number"),
    **{
        f"{kind}s {depth} deep": (_value(_nested(depth, kind)), "too_deep")
        for kind in ("array", "object")
        for depth in (33, 100, 400, 700)
    },
    "a text of 256 KiB": (_value("x" * 2**18), "value_too_large"),
    "a long array": (_value(list(range(60_000))), "value_too_large"),
    "elements that are no array": (_ops({**add("t", "s"), "values": "x"}), "malformed_change"),
    "10,001 elements": (_ops(add("t", "s", *range(10_001))), "too_many_elements"),
    "1,001 fields": (_op(fields={f"f{n}": n for n in range(1001)}), "too_many_fields"),
    "a record of 1.2 MB": (
        _ops(*[put("t", **{f"f{n}": "x" * 240_000}) for n in range(5)]),
        "record_too_large",
    ),
    **{
        f"an increment by {v!r:.20}": (
            _ops({**increment("t", "n", 1), "by": v}),
            "malformed_change",
        )
        for v in [*NO_INT64, 2**53, -(2**53)]
    },
    # Contexts
    **{f"a context's cursor {v!r}": (_context(cursor=v), "malformed_change") for v in NO_COUNT},
    **{f"a context's epoch {v!r}": (_context(epoch=v), "malformed_change") for v in [0, *NO_COUNT]},
    "a cursor past the head": (_context(cursor=1_000), "bad_context"),
    "the greatest cursor": (_context(cursor=2**53 - 1), "bad_context"),
    "an epoch to come": (_context(epoch=2), "bad_context"),
    "the last epoch of all": (_context(epoch=2**53 - 1), "bad_context"),
    "a clock that names a stranger": (_context(clock={STRANGER: 1}), "bad_context"),
    "a clock that names no id": (_context(clock={"x" * 1000: 1}), "bad_context"),
    **{
        f"a clock that names {w}": (_context(clock={v: 1}), "invalid_text")
        for w, v in TEXTS.items()
    },
    "1,001 clock entries": (
        _context(clock={f"{n}": 1 for n in range(1001)}),
        "too_many_clock_entries",
    ),
    **{
        f"a clock at {v!r}": (_context(clock={STRANGER: v}), "malformed_change")
        for v in [*NO_COUNT, None]
    },
    **{f"a clock {v!r}": (_context(clock=v), "malformed_change") for v in (None, 1, "x", [])},
}


def _is_packable(case: str) -> bool:
    try:
        written(_bad(case, {"context": {}, "ops": [{}]}), MSGPACK)
    except (OverflowError, ValueError):  # integers past 64 bits, nesting past what it writes
        return False
    return True


def _bad(case: str, change: Tree) -> Tree:
    BAD[case][0](change)
    return change


CASES = [(case, f) for case in BAD for f in FORMATS if f == JSON or _is_packable(case)]


@pytest.mark.parametrize(("case", "format_"), CASES, ids=str)
def test_a_bad_change_is_refused_kept_whole_and_blocks_nobody(
    case: str, format_: str, a: Phone, engine: Engine
) -> None:
    before, bad, after = good(a), _bad(case, good(a, "bad")), good(a, "fine too")
    part = {"changes": [before, bad, after]}
    answer = sync(a, part, format_)
    assert (answer["accepted"], answer["head"]) == (3, 2)
    told = [(r["counter"], r["error"]["code"]) for r in answer["rejected"]]
    assert told == [(2, BAD[case][1])]
    found = ledger(engine, a)
    found.require_consistent()
    assert [row[:2] for row in found.records] == [("tasks", "fine"), ("tasks", "fine too")]
    ((_, counter, body, _),) = found.quarantine
    assert counter == 2
    # As text: a NaN is not equal to itself.
    assert json.dumps(json.loads(body), sort_keys=True) == json.dumps(bad, sort_keys=True)
    outcomes = a.get("/v1/spaces/me/outcomes", after=1, limit=1).json["outcomes"]
    assert outcomes == [
        {"counter": 2, "outcome": "rejected", "error": answer["rejected"][0]["error"]}
    ]
    again = sync(a, part, format_)
    assert (again["rejected"], again["head"]) == (answer["rejected"], 2)
    assert ledger(engine, a) == found


# Objects that name a key twice. `titlf` becomes a second `title` in the bytes, in either format.
TWICE: dict[str, Callable[[Tree], None]] = {
    "the change": _with(au=5),
    "the context": _context(cursos=0),
    "the clock": _context(clock={STRANGER: 0, STRANGER[:-1] + "!": 0}),
    "an operation": _op(ie="other"),
    "the fields": _op(fields={"title": 1, "titlf": 2}),
    "a value": _op(fields={"f": {"title": 1, "titlf": 1}}),
    "a nested value": _op(fields={"f": [[{"k": {"title": None, "titlf": None}}]]}),
    "an element": _ops(add("t", "s", {"title": 1, "titlf": 2})),
}
SECOND = {
    b"titlf": b"title",
    b"cursos": b"cursor",
    b"0!": b"00",
    b'"au"': b'"at"',
    b"\xa2au": b"\xa2at",
    b'"ie"': b'"id"',
    b"\xa2ie": b"\xa2id",
}


@pytest.mark.parametrize("where", TWICE)
@pytest.mark.parametrize("format_", FORMATS)
def test_a_key_named_twice_refuses_the_change_and_both_are_kept(
    where: str, format_: str, a: Phone, engine: Engine
) -> None:
    bad = good(a, "bad")
    TWICE[where](bad)
    data = written({"spaces": {"me": {"changes": [bad, good(a)]}}}, format_)
    for one, two in SECOND.items():
        data = data.replace(one, two)
    answer = send(a, "/v1/sync", data, format_, Accept=JSON).json["spaces"]["me"]
    assert [r["error"]["code"] for r in answer["rejected"]] == ["duplicate_key"]
    assert answer["head"] == 1
    ((_, _, body, _),) = ledger(engine, a).quarantine
    expected = json.dumps(bad, separators=(",", ":")).encode()
    for one, two in SECOND.items():
        expected = expected.replace(one, two)
    assert body.encode() == expected


ODD = {
    "bytes": b"\xff\0",
    "an extension": msgpack.ExtType(5, b"abc"),
    "a timestamp": msgpack.Timestamp(1, 0),
    "a key of bytes": {b"k": 1},
    "a key that is a number": {1: 1},
    "a key that is nothing": {None: 1},
    "a key that is a timestamp": {msgpack.Timestamp(1, 0): 1},
    "keys of two kinds": {1: 1, "1": 1, 1.5: 1},
}


@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("where", ["value", "element", "fields", "id", "at", "change"])
def test_what_only_messagepack_can_hold_is_refused_and_kept(
    what: str, where: str, a: Phone, engine: Engine
) -> None:
    odd = ODD[what]
    spoil = {
        "value": _value(odd),
        "element": _ops(add("t", "s", odd)),
        "fields": _op(fields=odd),
        "id": _op(id=odd),
        "at": _with(at=odd),
        "change": _with(ops=odd),
    }[where]
    bad = good(a, "bad")
    spoil(bad)
    answer = sync(a, {"changes": [bad, good(a)]}, MSGPACK)
    assert answer["rejected"][0]["error"]["code"] in {"invalid_value", "malformed_change"}
    assert (answer["accepted"], answer["head"]) == (2, 1)
    ((_, _, body, _),) = ledger(engine, a).quarantine
    assert json.loads(body)["counter"] == 1
    assert sync(a, {"changes": [bad]}, MSGPACK)["rejected"] == answer["rejected"][:1]
    if what == "bytes":
        assert base64.b64encode(b"\xff\0").decode() in body


def test_a_float_of_32_bits_hides_no_key_named_twice(a: Phone) -> None:
    change = a.change(put("t", X=1))
    data = msgpack.packb({"spaces": {"me": {"changes": [change]}}})
    twice = b"\x82\xa1X\xcc\xc8\xa1X\xca\x3f\x80\0\0"
    answer = send(a, "/v1/sync", data.replace(b"\x81\xa1X\x01", twice), MSGPACK, Accept=JSON)
    assert answer.json["spaces"]["me"]["rejected"][0]["error"]["code"] == "duplicate_key"


@pytest.mark.parametrize("at", [-(2**63), -1, 0, 2**63 - 1])
@pytest.mark.parametrize("sent_at", [-(2**63), -1, 0, 2**63 - 1, None])
def test_any_time_of_64_bits_is_taken_and_counts_as_no_later_than_now(
    at: int, sent_at: int | None, a: Phone
) -> None:
    now = a.get("/v1").json["server_time"]
    body = {"changes": [a.change(put("t", n=1), at=at)], "sent_at": sent_at}
    answer = send(a, "/v1/spaces/me/push", written(body, JSON))
    assert answer.json["accepted"] == 1
    other = {"counter": 1, "context": {"cursor": 0}, "at": now - 1, "ops": [put("t", n=2)]}
    assert a.get("/v1/spaces/me/log").json["changes"][0]["at"] == at
    assert other["at"] < a.get("/v1").json["server_time"]


@pytest.mark.parametrize("digits", [4_301, 10_000, 1_000_000])
def test_integers_of_thousands_of_digits_are_refused_at_once(digits: int, a: Phone) -> None:
    bad = good(a, "bad")
    bad["ops"][0]["fields"]["f"] = 77
    data = written({"spaces": {"me": {"changes": [bad, good(a)]}}}, JSON)
    for sign in (b"", b"-"):
        data = data.replace(b": 77", b": " + sign + b"7" * digits)
        answer = send(a, "/v1/sync", data).json["spaces"]["me"]
        assert answer["rejected"][0]["error"]["code"] == "invalid_number"
        assert answer["accepted"] == 2


def test_a_change_may_claim_nothing_of_itself_or_of_what_follows(a: Phone) -> None:
    for own in (1, 2, 2**53 - 1):
        change = good(a)
        change["context"]["clock"] = {a.device: max(own, change["counter"])}
        refused = sync(a, {"changes": [change]})["rejected"]
        assert [r["error"]["code"] for r in refused] == ["bad_context"]
