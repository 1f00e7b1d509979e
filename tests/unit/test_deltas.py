"""What a cursor has not seen, record by record; and page tokens."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sync.changes import Delete, Increment, Operation, Put
from sync.clock import DeviceId, Replica, Seen, Write
from sync.deltas import PageToken, Place, delta, needs_reset, read_token, write_token
from sync.errors import BadRequest
from sync.limits import Limits
from sync.records import Record, apply
from sync.stored import StoredRecord, pack

TOKEN = PageToken("space", 2, 7, 20, False, Place(12, "tasks", "t1"))


def names(replica: Replica) -> DeviceId:
    return DeviceId(f"device-{replica}")


def stored(*edits: tuple[int, int, Operation]) -> StoredRecord:
    """The record after (replica, cursor, operation) in turn, at the positions 1, 2, 3 …"""
    record: Record | None = None
    for position, (replica, cursor, op) in enumerate(edits, 1):
        seen = Seen(Replica(replica), position, cursor)
        write = Write(Replica(replica), position, position, at=position)
        record = apply(record, op, seen, write, Limits()).record
    assert record is not None
    return pack("tasks", "t1", record, names)


def told(row: StoredRecord, cursor: int) -> dict[str, Any]:
    answer: dict[str, Any] = msgspec.to_builtins(delta(row, cursor, names, raw=False))
    return {k: v for k, v in answer.items() if k not in {"collection", "id"}}


def put(*, new: bool = False, **fields: Any) -> Put:
    return Put("tasks", "t1", fields, new)


def test_a_delta_holds_the_fields_that_changed_after_the_cursor_and_no_others() -> None:
    row = stored((1, 0, put(title="Milk", done=False)), (1, 1, put(done=True)))
    assert told(row, 1) == {"position": 2, "fields": {"done": True}}
    assert told(row, 0) == {"position": 2, "fields": {"title": "Milk", "done": True}}


def test_a_field_in_conflict_brings_all_its_siblings_the_one_shown_first() -> None:
    row = stored((1, 0, put(title="Milk")), (2, 0, put(title="Oat milk")))
    assert told(row, 1)["conflicts"] == {
        "title": [
            {"value": "Oat milk", "device": "device-2", "at": 2, "position": 2},
            {"value": "Milk", "device": "device-1", "at": 1, "position": 1},
        ]
    }


def test_siblings_with_equal_values_are_no_conflict() -> None:
    row = stored((1, 0, put(n=1)), (2, 0, put(n=1.0)))
    assert "conflicts" not in told(row, 0)


def test_a_deleted_row_is_told_as_deleted_and_nothing_else() -> None:
    row = stored((1, 0, put(title="Milk")), (1, 1, Delete("tasks", "t1")))
    assert told(row, 1) == {"position": 2, "deleted": True}


@pytest.mark.parametrize(
    "edits",
    [
        [(1, 0, put(title="Milk", n=1)), (2, 1, put(new=True, title="Tea"))],
        [(1, 0, put(title="Tea")), (1, 1, Delete("tasks", "t1")), (2, 1, put())],
        [(1, 0, put(title="Tea")), (2, 1, put()), (1, 1, Delete("tasks", "t1"))],
        [
            (1, 0, put(title="Tea")),
            (1, 1, Delete("tasks", "t1")),
            (2, 2, Increment("tasks", "t1", "votes", 0)),
        ],
    ],
    ids=["begun anew", "came back", "outlived a deletion", "brought back by an increment"],
)
def test_a_row_that_is_whole_since_the_cursor_comes_with_all_its_fields(edits: Any) -> None:
    row = stored(*edits)
    answer = told(row, len(edits) - 1)
    assert answer["replace"] is True
    assert answer["fields"]["title"] == "Tea"
    assert "replace" not in told(row, len(edits))


def test_a_row_begun_anew_replaces_the_old_one_in_a_first_transfer_too() -> None:
    """An earlier page of the same transfer may have brought the old row."""
    row = stored((1, 0, put(title="Milk", n=1)), (2, 1, put(new=True, title="Tea")))
    assert told(row, 0) == {"position": 2, "replace": True, "fields": {"title": "Tea"}}


@pytest.mark.parametrize("cursor", [0, 1])
def test_values_spliced_in_as_text_are_those_that_were_decoded(cursor: int) -> None:
    row = stored((1, 0, put(title="Milk", deep={"a": [1.5, None]})), (2, 0, put(title="Tea")))
    raw = msgspec.json.encode(delta(row, cursor, names, raw=True))
    assert msgspec.json.decode(raw) == msgspec.to_builtins(delta(row, cursor, names, raw=False))


def test_a_page_token_gives_back_what_was_put_into_it() -> None:
    assert read_token(write_token(TOKEN), "space", 2, 7, horizon=20) == TOKEN


@pytest.mark.parametrize(
    "request_",
    [("other", 2, 7, 0), ("space", 3, 7, 0), ("space", 2, 8, 0), ("space", 2, 7, 21)],
    ids=["another space", "another epoch", "another cursor", "tombstones gone since it began"],
)
def test_a_page_token_of_another_transfer_is_a_bad_page(
    request_: tuple[str, int, int, int],
) -> None:
    with pytest.raises(BadRequest, match="transfer"):
        read_token(write_token(TOKEN), *request_)


def test_a_page_token_that_is_damaged_anywhere_is_a_bad_page() -> None:
    text = write_token(TOKEN)
    damaged = [
        text[:n] + ("A" if text[n] != "A" else "B") + text[n + 1 :] for n in range(len(text))
    ]
    for bad in [*damaged[:-1], "", "é", "\ud800", "=" * 9, text[:-4], text + "AAAA", "A" * 5000]:
        with pytest.raises(BadRequest, match=r"not good|transfer"):
            read_token(bad, "space", 2, 7, 0)


@pytest.mark.parametrize(
    ("cursor", "epoch", "survived", "horizon", "reset"),
    [
        (5, 2, 9, 0, False),
        (9, 1, 9, 0, False),
        (10, 1, 9, 0, True),
        (5, 3, 9, 0, True),
        (5, None, 9, 5, False),
        (4, 2, 9, 5, True),
        (0, None, 9, 5, False),
        (10, 2, 9, 0, True),
    ],
    ids=[
        "in the log",
        "at the head that the backup had",
        "above the head that the backup had",
        "from an epoch that never was",
        "at the horizon",
        "behind the horizon",
        "starting from nothing",
        "above the head",
    ],
)
def test_a_device_resets_where_its_cursor_means_nothing_any_more(
    cursor: int, epoch: int | None, survived: int, horizon: int, reset: bool
) -> None:
    assert needs_reset(cursor, epoch, 2, survived, horizon) is reset
