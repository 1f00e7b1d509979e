"""The log as support staff read it: newest first, with who wrote, and by record."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from storage.sql import Cursor
from sync.changes import Key
from sync.clock import CausalContext, Epoch, Replica, VectorClock
from sync.past import PastChange

# One question looks through so many positions of a log, and goes on with the next page.
WINDOW: Final = 20_000
# A page of the log ends after so many bytes, one change at least.
PAGE_BYTES: Final = 2**20


class SpaceRow(NamedTuple):
    """A space."""

    id: UUID
    name: str
    personal: bool
    head: int
    epoch: int
    horizon: int
    created_at: int


_SPACE: Final = text("""
    SELECT id, name, personal, head, epoch, horizon, (extract(epoch FROM created_at) * 1000)::bigint
    FROM spaces WHERE id = :space
""")


def space(connection: Connection, id_: UUID) -> SpaceRow | None:
    """The space; None: there is none."""
    row = connection.execute(_SPACE, {"space": id_}).one_or_none()
    return None if row is None else SpaceRow(*row)


class MemberRow(NamedTuple):
    """A member of a space, also one who was."""

    user: UUID
    email: str
    role: str
    withdrawn_at: int | None


_MEMBERS: Final = text("""
    SELECT u.id, u.email, m.role, (extract(epoch FROM m.withdrawn_at) * 1000)::bigint
    FROM memberships m JOIN users u ON u.id = m.user_id WHERE m.space_id = :space
    ORDER BY m.created_at, u.id LIMIT :limit
""")


def members(connection: Connection, space_id: UUID, limit: int) -> list[MemberRow]:
    """The space's members, the oldest first."""
    rows = connection.execute(_MEMBERS, {"space": space_id, "limit": limit})
    return [MemberRow(*row) for row in rows]


class ReplicaRow(NamedTuple):
    """A device in a space: an entry of its vector clock. `name` and `email` "" where the account
    was erased.
    """

    device: UUID
    name: str
    email: str
    number: int
    counter: int
    position: int
    cursor: int
    cursor_at: int
    active: bool


_REPLICAS: Final = text("""
    SELECT r.device_id, coalesce(d.name, ''), coalesce(u.email, ''), r.number, r.counter,
           r.position, r.cursor, (extract(epoch FROM r.cursor_at) * 1000)::bigint,
           coalesce(d.revoked_at IS NULL AND d.frozen_at IS NULL AND m.user_id IS NOT NULL
                    AND m.withdrawn_at IS NULL, false)
    FROM replicas r LEFT JOIN devices d ON d.id = r.device_id LEFT JOIN users u ON u.id = d.user_id
    LEFT JOIN memberships m ON m.space_id = r.space_id AND m.user_id = d.user_id
    WHERE r.space_id = :space ORDER BY r.number LIMIT :limit
""")


def replicas(connection: Connection, space_id: UUID, limit: int) -> list[ReplicaRow]:
    """The space's replicas, the oldest first."""
    rows = connection.execute(_REPLICAS, {"space": space_id, "limit": limit})
    return [ReplicaRow(*row) for row in rows]


class ChangeRow(NamedTuple):
    """A change of the log. `device` is known also where its account was erased; `clock` by the
    number of the replica; `ops` as JSON text.
    """

    position: int
    replica: int
    device: UUID
    name: str
    email: str
    counter: int
    epoch: int
    cursor: int
    clock: dict[str, int] | None
    at: int
    at_corrected: int
    received_at: int
    ops: str
    conflicts: list[list[str]] | None


_SHOWN: Final = """
    c.position, c.replica, r.device_id, coalesce(d.name, ''), coalesce(u.email, ''), c.counter,
    c.epoch, c.cursor, c.clock, c.at, c.at_corrected, c.received_at, c.ops::text, c.conflicts
"""
_WHO: Final = """
    JOIN replicas r ON r.space_id = c.space_id AND r.number = c.replica
    LEFT JOIN devices d ON d.id = r.device_id LEFT JOIN users u ON u.id = d.user_id
"""
_LOG: Final = text(f"""
    WITH page AS MATERIALIZED (
        SELECT *, octet_length(ops::text) AS size FROM changes
        WHERE space_id = :space AND position < :before
          AND (CAST(:replica AS integer) IS NULL OR replica = :replica)
        ORDER BY position DESC LIMIT :limit
    ), summed AS (
        SELECT *, sum(size) OVER (ORDER BY position DESC) - size AS sum_before FROM page
    )
    SELECT {_SHOWN} FROM summed c {_WHO}
    WHERE sum_before < :bytes ORDER BY c.position DESC
""")  # noqa: S608 - constants


def log(
    connection: Connection, space_id: UUID, before: int, limit: int, replica: int | None = None
) -> list[ChangeRow]:
    """The changes before the position, the newest first: `limit` at most, some bytes at most."""
    values = {"space": space_id, "before": before, "limit": limit, "replica": replica}
    return [ChangeRow(*row) for row in connection.execute(_LOG, {**values, "bytes": PAGE_BYTES})]


_TOUCHING: Final = text(f"""
    SELECT {_SHOWN} FROM changes c {_WHO}
    WHERE c.space_id = :space AND c.position BETWEEN :low AND :high
      AND c.ops @> CAST(:probe AS jsonb)
    ORDER BY c.position DESC LIMIT :limit
""")  # noqa: S608 - constants


