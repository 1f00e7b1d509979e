"""A record: its life, its new rows, its types and its limits; and the form it is kept in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.changes import Add, Delete, Increment, Operation, Put, Remove
from sync.clock import DeviceId, Replica, Seen, Write
from sync.errors import Refused
from sync.fields import Counter, Field, ObservedRemoveSet, Register, Tail
from sync.limits import Limits
from sync.records import Record, apply
from sync.stored import StoredRecord, pack, unpack, values_of

LAW = settings(derandomize=True, database=None, deadline=None, max_examples=200)
Edit = tuple[int, int, Operation]


def put(*, new: bool = False, **fields: Any) -> Put:
    return Put("c", "a", fields, new)


def increment(by: int = 1, field: str = "n") -> Increment:
    return Increment("c", "a", field, by)


def add(*values: Any, field: str = "s") -> Add:
    return Add("c", "a", field, list(values))


def remove(*values: Any) -> Remove:
    return Remove("c", "a", "s", list(values))


DELETE = Delete("c", "a")


def names(replica: Replica) -> DeviceId:
    return DeviceId(f"device-{replica}")


def merged(*edits: Edit, limits: Limits | None = None) -> tuple[Record, list[bool]]:
    """(the record, whether each met something) after (replica, cursor, operation) in turn."""
    record: Record | None = None
    met = []
    for position, (replica, cursor, op) in enumerate(edits, 1):
        author = Seen(Replica(replica), position, cursor)
        write = Write(Replica(replica), position, position, 1_000 + position)
        if record is not None and record.needs_tail(cursor):
            record = record.with_tails({}, cursor)
        row, meets = apply(record, op, author, write, limits or Limits())
        record = row.record()
        met.append(meets)
    assert record is not None
    return record, met


def row(*edits: Edit) -> StoredRecord:
    return pack("c", "a", merged(*edits)[0], names)


# Life ---------------------------------------------------------------------------------------


def test_alive_wins_over_a_concurrent_deletion_in_either_order() -> None:
    for second, third in (((1, 1, DELETE), (2, 1, put(f=2))), ((2, 1, put(f=2)), (1, 1, DELETE))):
        record, _ = merged((1, 0, put(f=1, g=1)), second, third)
        assert not record.deleted
        assert record.whole == 3
        assert set(record.fields) == {"f", "g"}


def test_a_deletion_by_one_who_has_seen_all_stands() -> None:
    record, met = merged((1, 0, put(f=1)), (2, 0, increment()), (1, 2, DELETE))
    assert record.deleted
    assert met == [False, False, False]


@pytest.mark.parametrize("op", [put(f=2), increment(), add("x")], ids=["put", "increment", "add"])
def test_any_sign_of_life_brings_a_deleted_row_back_as_it_was(op: Operation) -> None:
    record, met = merged((1, 0, put(f=1, g=1)), (1, 1, DELETE), (2, 2, op))
    assert not record.deleted
    assert (record.whole, met[-1]) == (3, True)
    assert "g" in values_of(pack("c", "a", record, names))


def test_a_removal_says_nothing_of_life() -> None:
    record, met = merged((1, 0, add("x")), (1, 1, DELETE), (2, 1, remove("x")))
    assert record.deleted
    assert met[-1] is False


# New rows -----------------------------------------------------------------------------------


def test_a_new_row_clears_what_was_seen_and_keeps_what_was_not() -> None:
    edits = [
        (1, 0, put(f=1, g=1)),
        (1, 1, add("x")),
        (2, 2, put(g=2)),
        (3, 2, put(new=True, f=3)),
    ]
    assert values_of(row(*edits)) == {"f": 3, "g": 2}


def test_a_cleared_field_is_absent_and_keeps_its_type() -> None:
    edits = [(1, 0, increment()), (1, 1, add("x")), (1, 2, put(new=True))]
    assert values_of(row(*edits)) == {}
    for op in (put(n=1), add(1, field="n"), increment(field="s"), put(s=1)):
        with pytest.raises(Refused) as refused:
            merged(*edits, (1, 3, op))
        assert refused.value.code == "field_type_mismatch"
    assert values_of(row(*edits, (1, 3, increment(5)))) == {"n": 5}


def test_the_first_row_is_not_begun_anew() -> None:
    record, met = merged((1, 0, put(new=True, f=1)))
    assert (record.whole, met) == (0, [False])


# What a device must be told -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edits", "meets"),
    [
        ([(1, 0, put(f=1)), (1, 1, put(f=2))], False),
        ([(1, 0, put(f=1)), (2, 0, put(f=2))], True),
        ([(1, 0, put(f=1)), (2, 0, put(f=1))], True),
        ([(1, 0, put(f=1)), (2, 0, put(g=1))], False),
        ([(1, 0, put(f=1)), (2, 1, put(new=True))], True),
        ([(1, 0, increment()), (2, 0, increment())], False),
        ([(1, 0, add("x")), (2, 0, add("x"))], False),
        ([(1, 0, add("x")), (2, 0, remove("x"))], True),
        ([(1, 0, add("x")), (2, 1, remove("x"))], False),
        ([(1, 0, put(f=1)), (2, 0, DELETE)], True),
        ([(1, 0, put(f=1)), (2, 1, DELETE)], False),
        ([(1, 0, put(f=1)), (2, 1, DELETE), (2, 1, put())], True),
    ],
)
def test_an_operation_meets_something_where_its_authors_own_copy_would_differ(
    edits: list[Edit], meets: bool
) -> None:
    assert merged(*edits)[1][-1] is meets


# Limits -------------------------------------------------------------------------------------


def test_a_record_has_so_many_fields_and_a_set_so_many_elements_and_no_more() -> None:
    limits = replace(Limits(), fields_per_record=2, elements_per_set=2)
    merged((1, 0, put(f=1)), (1, 1, add("x", "y")), limits=limits)
    for op, code in (
        (put(f=1, g=2, h=3), "too_many_fields"),
        (increment(), "too_many_fields"),
        (add("x", "y", "z"), "too_many_elements"),
    ):
        with pytest.raises(Refused) as refused:
            merged((1, 0, put(f=1)), (1, 1, add("x")), (1, 2, op), limits=limits)
        assert refused.value.code == code


# The stored form ----------------------------------------------------------------------------

values = st.sampled_from(["x", "ü", 1, 1.0, 1e300, True, None, [1, {"k": None}], -(2**63)])
operations = st.one_of(
    st.builds(
        lambda fields, new: Put("c", "a", fields, new),
        st.dictionaries(st.sampled_from("fg"), values, max_size=2),
        st.booleans(),
    ),
    st.just(DELETE),
    st.integers(-(2**53) + 1, 2**53 - 1).map(increment),
    st.lists(values, max_size=3).map(lambda found: add(*found)),
    st.lists(values, max_size=3).map(lambda found: remove(*found)),
)
histories = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, 9), operations), min_size=1, max_size=9
).map(lambda edits: [(r, min(c, n), op) for n, (r, c, op) in enumerate(edits)])


@LAW
@given(histories)
def test_a_record_comes_back_from_its_stored_form_as_it_was(edits: list[Edit]) -> None:
    record, _ = merged(*edits)
    packed = pack("c", "a", record, names)
    back = unpack(packed)
    assert (back.position, back.whole, back.deleted) == (
        record.position,
        record.whole,
        record.deleted,
    )
    assert set(back.life) == set(record.life)
    assert {n: _plain(f) for n, f in back.fields.items()} == {
        n: _plain(f) for n, f in record.fields.items()
    }
    assert packed.conflicts == len(record.conflicts)
    assert pack("c", "a", back, names)._replace(causality=b"") == packed._replace(causality=b"")


def _plain(value: Field) -> object:
    if isinstance(value, Register):
        return sorted((s.write, repr(s.value)) for s in value.siblings)
    assert isinstance(value, Counter | ObservedRemoveSet)
    return msgspec.structs.replace(value, tail=Tail(0, ()))


@LAW
@given(histories)
def test_the_measure_of_a_record_bounds_what_it_takes_as_json(edits: list[Edit]) -> None:
    record, _ = merged(*edits)
    assert len(pack("c", "a", record, names).data) <= record.measure()


def test_a_sum_beyond_64_bits_is_kept_exactly() -> None:
    edits = [(1, n, increment(2**53 - 1)) for n in range(1_100)]
    packed = row(*edits)
    counter = unpack(packed).fields["n"]
    assert isinstance(counter, Counter)
    assert counter.total == 1_100 * (2**53 - 1) > 2**63
