"""How the devices stand, brought up to date for all of them at once: a sweep.

A device falls behind without doing anything, so nothing that it does can say so: a sweep writes
it down where lists can find it by an index. A diagnosis does not stand on it, but looks itself.

Promises: one sweep at a time, whoever asks; it writes only what changed.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

from storage.tables import SERVER_PLATFORM
from sync.diagnosis import CLOCK_OFF_MS, SILENT_MS, STUCK_MS

FLAGS: Final = ("revoked", "stuck", "quarantined", "clock_off", "lagging", "conflicts", "silent")
# A socket's device is seen so often by its worker's beat; a worker that died misses three.
ONLINE_MS: Final = 90_000
# So many of its own changes after a cursor are counted, not more.
OWN_COUNTED_MAX: Final = 1_000
# Any number: nobody else locks by it.
LOCK: Final = 7_310_992_004

# By others and not applied: what a device wrote itself it has, though its cursor, which it tells
# with its next request, stands before it. {r}eplica and {s}pace are the names in the query.
MISSED: Final = f"""
    SELECT s.head - r.cursor - (
               SELECT count(*) FROM changes c
               WHERE c.space_id = r.space_id AND c.replica = r.number AND c.position > r.cursor
                 AND c.counter > r.counter - least(s.head - r.cursor, {OWN_COUNTED_MAX})
           ) AS behind,
           (SELECT c.received_at FROM changes c
            WHERE c.space_id = r.space_id AND c.position > r.cursor AND c.replica <> r.number
            ORDER BY c.position LIMIT 1) AS since
"""  # noqa: S608 - a constant

_BEHIND: Final = text(f"""
    WITH lag AS MATERIALIZED (
        SELECT r.device_id, min(extract(epoch FROM d.seen_at) * 1000)::bigint AS seen_at,
               max(missed.behind) AS behind, min(missed.since) AS since
        FROM replicas r JOIN spaces s ON s.id = r.space_id
        JOIN devices d ON d.id = r.device_id
        JOIN memberships m ON m.space_id = r.space_id AND m.user_id = d.user_id
        CROSS JOIN LATERAL ({MISSED}) AS missed
        WHERE s.head > r.cursor AND r.cursor > 0 AND m.withdrawn_at IS NULL
          AND d.revoked_at IS NULL AND d.frozen_at IS NULL AND missed.since IS NOT NULL
        GROUP BY r.device_id
    ), caught_up AS (
        UPDATE device_states SET behind = 0, behind_since = NULL, growing_since = NULL
        WHERE behind > 0
          AND NOT EXISTS (SELECT FROM lag WHERE lag.device_id = device_states.device_id)
    )
    INSERT INTO device_states AS s (device_id, seen_at, behind, behind_since)
    SELECT device_id, seen_at, behind, since FROM lag ORDER BY device_id
    ON CONFLICT (device_id) DO UPDATE SET
        behind = excluded.behind, behind_since = excluded.behind_since,
        growing_since = CASE
            WHEN s.behind > 0 AND excluded.behind > s.behind THEN coalesce(s.growing_since, :now)
            WHEN excluded.behind < s.behind THEN NULL
            ELSE s.growing_since END
    WHERE (s.behind, s.behind_since) IS DISTINCT FROM (excluded.behind, excluded.behind_since)
""")  # noqa: S608 - a constant

_FLAGS: Final = text("""
    WITH active AS (
        SELECT d.id, s.*, greatest(s.seen_at, extract(epoch FROM d.seen_at) * 1000) AS seen,
               coalesce(s.worker <> '' AND s.seen_at > :now - :online, false) AS online
        FROM devices d LEFT JOIN device_states s ON s.device_id = d.id
        WHERE d.revoked_at IS NULL AND d.frozen_at IS NULL AND d.platform <> :server
    ), wanted (flag, device_id) AS MATERIALIZED (
        SELECT 'revoked', id FROM devices WHERE revoked_at IS NOT NULL OR frozen_at IS NOT NULL
        UNION ALL SELECT 'silent', id FROM active WHERE NOT online AND seen < :now - :silent
        UNION ALL SELECT 'lagging', id FROM active WHERE behind > 0 AND behind_since < :now - :stuck
        UNION ALL SELECT 'clock_off', id FROM active WHERE abs(clock_offset) > :clock_off
        UNION ALL SELECT 'stuck', id FROM active
            WHERE (online AND behind > 0 AND behind_since < :now - :stuck)
               OR (pending > 0 AND coalesce(pushed_at, 0) < reported_at
                   AND coalesce(oldest_pending_at + coalesce(clock_offset, 0), reported_at)
                       < :now - :stuck)
        UNION ALL SELECT DISTINCT 'quarantined', a.id
            FROM quarantine q JOIN replicas r ON (r.space_id, r.number) = (q.space_id, q.replica)
            JOIN active a ON a.id = r.device_id WHERE q.settled IS NULL
        UNION ALL SELECT DISTINCT 'conflicts', a.id
            FROM (SELECT DISTINCT space_id FROM records WHERE conflicts > 0) AS c
            JOIN replicas r ON r.space_id = c.space_id JOIN active a ON a.id = r.device_id
    ), dropped AS (
        DELETE FROM device_flags f WHERE NOT EXISTS (
            SELECT FROM wanted w WHERE w.flag = f.flag AND w.device_id = f.device_id)
    )
    INSERT INTO device_flags (flag, device_id) SELECT flag, device_id FROM wanted
    ON CONFLICT DO NOTHING
""")
_ALONE: Final = text("SELECT pg_try_advisory_xact_lock(:lock)")


def sweep(connection: Connection, now: int) -> bool:
    """Brings lag and flags up to date (`now` in ms); False: another does so at this moment."""
    if not connection.scalar(_ALONE, {"lock": LOCK}):
        return False
    connection.execute(_BEHIND, {"now": now})
    bounds = {
        "online": ONLINE_MS,
        "silent": SILENT_MS,
        "stuck": STUCK_MS,
        "clock_off": CLOCK_OFF_MS,
    }
    connection.execute(_FLAGS, {"now": now, "server": SERVER_PLATFORM, **bounds})
    return True
