"""What is new in a space, at one glance: one statement, which sees one moment.

Promise: it is all that is new, or None. Most changes are small, and those who follow a space are a
change or two behind: for them each round trip counts.
"""

from __future__ import annotations

from typing import Final, NamedTuple
from uuid import UUID

from storage.records import stored
from storage.sql import Cursor
from sync.stored import StoredRecord

# Who is further behind, or has more to take, is given pages.
CHANGES_MAX: Final = 64
RECORDS_MAX: Final = 64
BYTES_MAX: Final = 256 * 2**10

_GLANCE: Final = """
    WITH s AS (
        SELECT head, epoch, horizon FROM spaces WHERE id = %(space)s
    ), found AS MATERIALIZED (
        SELECT * FROM records
        WHERE space_id = %(space)s AND position > %(cursor)s
          AND (SELECT head FROM s) - %(cursor)s <= %(changes)s
        ORDER BY position, collection, id LIMIT %(records)s + 1
    )
    SELECT s.head, s.epoch, s.horizon, (SELECT count(*) FROM found),
           (SELECT jsonb_object_agg(device_id, counter) FROM replicas
            WHERE space_id = %(space)s AND position > %(cursor)s),
           (SELECT jsonb_object_agg(device_id, reset_below) FROM replicas
            WHERE space_id = %(space)s AND reset_below > %(cursor)s),
           f.collection, f.id, f.position, f.deleted, f.bytes, f.conflicts, f.data::text,
           f.causality
    FROM s LEFT JOIN found f ON (SELECT sum(bytes) FROM found) <= %(bytes)s
    ORDER BY f.position, f.collection, f.id
"""


class Glance(NamedTuple):
    """All that stands after a cursor. `clock`: the entries that moved after it; `resets`: the
    devices that are asked to reset there, and below which cursor.
    """

    head: int
    epoch: int
    horizon: int
    clock: dict[str, int]
    resets: dict[str, int]
    rows: list[StoredRecord]


def glance(cur: Cursor, space: UUID, cursor: int) -> Glance | None:
    """What is new after the cursor; None: too much for a glance, or there is no such space."""
    bounds = {"changes": CHANGES_MAX, "records": RECORDS_MAX, "bytes": BYTES_MAX}
    cur.execute(_GLANCE, {"space": space, "cursor": cursor, **bounds}, binary=True)
    found = cur.fetchall()
    if not found:
        return None
    head, epoch, horizon, count, clock, resets = found[0][:6]
    rows = [stored(row[6:]) for row in found if row[6] is not None]
    if head - cursor > CHANGES_MAX or count > RECORDS_MAX or count != len(rows):
        return None
    return Glance(head, epoch, horizon, clock or {}, resets or {}, rows)
