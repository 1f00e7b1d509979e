"""The whole service in figures: what the overview shows."""

from __future__ import annotations

from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from storage.states import ONLINE_MS
from storage.tables import SERVER_PLATFORM

# Of spaces, and of what holds compaction back, so many are named.
NAMED_MAX: Final = 10

_COUNTS: Final = text("""
    SELECT (SELECT count(*) FROM users),
           (SELECT count(*) FROM devices WHERE platform <> :server),
           (SELECT count(*) FROM spaces),
           (SELECT count(*) FROM quarantine WHERE settled IS NULL),
           (SELECT count(*) FROM records WHERE conflicts > 0),
           (SELECT count(*) FROM records WHERE deleted),
           (SELECT min(behind_since) FROM device_states WHERE behind > 0),
           (SELECT max(behind) FROM device_states WHERE behind > 0)
""")


class Counts(NamedTuple):
    """How many there are. `oldest_lag`: since when the device that waits longest is behind."""

    users: int
    devices: int
    spaces: int
    quarantined: int
    conflicts: int
    tombstones: int
    oldest_lag: int | None
    most_behind: int | None


def counts(connection: Connection) -> Counts:
    """How many there are."""
    return Counts(*connection.execute(_COUNTS, {"server": SERVER_PLATFORM}).one())


_STATES: Final = text("""
    SELECT flag, count(*) FROM device_flags GROUP BY flag
    UNION ALL SELECT 'online', count(*) FROM device_states
        WHERE worker <> '' AND seen_at > :now - :online
    UNION ALL SELECT 'ok', (SELECT count(*) FROM devices WHERE platform <> :server)
                           - (SELECT count(DISTINCT device_id) FROM device_flags)
""")


def states(connection: Connection, now: int) -> dict[str, int]:
    """How many devices are in each state; one may be in several."""
    named = {"now": now, "online": ONLINE_MS, "server": SERVER_PLATFORM}
    rows = connection.execute(_STATES, named)
    return {state: count for state, count in rows}  # noqa: C416 - rows, not pairs


# A minute, 5 minutes, an hour, a day.
LAG_MS: Final = (60_000, 300_000, 3_600_000, 86_400_000)
_LAGS: Final = text("""
    SELECT width_bucket(:now - behind_since, CAST(:bounds AS bigint[])), count(*)
    FROM device_states WHERE behind > 0 AND behind_since IS NOT NULL GROUP BY 1
""")


def lags(connection: Connection, now: int) -> list[int]:
    """How many devices are behind for less than each of LAG_MS, and for longer than all."""
    rows = connection.execute(_LAGS, {"now": now, "bounds": list(LAG_MS)})
    counts = {int(row[0]): int(row[1]) for row in rows}
    return [counts.get(bucket, 0) for bucket in range(len(LAG_MS) + 1)]


class Minute(NamedTuple):
    """What went through within a minute."""

    minute: int
    requests: int
    changes: int
    bytes: int
    records: int
    refused: int


_TRAFFIC: Final = text("""
    SELECT minute, requests, changes, bytes, records, refused FROM traffic
    WHERE minute >= :since ORDER BY minute
""")


def traffic(connection: Connection, since: int) -> list[Minute]:
    """The traffic since then, minute by minute; a minute without any has no row."""
    return [Minute(*row) for row in connection.execute(_TRAFFIC, {"since": since})]


class Large(NamedTuple):
    """A space and its head."""

    id: UUID
    name: str
    head: int


_LARGEST: Final = text("SELECT id, name, head FROM spaces ORDER BY head DESC, id LIMIT :limit")


def largest(connection: Connection) -> list[Large]:
    """The spaces with the longest logs."""
    return [Large(*row) for row in connection.execute(_LARGEST, {"limit": NAMED_MAX})]


class Holder(NamedTuple):
    """What holds compaction back: tombstones that wait in a space, and the device whose cursor
    is the lowest there.
    """

    space: UUID
    name: str
    tombstones: int
    device: UUID | None
    email: str | None
    cursor: int | None
    head: int


# The same devices that `storage.upkeep` waits for.
_HOLDERS: Final = text("""
    SELECT s.id, s.name, waiting.n, low.device_id, low.email, low.cursor, s.head
    FROM (SELECT space_id, count(*) AS n FROM records WHERE deleted
          GROUP BY space_id ORDER BY n DESC LIMIT :limit) AS waiting
    JOIN spaces s ON s.id = waiting.space_id
    LEFT JOIN LATERAL (
        SELECT r.device_id, u.email, r.cursor FROM replicas r
        JOIN devices d ON d.id = r.device_id JOIN users u ON u.id = d.user_id
        JOIN memberships m ON m.space_id = r.space_id AND m.user_id = u.id
        WHERE r.space_id = s.id AND r.cursor > 0 AND d.revoked_at IS NULL
          AND d.frozen_at IS NULL AND m.withdrawn_at IS NULL
        ORDER BY r.cursor LIMIT 1
    ) AS low ON true
    ORDER BY waiting.n DESC
""")


def holders(connection: Connection) -> list[Holder]:
    """The spaces with the most tombstones, and who holds them back."""
    rows: Any = connection.execute(_HOLDERS, {"limit": NAMED_MAX})
    return [Holder(*row) for row in rows]
