"""Who has seen what: vector clocks, contexts, and the correction of a device's clock."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.clock import (
    INT64_MAX,
    INT64_MIN,
    CausalContext,
    Epoch,
    EpochStart,
    History,
    Position,
    Replica,
    Seen,
    VectorClock,
    Write,
    close,
    corrected,
)
from sync.errors import Refused

SECOND, YEAR = 1_000, 365 * 24 * 3_600_000
NOW = 1_800_000_000_000
LAW = settings(derandomize=True, database=None, deadline=None)

clocks = st.dictionaries(st.integers(0, 3), st.integers(0, 3), max_size=4).map(
    lambda counters: VectorClock({Replica(r): n for r, n in counters.items()})
)


def clock(**counters: int) -> VectorClock:
    """clock(a=3): replica 0 at 3."""
    return VectorClock({Replica("abc".index(name)): n for name, n in counters.items()})


# Vector clocks ------------------------------------------------------------------------------


@LAW
@given(clocks, clocks, clocks)
def test_merging_clocks_is_commutative_associative_and_idempotent(
    a: VectorClock, b: VectorClock, c: VectorClock
) -> None:
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(a) == a == a.merge(VectorClock())


@LAW
@given(clocks, clocks)
def test_a_merged_clock_descends_from_both_and_their_meet_is_below_both(
    a: VectorClock, b: VectorClock
) -> None:
    assert a.merge(b).descends(a)
    assert a.merge(b).descends(b)
    assert a.descends(a.meet(b))
    assert b.descends(a.meet(b))
    assert a.merge(b).meet(a) == a


@LAW
@given(clocks, clocks)
def test_two_clocks_are_equal_before_after_or_concurrent_and_only_one_of_these(
    a: VectorClock, b: VectorClock
) -> None:
    before, after = b.descends(a) and a != b, a.descends(b) and a != b
    assert [a == b, before, after, a.concurrent(b)].count(True) == 1


def test_a_replica_at_zero_is_as_good_as_none() -> None:
    assert clock(a=0) == VectorClock()
    assert hash(clock(a=0, b=1)) == hash(clock(b=1))
    assert Replica(0) not in clock(a=0)
    assert VectorClock()[Replica(7)] == 0


# What an author had seen --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "covered"),
    [
        (Write(Replica(9), 1, 10, 0), True),
        (Write(Replica(9), 1, 11, 0), False),
        (Write(Replica(0), 5, 99, 0), True),
        (Write(Replica(0), 6, 99, 0), False),
        (Write(Replica(1), 3, 99, 0), True),
        (Write(Replica(1), 4, 99, 0), False),
    ],
    ids=[
        "at the cursor",
        "after the cursor",
        "its own, in the same change",
        "its own, later",
        "named by the clock",
        "after what the clock names",
    ],
)
def test_an_author_has_seen_its_context_and_its_own_and_nothing_else(
    write: Write, covered: bool
) -> None:
    assert Seen(Replica(0), 5, 10, clock(b=3)).covers(write) is covered


def history(*, head: int = 20, epoch: int = 3) -> History:
    starts = {
        Epoch(2): EpochStart(10, clock(a=4, b=9)),
        Epoch(3): EpochStart(15, clock(a=6, b=2)),
    }
    return History(Epoch(epoch), head, clock(a=9, b=9), starts, lambda *_: ())


def test_a_context_of_the_current_epoch_stands_as_it_is() -> None:
    context = CausalContext(Epoch(3), 20, clock(a=9))
    assert history().survived(context) == context


def test_a_context_of_a_lost_history_is_cut_to_what_survived_every_restore_since() -> None:
    cut = history().survived(CausalContext(Epoch(1), 99, clock(a=99, b=99, c=5)))
    assert cut == CausalContext(Epoch(1), 10, clock(a=4, b=2))
    cut = history().survived(CausalContext(Epoch(2), 14, clock(a=5)))
    assert cut == CausalContext(Epoch(2), 14, clock(a=5))


@pytest.mark.parametrize(
    "context",
    [
        CausalContext(Epoch(4), 0),
        CausalContext(Epoch(3), 21),
        CausalContext(Epoch(3), 0, clock(a=10)),
        CausalContext(Epoch(3), 0, clock(c=1)),
    ],
    ids=["an epoch to come", "above the head", "a counter to come", "a replica without changes"],
)
def test_a_context_that_names_what_never_was_is_refused(context: CausalContext) -> None:
    with pytest.raises(Refused) as refused:
        history().survived(context)
    assert refused.value.code == "bad_context"


def test_a_context_is_closed_over_what_its_clock_names_and_over_what_that_names() -> None:
    log = {
        "b": (Replica(1), 1, CausalContext(Epoch(1), 4, clock(c=2))),
        "c": (Replica(2), 2, CausalContext(Epoch(1), 7)),
        "unnamed": (Replica(2), 3, CausalContext(Epoch(1), 50)),
    }

    def contexts_of(named: VectorClock, after: int) -> Iterable[CausalContext]:
        return [context for r, n, context in log.values() if n <= named[r]]

    closed = close(CausalContext(Epoch(1), 2, clock(b=1)), contexts_of)
    assert closed == CausalContext(Epoch(1), 7, clock(b=1, c=2))


def test_a_context_without_a_clock_asks_the_log_for_nothing() -> None:
    def never(named: VectorClock, after: int) -> Iterable[CausalContext]:
        raise AssertionError

    context = CausalContext(Epoch(1), Position(7))
    assert close(context, never) == context


# The clock on the wall ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "sent_at", "expected"),
    [
        (NOW - 60 * SECOND, NOW, NOW - 60 * SECOND),
        (NOW - 60 * SECOND, None, NOW - 60 * SECOND),
        (NOW + YEAR - 60 * SECOND, NOW + YEAR, NOW - 60 * SECOND),
        (-60 * SECOND, 0, NOW - 60 * SECOND),
        (NOW - 9 * SECOND, NOW - 5 * SECOND, NOW - 9 * SECOND),
        (NOW - 9 * SECOND, NOW - 5 * SECOND - 1, NOW - 4 * SECOND + 1),
        (NOW - 9 * SECOND, NOW + 5 * SECOND + 1, NOW - 14 * SECOND - 1),
        (NOW + YEAR, NOW, NOW),
        (NOW + 1, None, NOW),
        (INT64_MAX, INT64_MIN, NOW),
        (INT64_MIN, INT64_MAX, INT64_MIN),
    ],
    ids=[
        "a right clock",
        "no word of the device's clock",
        "a year ahead",
        "in 1970",
        "5 s slow",
        "a little more than 5 s slow",
        "a little more than 5 s ahead",
        "an edit in the future",
        "a millisecond in the future",
        "as late as can be",
        "as early as can be",
    ],
)
def test_an_edit_counts_by_the_servers_clock_and_never_as_later_than_its_receipt(
    at: int, sent_at: int | None, expected: int
) -> None:
    assert corrected(at, sent_at, NOW) == expected


@LAW
@given(
    st.integers(INT64_MIN, INT64_MAX),
    st.none() | st.integers(INT64_MIN, INT64_MAX),
    st.integers(0, 2**45),
)
def test_a_corrected_time_fits_64_bits_and_is_never_later_than_now(
    at: int, sent_at: int | None, received_at: int
) -> None:
    assert INT64_MIN <= corrected(at, sent_at, received_at) <= received_at
