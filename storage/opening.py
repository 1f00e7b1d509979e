"""How pushes that go together begin: one message opens their spaces and reads their records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from uuid import UUID

from storage.engine import BEGIN_PUSH
from storage.records import FOUND, Where, stored
from storage.spaces import SPACE, Asked, Space
from storage.sql import Cursor, text_array
from storage.together import Prepared, together
from sync.changes import Key
from sync.stored import StoredRecord

# Nobody is waited for, so that one statement can lock and read: of a locked row that has moved
# since it began, PostgreSQL gives the newest version. A right that is withdrawn in that very moment
# is withdrawn after the push.
_OPEN: Final = Prepared(
    "open_free",
    f"""
    SELECT asked.number, {SPACE}
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) WITH ORDINALITY
        AS asked (user_id, space_id, device_id, number)
    JOIN devices d ON d.id = asked.device_id AND d.user_id = asked.user_id
    JOIN users u ON u.id = d.user_id
    JOIN spaces s ON s.id = coalesce(asked.space_id, u.personal_space_id)
    JOIN memberships m ON m.space_id = s.id AND m.user_id = u.id
    JOIN replicas r ON r.space_id = s.id AND r.device_id = d.id
    ORDER BY asked.number
    FOR NO KEY UPDATE OF s, r SKIP LOCKED
    """,  # noqa: S608
)
# A statement of its own, for it must see what was committed until the lock was taken.
_READ: Final = Prepared(
    "read_free",
    f"""
    SELECT wanted.number, found.*
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[]) WITH ORDINALITY
        AS asked (user_id, space_id, collection, id, number)
    JOIN users u ON u.id = asked.user_id
    JOIN memberships m ON m.space_id = coalesce(asked.space_id, u.personal_space_id)
        AND m.user_id = u.id AND m.withdrawn_at IS NULL
    CROSS JOIN LATERAL (
        SELECT m.space_id, asked.collection, asked.id, asked.number
    ) AS wanted
    {FOUND}
    """,  # noqa: S608
)

Wanted = tuple[int, Key]
"""A record, and the place of its space in what is asked for."""


def begin(
    cur: Cursor, asked: Sequence[Asked], wanted: Sequence[Wanted]
) -> tuple[dict[int, Space], dict[Where, StoredRecord]]:
    """Begins a transaction of pushes. Those of the spaces, by their place in `asked`, that nobody
    else has locked now, locked for this transaction; and of their records those that are wanted.
    Each space once, and only for a device that has pushed to it before.

    Waits for nobody, so no two who open many can wait for each other.
    """
    users, spaces, devices = zip(*asked, strict=True)
    of = [asked[at] for at, _ in wanted]
    keys = (
        text_array([collection for _, (collection, _) in wanted]),
        text_array([id_ for _, (_, id_) in wanted]),
    )
    *_, opened, read = together(
        cur,
        BEGIN_PUSH,
        _OPEN(_uuids(users), _uuids(spaces), _uuids(devices)),
        _READ(_uuids(one[0] for one in of), _uuids(one[1] for one in of), *keys),
    )
    found: dict[UUID, tuple[int, Space]] = {}
    for number, *row in opened:
        found.setdefault(row[0], (number - 1, Space(*row)))
    by_place = dict(found.values())
    records = {}
    for number, *row in read:
        at, key = wanted[number - 1]
        if at in by_place:
            records[by_place[at].id, key] = stored(row)
    return by_place, records


def _uuids(ids: Iterable[UUID | None]) -> str:
    return "{" + ",".join("NULL" if id_ is None else str(id_) for id_ in ids) + "}"
