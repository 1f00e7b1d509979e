"""Conflicts: those that are open, and those that were."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from uuid import UUID

import msgspec
from sqlalchemy import Connection

from app.admin.log_answers import (
    Author,
    ConflictsFound,
    ConflictShown,
    FieldShown,
    SettledFound,
    SettledShown,
    Side,
)
from app.admin.paging import page_of, read_page
from app.admin.records import authors, field_shown, kept
from app.admin.sight import Sight
from storage import desk, trail
from storage.events import NO_SPACE
from storage.trail import ChangeRow
from sync.changes import Natural
from sync.stored import unpack

LAST_SPACE: Final = UUID(int=2**128 - 1)
# What a change met is looked for among so many of the record's changes.
SIDES_MAX: Final = 20


def open_ones(
    connection: Connection, only: UUID | None, page: str | None, limit: int, sight: Sight
) -> ConflictsFound:
    """Records in conflict, with both sides of each field, in all spaces or in one."""
    after = read_page("conflicts", page, tuple[UUID, str, str]) or (only or NO_SPACE, "", "")
    rows = desk.conflicts(connection, only, after, limit + 1)
    shown, token = page_of(
        "conflicts", rows, limit, lambda one: [one.space, one.row.collection, one.row.id]
    )
    return ConflictsFound([_open(connection, one, sight) for one in shown], token)


def _open(connection: Connection, one: desk.InConflict, sight: Sight) -> ConflictShown:
    made, who = unpack(one.row), authors(connection, one.space)
    sides = [field_shown(name, made.fields[name], who, sight) for name in made.conflicts]
    row = one.row
    return ConflictShown(one.space, one.space_name, row.collection, row.id, row.position, sides)


def settled_ones(
    connection: Connection, only: UUID | None, page: str | None, limit: int, sight: Sight
) -> SettledFound:
    """Conflicts that somebody who had seen both sides has settled; a page of changes that met
    others, so it may hold fewer.
    """
    before = read_page("settled", page, tuple[UUID, Natural]) or (only or LAST_SPACE, 2**62)
    rows = trail.met(connection, only, before, limit + 1)
    shown, token = page_of("settled", rows, limit, lambda row: [row[0], row[1].position])
    found = [one for space, row in shown for one in _settled(connection, space, row, sight)]
    return SettledFound(found, token)


def _settled(
    connection: Connection, space: UUID, row: ChangeRow, sight: Sight
) -> Iterator[SettledShown]:
    for collection, id_, field in row.conflicts or ():
        current = _current(connection, space, (collection, id_), field, sight)
        if current is not None and current.in_conflict:
            continue
        author = Author(str(row.device), row.name, row.email)
        sides = _sides(connection, space, row, (collection, id_, field), sight)
        yield SettledShown(
            space,
            row.position,
            author,
            row.received_at,
            collection,
            id_,
            field,
            sides,
            current,
        )


def _current(
    connection: Connection, space: UUID, key: tuple[str, str], field: str, sight: Sight
) -> FieldShown | None:
    made = kept(connection, space, key)
    if made is None or field not in made.fields:
        return None
    return field_shown(field, made.fields[field], authors(connection, space), sight)


def _sides(
    connection: Connection, space: UUID, row: ChangeRow, named: tuple[str, str, str], sight: Sight
) -> list[Side]:
    """What the change wrote to the field, and what stood between its cursor and it."""
    collection, id_, field = named
    low = row.cursor + 1
    near = trail.touching(connection, space, (collection, id_), row.position, low, SIDES_MAX)
    known = {int(replica): counter for replica, counter in (row.clock or {}).items()}
    unseen = [
        other
        for other in near
        if other.position == row.position
        or (other.replica != row.replica and other.counter > known.get(other.replica, 0))
    ]
    return [side for other in unseen for side in _writes(other, (collection, id_, field), sight)]


def _writes(row: ChangeRow, named: tuple[str, str, str], sight: Sight) -> Iterator[Side]:
    author = Author(str(row.device), row.name, row.email)
    for op in msgspec.json.decode(row.ops):
        if (op["collection"], op["id"]) == named[:2] and named[2] in op.get("fields", {}):
            value = sight.value(op["fields"][named[2]])
            yield Side(value, author, row.counter, row.position, row.at_corrected)
