"""The CRDTs of a field: registers with siblings, counters, observed-remove sets."""

from __future__ import annotations

from typing import Any

import pytest

from sync.clock import DeviceId, Replica, Seen, Write
from sync.fields import Counter, ObservedRemoveSet, Register, Step, Tail

A, B, C = Replica(1), Replica(2), Replica(3)


def write(replica: Replica, position: int, at: int = 0) -> Write:
    return Write(replica, position, position, at)


def seen(replica: Replica, counter: int, cursor: int) -> Seen:
    return Seen(replica, counter, cursor)


def names(replica: Replica) -> DeviceId:
    """The order of the devices is the reverse of their numbers'."""
    return DeviceId("zyxw"[replica])


def shown(register: Register) -> list[Any]:
    return [sibling.value for sibling in register.ranked(names)]


# Registers ----------------------------------------------------------------------------------


def test_a_write_removes_the_siblings_it_has_seen_and_adds_itself() -> None:
    one = Register().put("milk", seen(A, 1, 0), write(A, 1))
    two = one.put("tea", seen(B, 2, 0), write(B, 2, at=5))
    assert shown(two) == ["tea", "milk"]
    assert shown(two.put("cocoa", seen(C, 3, 1), write(C, 3))) == ["tea", "cocoa"]
    assert shown(two.put("cocoa", seen(C, 3, 2), write(C, 3))) == ["cocoa"]


def test_the_greatest_time_is_shown_and_of_equal_times_the_greatest_device() -> None:
    register = Register()
    for position, (replica, at) in enumerate([(A, 7), (B, 7), (C, 3)], 1):
        register = register.put(
            names(replica), seen(replica, position, 0), write(replica, position, at)
        )
    assert shown(register) == ["y", "x", "w"]


def test_siblings_are_a_conflict_only_where_their_values_differ() -> None:
    one = Register().put(1, seen(A, 1, 0), write(A, 1))
    assert not one.in_conflict
    assert not one.put(1.0, seen(B, 2, 0), write(B, 2)).in_conflict
    assert one.put(True, seen(B, 2, 0), write(B, 2)).in_conflict
    assert not Register().in_conflict


def test_clearing_a_register_leaves_what_was_not_seen() -> None:
    two = Register().put("a", seen(A, 1, 0), write(A, 1)).put("b", seen(B, 2, 0), write(B, 2))
    assert shown(two.cleared(seen(C, 3, 1))) == ["b"]
    assert not two.cleared(seen(C, 3, 2)).present


def test_a_register_stands_where_it_was_written_last() -> None:
    two = Register().put("a", seen(A, 1, 0), write(A, 1, at=9)).put("b", seen(B, 2, 0), write(B, 2))
    assert two.position == 2


# Counters -----------------------------------------------------------------------------------


def test_a_counter_is_the_exact_sum_however_large_it_grows() -> None:
    counter = Counter()
    for position in range(1, 3_000):
        counter = counter.increment(2**53 - 1, write(A, position))
    assert counter.total == 2_999 * (2**53 - 1)
    assert (counter.position, counter.present) == (2_999, True)


def test_a_new_row_leaves_the_increments_it_has_not_seen() -> None:
    steps = (Step(write(A, 3), 10), Step(write(B, 4), 100))
    counter = Counter(111, 4, True, Tail(2, steps))
    left = counter.cleared(seen(C, 1, 3))
    assert (left.total, left.present) == (100, True)
    assert (left.cleared(seen(C, 2, 4)).total, left.cleared(seen(C, 2, 4)).present) == (0, False)


def test_clearing_without_the_log_that_it_needs_is_an_error_and_no_guess() -> None:
    with pytest.raises(LookupError):
        Counter(5, 9, True, Tail(9, ())).cleared(seen(A, 1, 8))


def test_a_counter_that_was_incremented_by_nothing_is_there() -> None:
    assert Counter().increment(0, write(A, 1)).present
    assert not Counter().present


# Sets ---------------------------------------------------------------------------------------


def added(*values: Any) -> ObservedRemoveSet:
    return ObservedRemoveSet().add(list(values), seen(A, 1, 0), write(A, 1))


def test_elements_are_told_apart_by_their_canonical_text() -> None:
    made = added(1, 1.0, True, "1", {"b": 1, "a": 2}, {"a": 2.0, "b": 1})
    assert made.texts == ['"1"', "1", "true", '{"a":2,"b":1}']


def test_a_removal_takes_what_its_author_has_seen_and_no_other_addition() -> None:
    twice = added("x", "y").add(["x"], seen(B, 2, 0), write(B, 2))
    assert twice.remove(["x", "y"], seen(C, 3, 1), write(C, 3)).texts == ['"x"']
    assert twice.remove(["x", "y"], seen(C, 3, 2), write(C, 3)).texts == []


def test_removing_what_is_not_there_is_a_change_all_the_same() -> None:
    after = added("x").remove(["z"], seen(A, 2, 1), write(A, 2))
    assert (after.texts, after.position) == (['"x"'], 2)


def test_a_set_whose_last_element_was_removed_is_there_and_empty() -> None:
    after = added("x").remove(["x"], seen(A, 2, 1), write(A, 2))
    assert (after.texts, after.present) == ([], True)


def test_adding_again_what_one_has_seen_leaves_one_addition() -> None:
    again = added("x").add(["x"], seen(A, 2, 0), write(A, 2))
    assert len(again.elements['"x"']) == 1
    beside = added("x").add(["x"], seen(B, 2, 0), write(B, 2))
    assert len(beside.elements['"x"']) == 2


def test_a_new_row_leaves_the_additions_it_has_not_seen() -> None:
    two = added("x").add(["y"], seen(B, 2, 0), write(B, 2))
    left = two.cleared(seen(C, 3, 1)) if two.tail.floor <= 1 else two
    assert left.texts == ['"y"']
    assert left.present
