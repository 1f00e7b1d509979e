"""The vectors that any client can run: what the answers in them make of a device's copy."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rejoin import schema, settle, spaces
from rejoin.answers import read_space
from rejoin.apply import writing
from rejoin.values import canonical, compact, parse

VECTORS = Path(__file__).resolve().parents[3] / "tests" / "vectors"
FILES = ("merging", "deltas", "contexts", "clocks", "exactly-once")


def load(name: str) -> Any:
    path = VECTORS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else []


CASES = [case for name in FILES for case in load(name)]
VALUES = load("values") or {"canonical": [], "equal": []}


class Copy:
    """A device's local state, without tables of an app."""

    def __init__(self) -> None:
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        schema.create(self.db)
        spaces.number_of(self.db, spaces.PERSONAL)

    def step(self, request: dict[str, Any], answer: dict[str, Any], now: int) -> None:
        held = [c["counter"] for c in request.get("changes", [])]
        for change in request.get("changes", []):
            self.db.execute(
                "INSERT OR IGNORE INTO rejoin_changes (space, counter, at, body)"
                " VALUES (1, ?, ?, ?)",
                (change["counter"], 0, compact(change)),
            )
        highest = max([request.get("counter") or 0, *held])
        self.db.execute("UPDATE rejoin_spaces SET counter = max(counter, ?)", (highest,))
        here = spaces.read(self.db, 1)
        asked = replace(
            here,
            pull_cursor=request.get("cursor", 0),
            epoch=request.get("epoch", here.epoch),
            page=request.get("page"),
        )
        told = read_space(answer)
        if told.error is None:
            counters = range(held[0], held[-1] + 1) if held else range(0)
            settle.settle(self.db, asked, told, now, counters)
        elif told.error.code == "counter_gap":
            with writing(self.db):
                settle.give_back(self.db, 1, told.error.integer("expected") or 1)
        elif told.error.code == "bad_page":
            settle.drop_pages(self.db, 1)

    def at_rest(self) -> bool:
        space = spaces.read(self.db, 1)
        return space.pulled and space.page is None and not spaces.pending(self.db, 1)

    def holds(self) -> dict[tuple[str, str], tuple[Any, Any]]:
        return {
            (name, record_id): (
                canonical(json.loads(fields)),
                sorted(
                    (field, sorted(canonical(s["value"]) for s in siblings))
                    for field, siblings in json.loads(conflicts or "{}").items()
                ),
            )
            for name, record_id, fields, conflicts in self.db.execute(
                "SELECT c.name, r.id, r.fields, r.conflicts FROM rejoin_records AS r"
                " JOIN rejoin_collections AS c ON c.no = r.collection"
            )
        }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_copies_at_the_same_cursor_hold_the_same(case: dict[str, Any]) -> None:
    copies: dict[str, Copy] = {}
    for step in case["steps"]:
        copy = copies.setdefault(step["device"], Copy())
        copy.step(step["request"], step["answer"], step["now"])
    ends: dict[tuple[int | None, int], list[Copy]] = {}
    for copy in copies.values():
        space = spaces.read(copy.db, 1)
        if copy.at_rest():
            ends.setdefault((space.epoch, space.cursor), []).append(copy)
    for together in ends.values():
        assert [one.holds() for one in together] == [together[0].holds()] * len(together)
    for copy in copies.values():
        copy.db.close()


@pytest.mark.parametrize(("text", "expected"), VALUES["canonical"])
def test_a_value_has_one_canonical_text(text: str, expected: str) -> None:
    assert canonical(parse(text)) == expected


@pytest.mark.parametrize(("one", "other", "same"), VALUES["equal"])
def test_two_values_are_equal_by_their_canonical_text(one: str, other: str, same: bool) -> None:
    assert (canonical(parse(one)) == canonical(parse(other))) is same