def touching(
    connection: Connection, space_id: UUID, key: Key, high: int, low: int, limit: int
) -> list[ChangeRow]:
    """The changes at positions `low` to `high` that touched the record, the newest first."""
    values = {"space": space_id, "low": low, "high": high, "limit": limit, "probe": _probe(key)}
    return [ChangeRow(*row) for row in connection.execute(_TOUCHING, values)]


class Stretch(NamedTuple):
    """A record, and the positions between which its changes are wanted."""

    space: UUID
    collection: str
    id: str
    low: int
    high: int


_STRETCHES: Final = text(f"""
    SELECT wanted.number, found.* FROM unnest(
        CAST(:spaces AS uuid[]), CAST(:lows AS bigint[]), CAST(:highs AS bigint[]),
        CAST(:probes AS jsonb[])
    ) WITH ORDINALITY AS wanted (space, low, high, probe, number)
    CROSS JOIN LATERAL (
        SELECT {_SHOWN} FROM changes c {_WHO}
        WHERE c.space_id = wanted.space AND c.position BETWEEN wanted.low AND wanted.high
          AND c.ops @> wanted.probe
        ORDER BY c.position DESC LIMIT :limit
    ) AS found
""")  # noqa: S608 - constants


def touching_all(
    connection: Connection, stretches: Sequence[Stretch], limit: int
) -> list[list[ChangeRow]]:
    """As `touching`, for many records in one statement: for each, the newest first."""
    values: dict[str, Any] = {
        "spaces": [one.space for one in stretches],
        "lows": [one.low for one in stretches],
        "highs": [one.high for one in stretches],
        "probes": [_probe((one.collection, one.id)) for one in stretches],
    }
    made: list[list[ChangeRow]] = [[] for _ in stretches]
    for number, *row in connection.execute(_STRETCHES, {**values, "limit": limit}):
        made[number - 1].append(ChangeRow(*row))
    return made


_AUTHORS: Final = text("""
    SELECT r.space_id, r.number, r.device_id, coalesce(d.name, ''), coalesce(u.email, '')
    FROM unnest(CAST(:spaces AS uuid[]), CAST(:numbers AS integer[])) AS wanted (space, number)
    JOIN replicas r ON r.space_id = wanted.space AND r.number = wanted.number
    LEFT JOIN devices d ON d.id = r.device_id LEFT JOIN users u ON u.id = d.user_id
""")


def authors(
    connection: Connection, wanted: Collection[tuple[UUID, int]]
) -> dict[tuple[UUID, int], tuple[str, str, str]]:
    """{(space, replica): (device, its name, its user's email)}, in one statement."""
    pairs = list(wanted)
    values = {"spaces": [pair[0] for pair in pairs], "numbers": [pair[1] for pair in pairs]}
    rows = connection.execute(_AUTHORS, values)
    return {(row[0], row[1]): (str(row[2]), row[3], row[4]) for row in rows}


def _probe(key: Key) -> str:
    return json.dumps([{"collection": key[0], "id": key[1]}])


_PAST: Final = """
    SELECT position, replica, counter, epoch, cursor, clock, at_corrected, ops::text FROM changes
    WHERE space_id = %s AND position <= %s AND ops @> %s::jsonb ORDER BY position
"""


def past(cur: Cursor, space_id: UUID, key: Key, position: int) -> list[PastChange]:
    """All changes up to the position that touched the record, in order."""
    cur.execute(_PAST, (space_id, position, _probe(key)))
    return [
        PastChange(at, Replica(replica), counter, _context(epoch, cursor, clock), time, ops)
        for at, replica, counter, epoch, cursor, clock, time, ops in cur
    ]


def _context(epoch: int, cursor: int, clock: Mapping[str, int] | None) -> CausalContext:
    counters = {Replica(int(replica)): counter for replica, counter in (clock or {}).items()}
    return CausalContext(Epoch(epoch), cursor, VectorClock(counters))


_NUMBER: Final = text("SELECT number FROM replicas WHERE space_id = :space AND device_id = :device")


def number_of(connection: Connection, space_id: UUID, device: UUID) -> int | None:
    """The device's number in the space; None: it never took part."""
    found: int | None = connection.scalar(_NUMBER, {"space": space_id, "device": device})
    return found


_MET: Final = text(f"""
    SELECT {_SHOWN}, c.space_id FROM changes c {_WHO}
    WHERE c.conflicts IS NOT NULL AND (c.space_id, c.position) < (:space, :position)
      AND (CAST(:only AS uuid) IS NULL OR c.space_id = :only)
    ORDER BY c.space_id DESC, c.position DESC LIMIT :limit
""")  # noqa: S608 - constants


def met(
    connection: Connection, only: UUID | None, before: tuple[UUID, int], limit: int
) -> list[tuple[UUID, ChangeRow]]:
    """(space, change) of changes that put a field in conflict, by space, the newest first."""
    values: dict[str, Any] = {"space": before[0], "position": before[1], "only": only}
    rows = connection.execute(_MET, {**values, "limit": limit})
    return [(row[-1], ChangeRow(*row[:-1])) for row in rows]
