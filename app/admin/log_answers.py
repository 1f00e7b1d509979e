"""What questions about a space's log and records are answered with. Times: ms since 1970."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType

from app.admin.sight import ValueShown
from sync.answers import ContextShown, FieldNamed


class Author(Struct, frozen=True):
    """The device of a replica. `name` and `email` are "" where the account was erased."""

    device: str
    name: str = ""
    email: str = ""


class MemberShown(Struct, frozen=True):
    """A member, also one whose membership was withdrawn."""

    user: UUID
    email: str
    role: str
    withdrawn_at: int | None


class ReplicaShown(Struct, frozen=True):
    """An entry of a space's vector clock: `counter`, decided at the head `position`; and the
    cursor that the device has acknowledged. `active`: compaction waits for it.
    """

    author: Author
    counter: int
    position: int
    cursor: int
    cursor_at: int
    behind: int
    active: bool


class SpaceShown(Struct, frozen=True):
    """A space with its members and its vector clock: the first of each, if they are many."""

    id: UUID
    name: str
    personal: bool
    head: int
    epoch: int
    horizon: int
    created_at: int
    members: list[MemberShown]
    replicas: list[ReplicaShown]


class ChangeShown(Struct, frozen=True):
    """A change in the log. `at` as the device said, `at_corrected` as merging counts it;
    `outcome`: `applied`, or `conflict` where it met what its author had not seen.
    """

    position: int
    author: Author
    counter: int
    context: ContextShown
    at: int
    at_corrected: int
    received_at: int
    outcome: str
    conflicts: list[FieldNamed]
    ops: list[Any]
    unseen: list[int] | UnsetType = UNSET


class SpaceLog(Struct, frozen=True):
    """A page of a space's log, the newest first."""

    epoch: int
    head: int
    changes: list[ChangeShown]
    page: str | None


class Side(Struct, frozen=True):
    """One write of a field: a sibling, or an addition to a set."""

    value: ValueShown
    author: Author
    counter: int
    position: int
    at: int


class FieldShown(Struct, frozen=True):
    """A field as merged. `siblings` of a register, the one that is shown first; of other types
    the merged value alone, and of a document nothing.
    """

    name: str
    type: str
    position: int
    in_conflict: bool
    value: ValueShown | None
    siblings: list[Side]


class LifeShown(Struct, frozen=True):
    """A sibling of the register of life."""

    deleted: bool
    author: Author
    counter: int
    position: int
    at: int


class RecordShown(Struct, frozen=True):
    """A record as it is, or as it was at `at_position`; `whole`: where its row last began anew."""

    space: UUID
    collection: str
    id: str
    at_position: int
    position: int
    deleted: bool
    whole: int
    life: list[LifeShown]
    fields: list[FieldShown]


class RecordHistory(Struct, frozen=True):
    """Changes that touched the record, the newest first, with its operations alone. `unseen`: of
    the earlier ones in this answer, the positions that the author had not seen. A page looks
    through a part of the log: it may be empty though another follows.
    """

    changes: list[ChangeShown]
    page: str | None


class ConflictShown(Struct, frozen=True):
    """A record in conflict, with the sides of each field that is."""

    space: UUID
    space_name: str
    collection: str
    id: str
    position: int
    fields: list[FieldShown]


class ConflictsFound(Struct, frozen=True):
    """A page of open conflicts."""

    conflicts: list[ConflictShown]
    page: str | None


class SettledShown(Struct, frozen=True):
    """A conflict that was: `position` is the change that met another, `sides` what it wrote and
    what it had not seen; `current` the field as it is now, None where the record is gone.
    """

    space: UUID
    position: int
    author: Author
    received_at: int
    collection: str
    id: str
    field: str
    sides: list[Side]
    current: FieldShown | None


class SettledFound(Struct, frozen=True):
    """A page of conflicts that are settled, by space, the newest first."""

    conflicts: list[SettledShown]
    page: str | None


class QuarantinedShown(Struct, frozen=True):
    """A change put aside: its dot, why, and what was made of it: `open`, `replayed` as the change
    at the position `replayed_as`, or `discarded`.
    """

    space: UUID
    space_name: str
    author: Author
    counter: int
    position: int
    error: dict[str, Any]
    received_at: int
    bytes: int
    state: str
    settled_at: int | None
    replayed_as: int | None


class QuarantineFound(Struct, frozen=True):
    """A page of changes put aside, by space, device and counter."""

    quarantine: list[QuarantinedShown]
    page: str | None


class QuarantineItem(Struct, frozen=True):
    """A change put aside, with what was sent as far as the agent may see it."""

    item: QuarantinedShown
    change: Any
