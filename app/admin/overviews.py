"""The whole service in figures, and the audit trail."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from msgspec import Struct
from sqlalchemy import Connection

from app.admin.paging import page_of, read_page
from storage import audit, overview
from sync.changes import Natural
from sync.diagnosis import HOUR

TRAFFIC_MS: Final = 3 * HOUR


class MinuteShown(Struct, frozen=True):
    """What went through within a minute; `minute` in ms since 1970."""

    minute: int
    requests: int
    changes: int
    bytes: int
    records: int
    refused: int


class LargeSpace(Struct, frozen=True):
    """A space with a long log."""

    id: UUID
    name: str
    head: int


class HeldBack(Struct, frozen=True):
    """Tombstones that wait in a space, and the device whose cursor is the lowest there."""

    space: UUID
    name: str
    tombstones: int
    device: UUID | None
    email: str | None
    cursor: int | None
    head: int


class Overview(Struct, frozen=True):
    """`states`: devices by state, as the last sweep found them; one may be in several.
    `oldest_lag`: since when the device that waits longest is behind, ms since 1970. `lag`: how
    many are behind for less than a minute, 5 minutes, an hour, a day, and for longer.
    """

    at: int
    users: int
    devices: int
    spaces: int
    quarantined: int
    conflicts: int
    tombstones: int
    oldest_lag: int | None
    most_behind: int | None
    states: dict[str, int]
    lag: list[int]
    traffic: list[MinuteShown]
    largest: list[LargeSpace]
    held_back: list[HeldBack]


class AuditShown(Struct, frozen=True):
    """A row of the audit trail. `email`: the actor's, where the account is still there."""

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


class AuditTrail(Struct, frozen=True):
    """A page of the audit trail, the newest first."""

    entries: list[AuditShown]
    page: str | None


def figures(connection: Connection, now: int) -> Overview:
    """The service at this moment."""
    return Overview(
        now,
        *overview.counts(connection),
        overview.states(connection, now),
        overview.lags(connection, now),
        [MinuteShown(*row) for row in overview.traffic(connection, now - TRAFFIC_MS)],
        [LargeSpace(*row) for row in overview.largest(connection)],
        [HeldBack(*row) for row in overview.holders(connection)],
    )


def audit_trail(
    connection: Connection,
    page: str | None,
    limit: int,
    *,
    actor: UUID | None = None,
    action: str | None = None,
    subject: UUID | None = None,
) -> AuditTrail:
    """Who did what, the newest first."""
    token = read_page("audit", page, tuple[Natural])
    before = token[0] if token else audit.BEFORE_ALL
    rows = audit.read(connection, before, limit + 1, actor=actor, action=action, subject=subject)
    shown, following = page_of("audit", rows, limit, lambda row: [row.id])
    return AuditTrail([AuditShown(*row) for row in shown], following)
