"""The server's answer for one space, read once into values. Unknown members are ignored."""

from __future__ import annotations

from dataclasses import dataclass, field

from rejoin.errors import RejoinError
from rejoin.overlay import Delta
from rejoin.values import Json, JsonObject


@dataclass(frozen=True)
class Problem:
    """An error of a space or of a change: a stable code, and words."""

    code: str
    detail: str
    whole: JsonObject = field(default_factory=dict)

    def integer(self, name: str) -> int | None:
        value = self.whole.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None


@dataclass(frozen=True)
class SpaceAnswer:
    """One space's part of a sync answer. `cursor` is None where nothing was pulled."""

    epoch: int | None
    accepted: int | None
    rejected: list[tuple[int, Problem]]
    reset: bool
    records: list[Delta]
    raw_records: list[Json]
    page: str | None
    cursor: int | None
    head: int | None
    error: Problem | None
    covered: int | None
    """Own changes up to this counter are in the records, as of the cursor. In a sync answer it is
    `accepted`; a live delta may have been read before the change that is accepted already."""


def as_object(value: Json) -> JsonObject:
    return value if isinstance(value, dict) else {}


def as_int(value: Json) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def as_text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def read_problem(value: Json) -> Problem:
    """From an `error` member or a problem document."""
    members = as_object(value)
    return Problem(
        as_text(members.get("code")),
        as_text(members.get("detail")) or as_text(members.get("title")),
        members,
    )


def read_delta(value: Json) -> Delta:
    """One record of an answer. Raises RejoinError if it has no name."""
    members = as_object(value)
    collection, record_id = members.get("collection"), members.get("id")
    if not isinstance(collection, str) or not isinstance(record_id, str):
        raise RejoinError("The server sent a record without a collection or id.")
    get = members.get
    return Delta(
        collection,
        record_id,
        as_int(get("position")),
        as_object(get("fields")),
        as_object(get("conflicts")),
        as_object(get("documents")),
        get("deleted") is True,
        get("replace") is True,
    )


def read_space(value: Json) -> SpaceAnswer:
    """One value of the answer's `spaces`."""
    members = as_object(value)
    records = members.get("records")
    raw = records if isinstance(records, list) else []
    rejected = members.get("rejected")
    page = members.get("page")
    return SpaceAnswer(
        epoch=as_int(members.get("epoch")),
        accepted=as_int(members.get("accepted")),
        rejected=[
            (as_int(as_object(r).get("counter")) or 0, read_problem(as_object(r).get("error")))
            for r in (rejected if isinstance(rejected, list) else [])
        ],
        reset=bool(members.get("reset")),
        records=[read_delta(r) for r in raw],
        raw_records=raw,
        page=page if isinstance(page, str) else None,
        cursor=as_int(members.get("cursor")),
        head=as_int(members.get("head")),
        error=read_problem(members["error"]) if members.get("error") else None,
        covered=as_int(members.get("accepted")),
    )
