"""Documents under hostile updates: no update ends a worker, holds it, or reaches another device
that it would end.
"""

from __future__ import annotations

import base64
import time
from collections import Counter
from typing import Any

import pycrdt
import pytest
from flask.testing import FlaskClient

from sync import documents, editing
from sync.editing import About, Held
from sync.errors import Refused
from sync.limits import Limits
from tests.contract.devices import phone
from tests.hostile.garbage import Garbage, text, uint

LIMITS = Limits()
HISTORIES = 600


def _nothing() -> bytes:
    return documents.NOTHING


def _edited(updates: list[bytes], seen: Counter[str]) -> Held:
    held = Held()
    for position, update in enumerate(updates, 1):
        try:
            held = editing.edit(held, update, position, _nothing, LIMITS).held
            seen["taken" if held.position == position else "waits"] += 1
        except Refused as refused:
            seen[refused.code] += 1
    return held


def test_whatever_updates_say_the_document_opens_here_and_on_every_device() -> None:
    """The bytes of each are well-formed; what they mean is drawn by lot. A failure of this test
    may well be the end of the process, or of its time.
    """
    seen: Counter[str] = Counter()
    for seed in range(HISTORIES):
        held = _edited(Garbage(seed).history(), seen)
        by_and_by: Any = pycrdt.Doc()
        for piece in held.pieces:
            if not piece.waits:
                by_and_by.apply_update(piece.update)
        whole = editing.whole(held, _nothing)
        at_once: Any = pycrdt.Doc()
        at_once.apply_update(documents.squash(whole))
        documents.read(whole, LIMITS.document_bytes)
        editing.shown(held, _nothing, LIMITS)
        vector = documents.state_vector(whole)
        assert documents.diff(whole, vector)[:1] == b"\0", "one who has all lacks nothing"
    assert min(seen["taken"], seen["waits"], seen["bad_update"]) > 100, seen


def test_a_document_has_no_more_than_so_many_levels_however_they_come() -> None:
    first = b"\x01\x01\x01\x00\x27\x01\x01m\x01k\x01\x00"

    def inner(clock: int) -> bytes:
        return b"\x01\x01\x01" + uint(clock) + b"\x27\x00\x01" + uint(clock - 1) + b"\x01k\x01\x00"

    held, most = Held(), LIMITS.document_depth
    for clock in range(most):
        update = inner(clock) if clock else first
        held = editing.edit(held, update, clock + 1, _nothing, LIMITS).held
    with pytest.raises(Refused) as refused:
        editing.edit(held, inner(most), most + 1, _nothing, LIMITS)
    assert refused.value.code == "too_deep"


def test_a_chain_of_eighty_thousand_types_is_refused() -> None:
    head = uint(1) + uint(80_000) + b"\x01\x00\x27\x01\x01m\x01k\x01"
    links = (b"\x27\x00\x01" + uint(clock) + b"\x01k\x01" for clock in range(79_999))
    with pytest.raises(Refused) as refused:
        editing.edit(Held(), head + b"".join(links) + b"\0", 1, _nothing, LIMITS)
    assert refused.value.code == "too_deep"


def test_many_types_beside_each_other_are_no_depth() -> None:
    document: Any = pycrdt.Doc()
    document["l"] = pycrdt.Array([pycrdt.Map({"n": n}) for n in range(300)])
    held = editing.edit(Held(), document.get_update(), 1, _nothing, LIMITS).held
    assert held.about.depth == 1


def test_a_circle_of_updates_waits_for_ever_and_is_never_integrated() -> None:
    def item(client: int, other: int) -> bytes:
        return b"\x01\x01" + uint(client) + b"\x00\x84" + uint(other) + b"\x00\x01x\x00"

    seen: Counter[str] = Counter()
    held = _edited([item(1, 2), item(2, 3), item(3, 1), item(4, 1)], seen)
    assert (held.position, len(held.waiting), dict(seen)) == (0, 4, {"waits": 4})


def test_a_circle_within_one_update_waits_too() -> None:
    circle = b"\x02\x01\x02\x00\x84\x01\x00\x01x\x01\x01\x00\x84\x02\x00\x01x\x00"
    assert editing.edit(Held(), circle, 1, _nothing, LIMITS).held.position == 0


@pytest.mark.parametrize(
    "update",
    [
        # Clients with a letter each; one client with as many letters as fit; deletions.
        uint(100_000)
        + b"".join(b"\1" + uint(n + 1) + b"\0\4\1\0\1x" for n in range(100_000))
        + b"\0",
        uint(1) + uint(180_000) + b"\1\0" + b"\4\1\0\1x" * 180_000 + b"\0",
        b"\0" + uint(150_000) + b"".join(uint(n + 1) + b"\1\0\1" for n in range(150_000)),
    ],
    ids=["clients", "letters", "deletions"],
)
def test_a_megabyte_of_small_things_takes_a_second_or_two(update: bytes) -> None:
    assert len(update) <= 2**20
    began = time.process_time()
    held = editing.edit(Held(), update, 1, _nothing, LIMITS).held
    assert len(held.about.pack()) < 2**20
    assert time.process_time() - began < 5


def test_what_waits_is_bounded_in_number_and_bytes() -> None:
    def early(client: int, size: int) -> bytes:
        return b"\x01\x01" + uint(client) + b"\x05\x04\x01\x01t" + text("x" * size) + b"\x00"

    held = Held(about=About())
    for client in range(1, LIMITS.document_waiting + 1):
        held = editing.edit(held, early(client, 9), client, _nothing, LIMITS).held
    with pytest.raises(Refused) as refused:
        editing.edit(held, early(999, 9), 999, _nothing, LIMITS)
    assert refused.value.code == "too_many_missing"
    held = Held()
    for client in range(1, 17):
        held = editing.edit(held, early(client, 10**6), client, _nothing, LIMITS).held
    with pytest.raises(Refused) as refused:
        editing.edit(held, early(17, 10**6), 17, _nothing, LIMITS)
    assert refused.value.code == "document_too_large"


def test_hostile_updates_over_http_are_refused_one_by_one_and_the_rest_goes_on(
    client: FlaskClient,
) -> None:
    one = phone(client)
    updates = [update for seed in range(40) for update in Garbage(seed).history()]
    for at in range(0, len(updates), 100):
        changes = [
            one.change(
                {
                    "op": "edit",
                    "collection": "notes",
                    "id": "n1",
                    "field": "body",
                    "update": base64.b64encode(update).decode(),
                }
            )
            for update in updates[at : at + 100]
        ]
        answer = one.sync(*changes)
        assert answer["accepted"] == one.counter
        assert {told["error"]["code"] for told in answer["rejected"]} <= {
            "bad_update",
            "too_many_missing",
        }
    record = one.pull_all()["notes", "n1"]
    document: Any = pycrdt.Doc()
    document.apply_update(base64.b64decode(record["documents"]["body"]))
