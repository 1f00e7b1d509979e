"""Who is in a document: told once, by nobody else, and bounded."""

from __future__ import annotations

import pytest

from sync.awareness import HELD_MAX, OUTDATED_SECONDS, AwarenessTable, Holder
from sync.errors import BadRequest
from sync.yprotocol import STATES_MAX, Presence

ANN, BOB = Holder("1", "ann"), Holder("2", "bob")
HERE = Presence(7, 3, b'{"user":"ann"}')


@pytest.fixture
def table() -> AwarenessTable:
    made = AwarenessTable()
    assert made.apply([HERE], ANN, 0) == [HERE]
    return made


def test_what_is_told_again_by_others_ends_here(table: AwarenessTable) -> None:
    assert table.apply([HERE], BOB, 1) == []
    assert table.apply([HERE], ANN, 1) == []


def test_a_greater_clock_is_told_to_everybody(table: AwarenessTable) -> None:
    moved = Presence(7, 4, b'{"cursor":1}')
    assert table.apply([moved], ANN, 1) == [moved]
    assert table.standing(1) == [moved]


@pytest.mark.parametrize("state", [None, b'{"user":"bob"}'])
def test_nobody_speaks_for_another_user(table: AwarenessTable, state: bytes | None) -> None:
    assert table.apply([Presence(7, 9, state)], BOB, 1) == []
    assert table.standing(1) == [HERE]


def test_a_user_who_comes_back_by_another_socket_takes_the_state_over(
    table: AwarenessTable,
) -> None:
    again = Presence(7, 4, HERE.state)
    assert table.apply([again], Holder("3", "ann"), 1) == [again]
    assert table.leave("1", 2) == []
    assert table.leave("3", 2) == [Presence(7, 4, None)]


def test_an_editor_that_leaves_is_gone_and_no_late_word_brings_it_back(
    table: AwarenessTable,
) -> None:
    assert table.leave("1", 1) == [Presence(7, 3, None)]
    assert table.standing(1) == []
    assert table.apply([HERE], BOB, 2) == []
    assert table.leave("1", 2) == []


def test_a_state_that_is_not_renewed_is_not_shown_to_newcomers(table: AwarenessTable) -> None:
    assert table.standing(OUTDATED_SECONDS) == [HERE]
    assert table.standing(OUTDATED_SECONDS + 1) == []


def test_a_state_that_is_none_changes_nothing_of_its_frame(table: AwarenessTable) -> None:
    moved = Presence(7, 4, b"{}")
    with pytest.raises(BadRequest):
        table.apply([moved, Presence(8, 1, b"{")], ANN, 1)
    assert table.standing(1) == [HERE]


def test_a_socket_can_speak_for_a_few_editors_only(table: AwarenessTable) -> None:
    crowd = [Presence(100 + n, 1, b"{}") for n in range(STATES_MAX)]
    assert len(table.apply(crowd, ANN, 1)) == HELD_MAX - 1
    assert len(table.apply(crowd, BOB, 1)) == HELD_MAX


def test_a_document_has_a_bounded_number_of_states(table: AwarenessTable) -> None:
    for n in range(STATES_MAX):
        table.apply([Presence(100 + n, 1, b"{}")], Holder(f"socket {n}", "ann"), 1)
    assert len(table.standing(1)) == STATES_MAX
