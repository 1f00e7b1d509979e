"""What an operator does to the log now and then: a new epoch, and dropping old tombstones."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy import Connection, text

# The vector clock by replica number, as `sync.clock.History` wants it.
_NEXT_EPOCH: Final = text("""
    INSERT INTO epochs (space_id, epoch, head, clock)
    SELECT s.id, greatest(s.epoch + 1, :at_least), s.head, coalesce(
        (SELECT jsonb_object_agg(number, counter) FROM replicas WHERE space_id = s.id), '{}')
    FROM spaces s
""")
_ADVANCE: Final = text("UPDATE spaces SET epoch = greatest(epoch + 1, :at_least)")


def start_next_epoch(connection: Connection, at_least: int = 1) -> int:
    """Begins the next epoch of every space and returns how many there are.

    For a database that was restored from a backup, before any device comes back. A database
    that is restored a second time from an older backup must be given an epoch above all that
    devices have heard of: `at_least`.
    """
    connection.execute(text("LOCK TABLE spaces IN EXCLUSIVE MODE"))
    connection.execute(_NEXT_EPOCH, {"at_least": at_least})
    return connection.execute(_ADVANCE, {"at_least": at_least}).rowcount


# Behind every device that may still come, or older than anyone is waited for. A device that
# applied nothing yet starts from nothing and needs no tombstone.
_HORIZON: Final = text("""
    SELECT greatest(
        (SELECT coalesce(min(least(r.cursor, s.head)), 0) FROM replicas r
         JOIN devices d ON d.id = r.device_id
         JOIN memberships m ON m.space_id = r.space_id AND m.user_id = d.user_id
         WHERE r.space_id = s.id AND r.cursor > 0 AND d.revoked_at IS NULL
           AND d.frozen_at IS NULL AND m.withdrawn_at IS NULL),
        (SELECT coalesce(max(c.position), 0) FROM changes c
         WHERE c.space_id = s.id AND c.received_at < :before)
    )
    FROM spaces s WHERE s.id = :space FOR NO KEY UPDATE OF s
""")
# The documents go with their records: a row that comes back later begins from nothing.
_DROP: Final = text("""
    WITH dropped AS (
        DELETE FROM records WHERE space_id = :space AND deleted AND position <= :horizon
        RETURNING collection, id
    ), emptied AS (
        DELETE FROM documents d USING dropped
        WHERE d.space_id = :space AND d.collection = dropped.collection AND d.id = dropped.id
    )
    SELECT count(*) FROM dropped
""")
_MOVE: Final = text("UPDATE spaces SET horizon = greatest(horizon, :horizon) WHERE id = :space")


def drop_tombstones(connection: Connection, space: UUID, before: int) -> int:
    """Drops the tombstones that no device needs, or that are from before `before` (ms since
    1970); returns how many. A device whose cursor is older than what was dropped is reset.
    """
    horizon = connection.execute(_HORIZON, {"space": space, "before": before}).scalar_one()
    values = {"space": space, "horizon": horizon}
    dropped: int = connection.execute(_DROP, values).scalar_one()
    if dropped:
        connection.execute(_MOVE, values)
    return dropped


_SPACES: Final = text("SELECT id FROM spaces ORDER BY id")


def every_space(connection: Connection) -> list[UUID]:
    """All spaces, for work that goes through them one transaction at a time."""
    return list(connection.execute(_SPACES).scalars())
