"""Conflicts: those that are open, and those that were."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import Connection

from app.admin.log_answers import (
    Author,
    ConflictsFound,
    ConflictShown,
    SettledFound,
    SettledShown,
    Side,
)
from app.admin.paging import page_of, read_page
from app.admin.records import Who, field_shown
from app.admin.sight import Sight
from storage import desk, trail
from storage.events import NO_SPACE
from storage.trail import ChangeRow
from sync.changes import Natural
from sync.fields import Field, Register
from sync.records import Record
from sync.stored import StoredRecord, unpack

LAST_SPACE: Final = UUID(int=2**128 - 1)
# What a change met is looked for among so many of the record's changes.
SIDES_MAX: Final = 20
# Of a change that met others in more fields, so many are shown.
FIELDS_MAX: Final = 20


def open_ones(
    connection: Connection, only: UUID | None, page: str | None, limit: int, sight: Sight
) -> ConflictsFound:
    """Records in conflict, with both sides of each field, in all spaces or in one."""
    after = read_page("conflicts", page, tuple[UUID, str, str]) or (only or NO_SPACE, "", "")
    rows = desk.conflicts(connection, only, after, limit + 1)
    shown, token = page_of(
        "conflicts", rows, limit, lambda one: [one.space, one.row.collection, one.row.id]
    )
    records = [(one.space, unpack(one.row)) for one in shown]
    fields = [(space, made.fields[name]) for space, made in records for name in made.conflicts]
    who = _authors(connection, fields)
    found = [
        _open(one, made, who(space), sight)
        for one, (space, made) in zip(shown, records, strict=True)
    ]
    return ConflictsFound(found, token)


def _open(one: desk.InConflict, made: Record, who: Who, sight: Sight) -> ConflictShown:
    sides = [field_shown(name, made.fields[name], who, sight) for name in made.conflicts]
    row = one.row
    return ConflictShown(one.space, one.space_name, row.collection, row.id, row.position, sides)


def _authors(connection: Connection, fields: Iterable[tuple[UUID, Field]]) -> Callable[[UUID], Who]:
    """The authors of the fields' siblings, by space: one statement for a page."""
    wanted = {
        (space, int(sibling.write.replica))
        for space, field in fields
        if isinstance(field, Register)
        for sibling in field.siblings
    }
    known = trail.authors(connection, wanted)
    return lambda space: lambda replica: Author(*known[space, int(replica)])


class _Met(NamedTuple):
    """A field that a change put in conflict."""

    space: UUID
    row: ChangeRow
    collection: str
    id: str
    field: str


def settled_ones(
    connection: Connection, only: UUID | None, page: str | None, limit: int, sight: Sight
) -> SettledFound:
    """Conflicts that somebody who had seen both sides has settled; a page of changes that met
    others, so it may hold fewer.
    """
    before = read_page("settled", page, tuple[UUID, Natural]) or (only or LAST_SPACE, 2**62)
    rows = trail.met(connection, only, before, limit + 1)
    shown, token = page_of("settled", rows, limit, lambda row: [row[0], row[1].position])
    met = [
        _Met(space, row, *named)
        for space, row in shown
        for named in (row.conflicts or ())[:FIELDS_MAX]
    ]
    return SettledFound(_settled(connection, met, sight), token)


def _settled(connection: Connection, met: list[_Met], sight: Sight) -> list[SettledShown]:
    """Those of the fields that are in conflict no more, three statements for all of them."""
    kept = desk.records_of(connection, [(one.space, one.collection, one.id) for one in met])
    fields = [_field(row, one.field) for row, one in zip(kept, met, strict=True)]
    over = [
        (one, field)
        for one, field in zip(met, fields, strict=True)
        if not (isinstance(field, Register) and field.in_conflict)
    ]
    who = _authors(connection, [(one.space, field) for one, field in over if field is not None])
    near = trail.touching_all(connection, [_stretch(one) for one, _ in over], SIDES_MAX)
    return [
        _was(one, field, changes, who(one.space), sight)
        for (one, field), changes in zip(over, near, strict=True)
    ]


def _field(row: StoredRecord | None, name: str) -> Field | None:
    return unpack(row).fields.get(name) if row else None


def _stretch(one: _Met) -> trail.Stretch:
    """What the change had not seen stands between its cursor and it."""
    return trail.Stretch(one.space, one.collection, one.id, one.row.cursor + 1, one.row.position)


def _was(
    one: _Met, field: Field | None, near: list[ChangeRow], who: Who, sight: Sight
) -> SettledShown:
    row = one.row
    known = {int(replica): counter for replica, counter in (row.clock or {}).items()}
    unseen = [
        other
        for other in near
        if other.position == row.position
        or (other.replica != row.replica and other.counter > known.get(other.replica, 0))
    ]
    return SettledShown(
        one.space,
        row.position,
        Author(str(row.device), row.name, row.email),
        row.received_at,
        one.collection,
        one.id,
        one.field,
        [side for other in unseen for side in _writes(other, one, sight)],
        None if field is None else field_shown(one.field, field, who, sight),
    )


def _writes(row: ChangeRow, one: _Met, sight: Sight) -> Iterator[Side]:
    author = Author(str(row.device), row.name, row.email)
    for op in msgspec.json.decode(row.ops):
        named = (op["collection"], op["id"]) == (one.collection, one.id)
        if named and one.field in op.get("fields", {}):
            value = sight.value(op["fields"][one.field])
            yield Side(value, author, row.counter, row.position, row.at_corrected)
