"""A large update is integrated in pieces, and comes to the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pycrdt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync import documents, framing, gates
from sync import pieces as module
from sync.pace import STEPS_AT_ONCE, pace
from sync.pieces import pieces
from tests.letters import letters

ROOT = Path(__file__).resolve().parents[2]
LETTERS = 60_000


def opened(*updates: bytes) -> Any:
    document: Any = pycrdt.Doc(skip_gc=True)
    for update in updates:
        document.apply_update(update)
    return document


def shown(document: Any) -> tuple[Any, ...]:
    """What it says, whichever of its runs are joined already."""
    text, items = document.get("t", type=pycrdt.Text), document.get("l", type=pycrdt.Array)
    return str(text), items.to_py(), framing.read_clocks(document.get_state())


def typed(dice: Random, people: int, edits: int) -> list[bytes]:
    """What some write into one document, a few letters or values at a time; they hear of each other
    now and then. As it comes, before anything is joined.
    """
    seen: list[bytes] = []
    documents_ = [pycrdt.Doc[Any](client_id=number + 1, skip_gc=True) for number in range(people)]
    watching = [one.observe(lambda event: seen.append(event.update)) for one in documents_]
    for _ in range(edits):
        here: Any = dice.choice(documents_)
        text, items = here.get("t", type=pycrdt.Text), here.get("l", type=pycrdt.Array)
        action = dice.randrange(5)
        if action == 0 and len(text):
            at = dice.randrange(len(text))
            del text[at : at + 1]
        elif action == 1:
            items.insert(dice.randint(0, len(items)), dice.choice([1, "x", pycrdt.Map({"k": 1})]))
        elif action == 2:
            there = dice.choice(documents_)
            here.apply_update(there.get_update(here.get_state()))
        else:
            text.insert(dice.randint(0, len(text)), dice.choice("abc"))
    del watching
    return seen


@given(st.randoms(use_true_random=False), st.integers(1, 4), st.integers(1, 7))
def test_pieces_come_to_what_the_whole_comes_to(dice: Random, people: int, most: int) -> None:
    update = documents.merge(typed(dice, people, 60))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STRUCTS_MAX", most)
        found = list(pieces(update, {}))
    there: framing.Clocks = {}
    for piece in found:
        frame = framing.read(piece)
        assert frame.structs <= most
        assert gates.is_complete(frame, there), "a piece waits for one that comes later"
        there |= documents.ends(frame)
    assert shown(opened(*found)) == shown(opened(update))


@given(st.randoms(use_true_random=False), st.integers(1, 7))
def test_a_document_holds_what_it_was_made_of(dice: Random, most: int) -> None:
    updates = typed(dice, 3, 40)
    whole = documents.merge(updates)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STRUCTS_MAX", most)
        patch.setattr(documents, "PIECEMEAL_BYTES", 0)
        assert documents.holds(whole, documents.merge(updates[dice.randint(0, len(updates)) :]))
        assert documents.holds(documents.squash(whole), whole)


@given(st.randoms(use_true_random=False), st.integers(1, 5))
def test_pieces_go_where_a_part_is_already(dice: Random, most: int) -> None:
    updates = typed(dice, 3, 40)
    half = dice.randint(0, len(updates))
    there, more = opened(*updates[:half]), updates[dice.randint(0, half) :]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STRUCTS_MAX", most)
        for piece in pieces(documents.merge(more), framing.read_clocks(there.get_state())):
            there.apply_update(piece)
    assert shown(there) == shown(opened(*updates))


def test_what_is_long_makes_room_for_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    update = letters(10_000)
    ways: list[None] = []
    monkeypatch.setattr(pace, "give_way", lambda: ways.append(None))
    framing.read(update)
    assert len(ways) == 10_000 // STEPS_AT_ONCE
    ways.clear()
    assert documents.squash(update)
    assert len(ways) > 10_000 // module.STRUCTS_MAX


_OPEN = f"""
import resource
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
from sync import documents
from tests.letters import letters
update = letters({LETTERS})
assert documents.text_of(update) == "a" * {LETTERS}
assert len(documents.squash(update)) < {LETTERS} + 100
assert documents.holds(update, update)
"""


def test_a_run_of_single_letters_takes_no_more_memory_than_a_process_has() -> None:
    """At once it took the square of their number: 1.8 GB for so many, and the process ended."""
    subprocess.run([sys.executable, "-c", _OPEN], check=True, cwd=ROOT)
