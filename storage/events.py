"""What happened with a device, minute by minute, and how it stands: written in bulk.

Promises: a device has at most `EVENTS_PER_DEVICE` rows and some, however often it asks; what two
workers saw within one minute is one row; nothing here waits for a row that a request holds, and
rows are written in one order, so that writers don't lock crosswise.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from storage.sql import Cursor

# A device that syncs every quarter of an hour has a week of them, a busy one some hours.
EVENTS_PER_DEVICE: Final = 200
# Rows a minute of traffic; a week of them is what a chart shows.
TRAFFIC_KEPT_MS: Final = 7 * 24 * 3_600_000
# In the place of a space's id, where an event is about no one space.
NO_SPACE: Final = UUID(int=0)


class Happened(NamedTuple):
    """One kind of event of a device within a minute. `space` None is the personal one. `email`:
    recorded only where the device is of this account, for what nobody has proved yet.
    """

    device: UUID
    minute: int
    kind: str
    code: str
    space: UUID | None
    email: str | None
    first_at: int
    last_at: int
    times: int
    changes: int
    rejected: int
    records: int


class Seen(NamedTuple):
    """What is newly known of a device; None: nothing new."""

    device: UUID
    seen_at: int
    pushed_at: int | None
    pulled_at: int | None
    clock_offset: int | None
    pending: int | None
    oldest_pending_at: int | None
    reported_at: int | None
    worker: str | None


class Traffic(NamedTuple):
    """What went through within a minute."""

    minute: int
    requests: int
    changes: int
    bytes: int
    records: int
    refused: int


_EVENTS: Final = """
    INSERT INTO events AS e (device_id, minute, kind, code, space_id, first_at, last_at, times,
                             changes, rejected, records)
    SELECT n.device, n.minute, n.kind, n.code, coalesce(n.space, u.personal_space_id),
           min(n.first_at), max(n.last_at), sum(n.times), sum(n.changes), sum(n.rejected),
           sum(n.records)
    FROM unnest(%s::uuid[], %s::bigint[], %s::text[], %s::text[], %s::uuid[], %s::text[],
                %s::bigint[], %s::bigint[], %s::int[], %s::bigint[], %s::bigint[], %s::bigint[])
        AS n (device, minute, kind, code, space, email, first_at, last_at, times, changes,
              rejected, records)
    JOIN devices d ON d.id = n.device JOIN users u ON u.id = d.user_id
    WHERE n.email IS NULL OR n.email = u.email
    GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT (device_id, minute, kind, code, space_id) DO UPDATE SET
        first_at = least(e.first_at, excluded.first_at),
        last_at = greatest(e.last_at, excluded.last_at), times = e.times + excluded.times,
        changes = e.changes + excluded.changes, rejected = e.rejected + excluded.rejected,
        records = e.records + excluded.records
"""
# A report and its age belong together: one without an oldest change ends an earlier one's.
_SEEN: Final = """
    INSERT INTO device_states AS s (device_id, seen_at, pushed_at, pulled_at, clock_offset,
                                    pending, oldest_pending_at, reported_at, worker)
    SELECT d.id, n.seen_at, n.pushed_at, n.pulled_at, n.clock_offset, n.pending, n.oldest,
           n.reported_at, coalesce(n.worker, '')
    FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[],
                %s::bigint[], %s::bigint[], %s::text[])
        AS n (device, seen_at, pushed_at, pulled_at, clock_offset, pending, oldest, reported_at,
              worker)
    JOIN devices d ON d.id = n.device ORDER BY d.id
    ON CONFLICT (device_id) DO UPDATE SET
        seen_at = greatest(s.seen_at, excluded.seen_at),
        pushed_at = greatest(s.pushed_at, excluded.pushed_at),
        pulled_at = greatest(s.pulled_at, excluded.pulled_at),
        clock_offset = coalesce(excluded.clock_offset, s.clock_offset),
        pending = coalesce(excluded.pending, s.pending),
        oldest_pending_at = CASE WHEN excluded.reported_at IS NULL THEN s.oldest_pending_at
                                 ELSE excluded.oldest_pending_at END,
        reported_at = coalesce(excluded.reported_at, s.reported_at),
        worker = CASE WHEN excluded.worker = '' THEN s.worker ELSE excluded.worker END
