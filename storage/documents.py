"""The updates of documents, by position, folded now and then.

An edit appends a row and rewrites none. `FOLD_ROWS` rows as they came are merged to one of level
1, and so many of these, with what there was before, to the one row of level 2, in which typing is
squashed to runs; sooner where what isn't squashed has grown to half of what is. So a document of a
hundred thousand edits is read from at most `2 * FOLD_ROWS + 1` rows, and each edit is written a few
times in all. A row holds what stands after the row before it, up to its position: a cursor in
between gets some of it again, which is no change to a Yjs document.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any, Final
from uuid import UUID

from storage.sql import Cursor
from sync import editing
from sync.deltas import Wanted
from sync.documents import merge, squash
from sync.editing import FieldKey, Held, Stored

FOLD_ROWS: Final = 64
LOOSE_BYTES, LOOSE_PART = 64 * 2**10, 2
WAITS, CAME, MERGED, WHOLE = -1, 0, 1, 2

# OFFSET 0 keeps PostgreSQL to one look into the primary key for each: left free, it may read all
# documents of a space to find one.
_WANTED: Final = """
    unnest(%(collections)s::text[], %(ids)s::text[], %(fields)s::text[])
        AS wanted (collection, id, field)
"""
_HELD: Final = f"""
    SELECT d.collection, d.id, d.field, position, level, octet_length(update), about,
           CASE WHEN level = {WAITS} THEN update END
    FROM {_WANTED} CROSS JOIN LATERAL (
        SELECT * FROM documents
        WHERE space_id = %(space)s AND collection = wanted.collection AND id = wanted.id
          AND field = wanted.field
        OFFSET 0
    ) AS d
    ORDER BY d.collection, d.id, d.field, position, level
"""  # noqa: S608


def held(cur: Cursor, space: UUID, keys: Iterable[FieldKey]) -> dict[FieldKey, Held]:
    """The documents as an edit meets them; those that there are."""
    cur.execute(_HELD, {"space": space, **_columns(keys)})
    return {key: _held(list(rows)) for key, rows in groupby(cur.fetchall(), key=_key)}


def _columns(keys: Iterable[tuple[Any, ...]]) -> dict[str, list[str]]:
    wanted = list(keys)
    named = ("collections", "ids", "fields")
    return {name: [key[at] for key in wanted] for at, name in enumerate(named)}


def _key(row: tuple[Any, ...]) -> FieldKey:
    return row[0], row[1], row[2]


def _held(rows: list[tuple[Any, ...]]) -> Held:
    there = [row for row in rows if row[4] != WAITS]
    return Held(
        about=editing.about_all(editing.unpack_about(row[6]) for row in there),
        position=there[-1][3] if there else 0,
        size=sum(row[5] for row in rows),
        waiting=tuple(Stored(row[7], row[3]) for row in rows if row[4] == WAITS),
        rows=sum(row[4] == CAME for row in rows),
        loose=sum(row[5] for row in there if row[4] != WHOLE),
    )


_AFTER: Final = """
    SELECT update, position FROM documents
    WHERE space_id = %s AND collection = %s AND id = %s AND field = %s
      AND position > %s AND level >= 0
    ORDER BY position
"""


def after(
    cur: Cursor, space: UUID, collection: str, id_: str, field: str, position: int
) -> list[Stored]:
    """The updates after a position, oldest first; the first may hold some from before it."""
    cur.execute(_AFTER, (space, collection, id_, field, position))
    return [Stored(update, at) for update, at in cur.fetchall()]


def whole(cur: Cursor, space: UUID, collection: str, id_: str, field: str) -> Stored | None:
    """The document as one update, and the position up to which that is; None: there is none."""
    found = after(cur, space, collection, id_, field, 0)
    if not found:
        return None
    return Stored(merge([stored.update for stored in found]), found[-1].position)


_SIZES: Final = """
    SELECT collection, id, sum(octet_length(update))::bigint
    FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[])
        AS wanted (collection, id, field, cursor)
    CROSS JOIN LATERAL (
        SELECT position, level, update FROM documents
        WHERE space_id = %s AND collection = wanted.collection AND id = wanted.id
          AND field = wanted.field AND position > wanted.cursor AND level >= 0
        OFFSET 0
    ) AS d
    GROUP BY collection, id
"""


def sizes(cur: Cursor, space: UUID, wanted: list[Wanted]) -> Mapping[tuple[str, str], int]:
    """By record, the bytes of its documents' updates after the cursors: not less than what they
    come to, merged.
    """
    cur.execute(_SIZES, (*(list(column) for column in zip(*wanted, strict=True)), space))
    return {(collection, id_): size for collection, id_, size in cur.fetchall()}


_BROUGHT: Final = """
    SELECT collection, id, field, update
    FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[])
        AS wanted (collection, id, field, cursor)
    CROSS JOIN LATERAL (
        SELECT position, level, update FROM documents
        WHERE space_id = %s AND collection = wanted.collection AND id = wanted.id
          AND field = wanted.field AND position > wanted.cursor AND level >= 0
        OFFSET 0
    ) AS d
    ORDER BY collection, id, field, position
