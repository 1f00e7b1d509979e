"""What a device is told. What is UNSET stays out of the answer."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Raw, Struct, UnsetType

from sync.values import Value


class SiblingShown(Struct, frozen=True):
    """One side of a conflict. `at`: ms since 1970, corrected; `position`: of its change."""

    value: Value
    device: str
    at: int
    position: int


class RecordDelta(Struct, frozen=True, omit_defaults=True):
    """A record as far as a cursor has not seen it.

    `deleted`: drop the row. `replace`: what is not among `fields` is to be dropped. `conflicts`
    holds, for each of the fields in conflict, its siblings, the one shown first. `documents`: by
    field, the updates that the cursor has not seen, as one.
    """

    collection: str
    id: str
    position: int
    deleted: bool = False
    replace: bool = False
    fields: dict[str, Any] | Raw | UnsetType = UNSET
    conflicts: dict[str, list[SiblingShown]] = {}
    documents: dict[str, bytes] = {}


class Rejection(Struct, frozen=True):
    """The verdict on a change that can never be applied: `{"code", "detail", …}`."""

    counter: int
    error: dict[str, Any]


class PushAnswer(Struct, frozen=True):
    """`accepted`: the counter up to which every change of this device is durably decided."""

    epoch: int
    accepted: int
    rejected: list[Rejection]
    head: int


class SpaceAnswer(Struct, frozen=True, kw_only=True):
    """`cursor` moves with the last page, on which `page` is null. `clock` holds the entries of
    the vector clock that moved after the request's cursor. `error` stands alone, but for a bad
    page token, beside which the verdicts stand.
    """

    epoch: int | UnsetType = UNSET
    accepted: int | UnsetType = UNSET
    rejected: list[Rejection] | UnsetType = UNSET
    reset: bool | UnsetType = UNSET
    records: list[RecordDelta] | UnsetType = UNSET
    page: str | UnsetType | None = UNSET
    cursor: int | UnsetType = UNSET
    head: int | UnsetType = UNSET
    clock: dict[str, int] | UnsetType = UNSET
    error: dict[str, Any] | UnsetType = UNSET


class SyncAnswer(Struct, frozen=True):
    """`server_time`: ms since 1970."""

    server_time: int
    spaces: dict[str, SpaceAnswer]


class SnapshotHead(Struct, frozen=True):
    """The first line of a snapshot; `records` says how many follow, a RecordDelta a line."""

    epoch: int
    cursor: int
    records: int
    clock: dict[str, int]


class FieldNamed(Struct, frozen=True):
    """A field of a record."""

    collection: str
    id: str
    field: str


class ContextShown(Struct, frozen=True, omit_defaults=True):
    """A context as the log shows it, the clock by device."""

    epoch: int
    cursor: int
    clock: dict[str, int] = {}


class LoggedChange(Struct, frozen=True):
    """A change in the log. `at` as the device said; both times in ms since 1970."""

    position: int
    device: str
    counter: int
    context: ContextShown
    at: int
    received_at: int
    ops: list[dict[str, Any]] | Raw
    conflicts: list[FieldNamed]


class LogAnswer(Struct, frozen=True):
    epoch: int
    head: int
    changes: list[LoggedChange]


class OutcomeShown(Struct, frozen=True):
    """What became of a change: `applied`, `conflict` (applied, and met another), `rejected`,
    `replayed` (rejected, and then repaired by staff: it stands at `position`), or `discarded`, then
    for all counters up to `last`.
    """

    counter: int
    outcome: str
    position: int | UnsetType = UNSET
    conflicts: list[FieldNamed] | UnsetType = UNSET
    error: dict[str, Any] | UnsetType = UNSET
    last: int | UnsetType = UNSET


class OutcomesAnswer(Struct, frozen=True):
    accepted: int
    outcomes: list[OutcomeShown]