"""
_TRAFFIC: Final = """
    INSERT INTO traffic AS t (minute, requests, changes, bytes, records, refused)
    VALUES (%s, %s, %s, %s, %s, %s)
    ON CONFLICT (minute) DO UPDATE SET
        requests = t.requests + excluded.requests, changes = t.changes + excluded.changes,
        bytes = t.bytes + excluded.bytes, records = t.records + excluded.records,
        refused = t.refused + excluded.refused
"""
_GONE: Final = "UPDATE device_states SET worker = '' WHERE worker = %s AND device_id = ANY(%s)"
_BEAT: Final = "UPDATE device_states SET seen_at = %s WHERE worker = %s"
# Rows that a login holds are left for the next report.
_VERSION: Final = """
    UPDATE devices SET app_version = n.version
    FROM unnest(%s::uuid[], %s::text[]) AS n (device, version)
    WHERE devices.id = n.device AND devices.id IN (
        SELECT d.id FROM devices d JOIN unnest(%s::uuid[], %s::text[]) AS m (device, version)
            ON m.device = d.id AND m.version <> d.app_version
        ORDER BY d.id FOR NO KEY UPDATE OF d SKIP LOCKED)
"""
_PRUNE: Final = """
    DELETE FROM events e USING unnest(%s::uuid[]) AS n (device)
    WHERE e.device_id = n.device AND e.minute < (
        SELECT minute FROM events WHERE device_id = n.device
        ORDER BY minute DESC OFFSET %s LIMIT 1)
"""


def add(cur: Cursor, rows: Collection[Happened]) -> None:
    """Adds to the timelines."""
    if rows:
        cur.execute(_EVENTS, _columns(rows))


def see(cur: Cursor, rows: Collection[Seen]) -> None:
    """Brings the devices' states up to date, a row for each device."""
    if rows:
        cur.execute(_SEEN, _columns(rows))


def carry(cur: Cursor, rows: Iterable[Traffic]) -> None:
    """Adds to the traffic, the older minutes first."""
    for row in sorted(rows):
        cur.execute(_TRAFFIC, row)


def name_versions(cur: Cursor, versions: dict[UUID, str]) -> None:
    """The apps' versions, as the devices report them."""
    if versions:
        columns = (list(versions), list(versions.values()))
        cur.execute(_VERSION, (*columns, *columns))


def leave(cur: Cursor, worker: str, devices: Collection[UUID]) -> None:
    """The devices' sockets at this worker are closed; one open elsewhere stays."""
    if devices:
        cur.execute(_GONE, (worker, list(devices)))


def beat(cur: Cursor, worker: str, now: int) -> None:
    """All devices with a socket at this worker are seen: a worker that died says so no more."""
    cur.execute(_BEAT, (now, worker))


def prune(cur: Cursor, devices: Collection[UUID]) -> None:
    """Drops what is older than each device's newest `EVENTS_PER_DEVICE` rows."""
    if devices:
        cur.execute(_PRUNE, (list(devices), EVENTS_PER_DEVICE - 1))


def _columns(rows: Collection[tuple[Any, ...]]) -> tuple[list[Any], ...]:
    return tuple(list(column) for column in zip(*rows, strict=True))


_PRUNE_ALL: Final = text("""
    DELETE FROM events e USING (
        SELECT device_id, minute FROM (
            SELECT device_id, minute, row_number() OVER (
                PARTITION BY device_id ORDER BY minute DESC) AS n FROM events) AS numbered
        WHERE n = :most) AS oldest
    WHERE e.device_id = oldest.device_id AND e.minute < oldest.minute
""")
_FORGET_TRAFFIC: Final = text("DELETE FROM traffic WHERE minute < :before")


def forget(connection: Connection, now: int) -> int:
    """Prunes all timelines, and drops old traffic; returns how many events went: upkeep."""
    connection.execute(_FORGET_TRAFFIC, {"before": now - TRAFFIC_KEPT_MS})
    return connection.execute(_PRUNE_ALL, {"most": EVENTS_PER_DEVICE}).rowcount