"""


def brought(
    cur: Cursor, space: UUID, wanted: list[Wanted]
) -> dict[tuple[str, str], dict[str, bytes]]:
    """By record and field, the updates after the cursors, merged."""
    cur.execute(_BROUGHT, (*(list(column) for column in zip(*wanted, strict=True)), space))
    found: dict[tuple[str, str], dict[str, bytes]] = {}
    for (collection, id_, field), rows in groupby(cur.fetchall(), key=_key):
        merged = merge([row[3] for row in rows])
        found.setdefault((collection, id_), {})[field] = merged
    return found


# What an edit writes --------------------------------------------------------------------------

_APPEND: Final = """
    COPY documents (space_id, collection, id, field, position, level, about, update) FROM STDIN
"""


def write(cur: Cursor, space: UUID, changed: Mapping[FieldKey, Held]) -> None:
    """Appends what a push adds, takes away what waited, and folds what has grown long."""
    for key, document in changed.items():
        if document.folded:
            _remove(cur, space, key, WHOLE)
        if document.taken:
            _take(cur, space, key, document.taken)
    with cur.copy(_APPEND) as copy:
        for key, document in changed.items():
            for piece in _by_position(document):
                copy.write_row((str(space), *key, *piece))
    for key, document in changed.items():
        if document.folded:
            continue
        if _is_loose(document):
            _fold(cur, space, key, WHOLE)
        elif document.rows >= FOLD_ROWS:
            _fold(cur, space, key, _level(cur, space, key))


def _is_loose(document: Held) -> bool:
    """Typing comes a letter at a time. A library takes the square of the letters to open that, and
    a document is opened at each edit.
    """
    added = sum(len(piece.update) for piece in document.pieces if not piece.waits)
    loose = document.loose + added
    return loose > max(LOOSE_BYTES, (document.size - loose) // LOOSE_PART)


def _by_position(document: Held) -> Iterable[tuple[int, int, bytes, bytes]]:
    """(position, level, about, update): one of a change may have edited twice, or freed others."""

    def place(piece: editing.Piece) -> tuple[int, bool]:
        return piece.position, piece.waits

    for (position, waits), pieces in groupby(sorted(document.pieces, key=place), key=place):
        same = list(pieces)
        about = editing.about_all(piece.about for piece in same)
        level = WAITS if waits else WHOLE if document.folded else CAME
        yield position, level, about.pack(), merge([piece.update for piece in same])


_REMOVE: Final = """
    DELETE FROM documents
    WHERE space_id = %s AND collection = %s AND id = %s AND field = %s
      AND level BETWEEN 0 AND %s
    RETURNING position, level, about, update
"""


def _remove(cur: Cursor, space: UUID, key: FieldKey, level: int) -> list[tuple[Any, ...]]:
    """Takes the rows away that were folded so often at most; (position, level, about, update)."""
    cur.execute(_REMOVE, (space, *key, level))
    return sorted(cur.fetchall(), key=lambda row: row[0])


_TAKE: Final = f"""
    DELETE FROM documents
    WHERE space_id = %s AND collection = %s AND id = %s AND field = %s
      AND level = {WAITS} AND position = ANY(%s)
"""  # noqa: S608


def _take(cur: Cursor, space: UUID, key: FieldKey, positions: tuple[int, ...]) -> None:
    cur.execute(_TAKE, (space, *key, list(positions)))


_COUNT: Final = f"""
    SELECT count(*) FROM documents
    WHERE space_id = %s AND collection = %s AND id = %s AND field = %s AND level = {MERGED}
"""  # noqa: S608
_INSERT: Final = """
    INSERT INTO documents (space_id, collection, id, field, position, level, about, update)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""


def _level(cur: Cursor, space: UUID, key: FieldKey) -> int:
    cur.execute(_COUNT, (space, *key))
    (merged,) = cur.fetchone() or (0,)
    return WHOLE if merged >= FOLD_ROWS else MERGED


def _fold(cur: Cursor, space: UUID, key: FieldKey, level: int) -> None:
    rows = _remove(cur, space, key, WHOLE if level == WHOLE else CAME)
    update = merge([row[3] for row in rows])
    if level == WHOLE:
        update = squash(update)
    about = editing.about_all(editing.unpack_about(row[2]) for row in rows)
    cur.execute(_INSERT, (space, *key, rows[-1][0], level, about.pack(), update))
