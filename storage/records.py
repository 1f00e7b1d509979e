"""The merged state: a row for each record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection

from storage.sql import Cursor, Row, as_rows, from_rows, server_cursor, text_array
from sync.changes import Key
from sync.deltas import Place
from sync.stored import StoredRecord

Where = tuple[UUID, Key]
"""A record in its space."""

# The limit keeps PostgreSQL to one look into the primary key for each: left free, it may read
# all of a space to find twenty of its records.
FOUND: Final = """
    CROSS JOIN LATERAL (
        SELECT r.collection, r.id, position, deleted, bytes, conflicts, data::text, causality
        FROM records r
        WHERE r.space_id = wanted.space_id AND r.collection = wanted.collection
          AND r.id = wanted.id LIMIT 1
    ) AS found
"""
_READ: Final = f"""
    SELECT number, found.*
    FROM unnest(%s::uuid[], %s::text[], %s::text[]) WITH ORDINALITY
        AS wanted (space_id, collection, id, number)
    {FOUND}
"""  # noqa: S608


def read(cur: Cursor, wanted: list[Where]) -> dict[Where, StoredRecord]:
    """Those of the records that there are."""
    names = {space: str(space) for space in {space for space, _ in wanted}}
    spaces = [names[space] for space, _ in wanted]
    columns = (spaces, [key[0] for _, key in wanted], [key[1] for _, key in wanted])
    cur.execute(_READ, [text_array(column) for column in columns])
    return {wanted[number - 1]: stored(row) for number, *row in cur.fetchall()}


def stored(row: Sequence[Any]) -> StoredRecord:
    """A row as the statements here select it."""
    collection, id_, position, deleted, size, conflicts, data, causality = row
    return StoredRecord(
        collection, id_, position, deleted, size, conflicts, data.encode(), causality
    )


COLUMNS: Final = {
    "space_id": "uuid",
    "collection": "text",
    "id": "text",
    "position": "bigint",
    "deleted": "boolean",
    "bytes": "int",
    "conflicts": "int",
    "data": "jsonb",
    "causality": "bytea",
}
# Records that there were none of.
MAKE: Final = f"INSERT INTO records ({', '.join(COLUMNS)}) {from_rows(COLUMNS, 'made')}"
# One without data keeps it where it stands: a long text is not written again for each letter.
UPDATE: Final = f"""
    UPDATE records SET position = new.position, deleted = new.deleted, bytes = new.bytes,
        conflicts = new.conflicts, causality = new.causality,
        data = coalesce(new.data, records.data)
    FROM ({from_rows(COLUMNS, "changed")}) AS new
    WHERE records.space_id = new.space_id
      AND records.collection = new.collection AND records.id = new.id
"""  # noqa: S608


def row(space: str, record: StoredRecord) -> Row:
    """By `COLUMNS`."""
    return (
        space,
        record.collection,
        record.id,
        str(record.position),
        str(record.deleted),
        str(record.size),
        str(record.conflicts),
        record.data.decode() or None,
        f"\\x{record.causality.hex()}",
    )


def update(cur: Cursor, rows: Iterable[Row]) -> None:
    """Writes records that there were."""
    cur.execute(UPDATE, {"changed": as_rows(rows)})


# The window stops the page at its bytes before a row is read for the answer; one record may
# exceed them alone. What was deleted before the transfer began, one that starts from nothing
# need not hear of.
_PAGE: Final = """
    SELECT collection, id, position, deleted, bytes, conflicts, data::text, causality
    FROM (
        SELECT *, sum(bytes) OVER (
            ORDER BY position, collection, id ROWS UNBOUNDED PRECEDING) - bytes AS before
        FROM records
        WHERE space_id = %(space)s AND (position, collection, id)
            > (%(position)s, %(collection)s COLLATE "C", %(id)s COLLATE "C")
          AND position > %(position)s - 1
          AND NOT (deleted AND position <= %(skip_deleted)s)
        ORDER BY position, collection, id LIMIT %(limit)s
    ) AS page
    WHERE before < %(bytes)s ORDER BY position, collection, id
"""


def page(
    cur: Cursor, space: UUID, after: Place, skip_deleted: int, limit: int, size: int
) -> list[StoredRecord]:
    """Records changed after the place, in order: `limit` at most, and about `size` bytes."""
    values = {
        "space": space,
        "position": after.position,
        "collection": after.collection,
        "id": after.id,
        "skip_deleted": skip_deleted,
        "limit": limit,
        "bytes": size,
    }
    cur.execute(_PAGE, values, binary=True)
    return [stored(row) for row in cur.fetchall()]


_COUNT: Final = "SELECT count(*) FROM records WHERE space_id = %s AND NOT deleted"
_ALL: Final = """
    SELECT collection, id, position, deleted, bytes, conflicts, data::text, causality
    FROM records WHERE space_id = %s AND NOT deleted ORDER BY position, collection, id
"""


_CHANGED: Final = """
    SELECT collection, id FROM records WHERE space_id = %s AND position > %s LIMIT %s
"""


def changed_after(cur: Cursor, space: UUID, position: int, limit: int) -> list[Key]:
    """The records that changed after the position, so many at most."""
    cur.execute(_CHANGED, (space, position, limit))
    return [(collection, id_) for collection, id_ in cur.fetchall()]


def count(cur: Cursor, space: UUID) -> int:
    """How many records are alive."""
    cur.execute(_COUNT, (space,))
    row = cur.fetchone()
    return int(row[0]) if row else 0


def every(connection: Connection, space: UUID) -> Iterator[StoredRecord]:
    """All that are alive, a batch at a time by a cursor of the server's side."""
    with server_cursor(connection, "every_record") as cur:
        cur.execute(_ALL, (space,))
        for row in cur:
            yield stored(row)
