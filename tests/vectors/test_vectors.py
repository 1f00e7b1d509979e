"""The vectors hold for the engine, and none of them has been edited."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sync.values import canonical, equal
from tests.oracle.space import Doubled, Space
from tests.oracle.world import Sent, World
from tests.vectors.cases import CASES, VALUES

HERE = Path(__file__).parent
HASHES = HERE / "HASHES"


@pytest.mark.parametrize("case", CASES)
def test_the_engine_answers_as_the_vector_says(case: dict[str, Any]) -> None:
    world, page = World(), None
    for step in case["steps"]:
        world.now = step["now"]
        request = dict(step["request"])
        if request.get("page") == "$page":
            request["page"] = page
        # The world also asks the oracle, which read the protocol and not the vectors.
        answer = world.arrive(Sent(step["device"], json.dumps(request).encode()))
        if answer.get("page") is not None:
            page, answer["page"] = answer["page"], "$page"
        for told in [*answer.get("rejected", []), answer]:
            told.get("error", {}).pop("detail", None)
        assert answer == step["answer"], step


@pytest.mark.parametrize(("text", "expected"), VALUES["canonical"])
def test_a_value_has_one_canonical_text(text: str, expected: str) -> None:
    assert canonical(msgspec.json.decode(text)) == expected
    assert canonical(json.loads(expected)) == expected


@pytest.mark.parametrize(("one", "other", "same"), VALUES["equal"])
def test_two_values_are_equal_or_not(one: str, other: str, same: bool) -> None:
    first, second = msgspec.json.decode(one), msgspec.json.decode(other)
    assert equal(first, second) is same
    assert equal(second, first) is same


def _verdict(text: str) -> list[str]:
    """The codes of the verdicts on a change that puts the value."""
    body = (
        '{"changes": [{"counter": 1, "context": {"cursor": 0}, "at": 0, "ops": [{"op": "put", '
        '"collection": "c", "id": "a", "fields": {"f": ' + text + "}}]}]}"
    )
    answer = Space(parse=_parse).sync("A", body.encode(), 0)
    return [told["error"]["code"] for told in answer["rejected"]]


def _parse(body: bytes) -> object:
    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        return Doubled(found) if len(dict(found)) < len(found) else dict(found)

    return json.loads(body, object_pairs_hook=pairs)


@pytest.mark.parametrize(("text", "code"), VALUES["refused"])
def test_a_value_that_can_not_be_held_is_refused_with_its_code(text: str, code: str) -> None:
    assert _verdict(text) == [code]


@pytest.mark.parametrize("text", VALUES["taken"])
def test_a_value_at_the_edge_of_what_can_be_held_is_taken(text: str) -> None:
    assert _verdict(text) == []


def _hashes() -> list[str]:
    """A line for each case: its hash, its file and its name."""
    lines = []
    for path in sorted(HERE.glob("*.json")):
        found = json.loads(path.read_text())
        if isinstance(found, dict):
            cases = {f"{kind} {json.dumps(v)}": v for kind in found for v in found[kind]}
        else:
            cases = {case["name"]: case for case in found}
        for name, case in cases.items():
            text = json.dumps(case, sort_keys=True)
            lines.append(
                f"{blake2b(text.encode(), digest_size=16).hexdigest()} {path.stem}: {name}"
            )
    return lines


def test_a_vector_is_added_never_edited() -> None:
    """A new one is added to HASHES by hand: the message of this test holds the missing lines."""
    kept = HASHES.read_text().splitlines()
    assert sorted(_hashes()) == sorted(kept)
    assert len({line.partition(" ")[2] for line in kept}) == len(kept)
