"""The audit trail: who did what to whom, when and why. Rows are added, and never changed."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text


class Entry(NamedTuple):
    """A row to be added. It names by ids and holds no value that a user wrote."""

    at: int
    actor: UUID | None
    action: str
    user: UUID | None
    device: UUID | None
    space: UUID | None
    reason: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class AuditRow(NamedTuple):
    """A row of the trail. `email`: the actor's, where the account is still there."""

    id: int
    at: int
    actor: UUID | None
    email: str | None
    action: str
    user: UUID | None
    device: UUID | None
    space: UUID | None
    reason: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


_ADD: Final = text("""
    INSERT INTO audit (at, actor, action, user_id, device_id, space_id, reason, before, after)
    VALUES (:at, :actor, :action, :user, :device, :space, :reason,
            CAST(:before AS jsonb), CAST(:after AS jsonb))
    RETURNING id
""")


def add(connection: Connection, entry: Entry) -> int:
    """Adds the row, in the transaction of what it tells of; its number."""
    values = entry._asdict()
    for name in ("before", "after"):
        values[name] = None if values[name] is None else json.dumps(values[name], default=str)
    return int(connection.execute(_ADD, values).scalar_one())


_READ: Final = text("""
    SELECT a.id, a.at, a.actor, u.email, a.action, a.user_id, a.device_id, a.space_id, a.reason,
           a.before, a.after
    FROM audit a LEFT JOIN users u ON u.id = a.actor
    WHERE a.id < :before
      AND (CAST(:actor AS uuid) IS NULL OR a.actor = :actor)
      AND (CAST(:action AS text) IS NULL OR a.action = :action)
      AND (CAST(:subject AS uuid) IS NULL
           OR :subject IN (a.user_id, a.device_id, a.space_id))
    ORDER BY a.id DESC LIMIT :limit
""")
BEFORE_ALL: Final = 2**62


def read(
    connection: Connection,
    before: int,
    limit: int,
    *,
    actor: UUID | None = None,
    action: str | None = None,
    subject: UUID | None = None,
) -> list[AuditRow]:
    """The rows before that number, the newest first. `subject`: a user, a device or a space."""
    values = {"actor": actor, "action": action, "subject": subject}
    rows = connection.execute(_READ, {**values, "before": before, "limit": limit})
    return [AuditRow(*row) for row in rows]
