"""What waits for support staff: records in conflict, and changes put aside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from storage.sql import Cursor
from sync.stored import StoredRecord

_RECORD: Final = """
    r.collection, r.id, r.position, r.deleted, r.bytes, r.conflicts, r.data::text, r.causality
"""
_OPEN: Final = text(f"""
    SELECT r.space_id, s.name, {_RECORD} FROM records r JOIN spaces s ON s.id = r.space_id
    WHERE r.conflicts > 0
      AND (r.space_id, r.collection, r.id)
          > (:space, CAST(:collection AS text) COLLATE "C", CAST(:id AS text) COLLATE "C")
      AND (CAST(:only AS uuid) IS NULL OR r.space_id = :only)
    ORDER BY r.space_id, r.collection, r.id LIMIT :limit
""")  # noqa: S608 - constants


class InConflict(NamedTuple):
    """A record with fields in conflict."""

    space: UUID
    space_name: str
    row: StoredRecord


def conflicts(
    connection: Connection, only: UUID | None, after: tuple[UUID, str, str], limit: int
) -> list[InConflict]:
    """Records in conflict after (space, collection, id), in that order."""
    space, collection, id_ = after
    values: dict[str, Any] = {"space": space, "collection": collection, "id": id_, "only": only}
    rows = connection.execute(_OPEN, {**values, "limit": limit})
    return [InConflict(row[0], row[1], _stored(row[2:])) for row in rows]


def _stored(row: Any) -> StoredRecord:
    *key, size, count, data, causality = row
    collection, id_, position, deleted = key
    return StoredRecord(collection, id_, position, deleted, size, count, data.encode(), causality)


_SOME: Final = text(f"""
    SELECT wanted.number, {_RECORD} FROM unnest(
        CAST(:spaces AS uuid[]), CAST(:collections AS text[]), CAST(:ids AS text[])
    ) WITH ORDINALITY AS wanted (space, collection, id, number)
    JOIN records r ON r.space_id = wanted.space AND r.collection = wanted.collection
        AND r.id = wanted.id
""")  # noqa: S608 - constants


def records_of(
    connection: Connection, keys: Sequence[tuple[UUID, str, str]]
) -> list[StoredRecord | None]:
    """The records of (space, collection, id), None for those that there are not."""
    values = {
        "spaces": [key[0] for key in keys],
        "collections": [key[1] for key in keys],
        "ids": [key[2] for key in keys],
    }
    found: list[StoredRecord | None] = [None] * len(keys)
    for number, *row in connection.execute(_SOME, values):
        found[number - 1] = _stored(row)
    return found


class Quarantined(NamedTuple):
    """A change put aside. `body`: whole, as JSON text; `name` and `email` of its device's."""

    space: UUID
    space_name: str
    replica: int
    device: UUID
    name: str
    email: str
    counter: int
    position: int
    body: str
    error: dict[str, Any]
    received_at: int
    settled: str | None
    settled_at: int | None
    replayed_as: int | None


_SHOWN: Final = """
    q.space_id, s.name, q.replica, r.device_id, coalesce(d.name, ''), coalesce(u.email, ''),
    q.counter, q.position, q.body, q.error, q.received_at, q.settled, q.settled_at, q.replayed_as
    FROM quarantine q JOIN spaces s ON s.id = q.space_id
    JOIN replicas r ON r.space_id = q.space_id AND r.number = q.replica
    LEFT JOIN devices d ON d.id = r.device_id LEFT JOIN users u ON u.id = d.user_id
"""
_AFTER: Final = "(q.space_id, q.replica, q.counter) > (:space, :replica, :counter)"
_FITTING: Final = """
    (CAST(:only AS uuid) IS NULL OR q.space_id = :only)
    AND (CAST(:device AS uuid) IS NULL OR r.device_id = :device)
    AND (CAST(:code AS text) IS NULL OR q.error->>'code' = :code)
    ORDER BY q.space_id, q.replica, q.counter LIMIT :limit
"""
# Two statements, so that the open ones are found by their own index.
_OPEN_ONES: Final = text(f"SELECT {_SHOWN} WHERE q.settled IS NULL AND {_AFTER} AND {_FITTING}")
_SETTLED: Final = text(f"SELECT {_SHOWN} WHERE q.settled = :settled AND {_AFTER} AND {_FITTING}")


def quarantined(
    connection: Connection,
    after: tuple[UUID, int, int],
    limit: int,
    *,
    settled: str | None = None,
    only: UUID | None = None,
    device: UUID | None = None,
    code: str | None = None,
) -> list[Quarantined]:
    """Those after (space, replica, counter), in that order; `settled` None: the open ones."""
    space, replica, counter = after
    values: dict[str, Any] = {"space": space, "replica": replica, "counter": counter}
    values |= {"settled": settled, "only": only, "device": device, "code": code, "limit": limit}
    statement = _OPEN_ONES if settled is None else _SETTLED
    return [Quarantined(*row) for row in connection.execute(statement, values)]


_ONE: Final = text(
    f"SELECT {_SHOWN} WHERE q.space_id = :space AND r.device_id = :device AND q.counter = :counter"
)


def quarantined_one(
    connection: Connection, space: UUID, device: UUID, counter: int
) -> Quarantined | None:
    """The change of this dot that was put aside; None: there is none."""
    values = {"space": space, "device": device, "counter": counter}
    row = connection.execute(_ONE, values).one_or_none()
    return None if row is None else Quarantined(*row)


_SETTLE: Final = """
    UPDATE quarantine SET settled = %s, settled_at = %s, replayed_as = %s
    WHERE space_id = %s AND replica = %s AND counter = %s AND settled IS NULL
"""


def settle(
    cur: Cursor, item: Quarantined, verdict: str, now: int, replayed_as: int | None = None
) -> bool:
    """Closes the item as `replayed` or `discarded`; False: somebody else has."""
    key = (item.space, item.replica, item.counter)
    cur.execute(_SETTLE, (verdict, now, replayed_as, *key))
    return cur.rowcount == 1
