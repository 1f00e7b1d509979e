"""One device as it stands now: in each of its spaces, and what happened with it lately."""

from __future__ import annotations

from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from storage.events import EVENTS_PER_DEVICE, NO_SPACE
from storage.states import MISSED
from sync.diagnosis import Event

# A user in more spaces is shown the first of them.
SPACES_MAX: Final = 200
# More conflicts in a space are counted as that many.
CONFLICTS_COUNTED_MAX: Final = 1_000


class SpaceRow(NamedTuple):
    """A device in a space of its user's. `replica` None: it never pushed nor applied anything.
    `quarantined`: open ones by error code.
    """

    id: UUID
    name: str
    personal: bool
    role: str
    withdrawn_at: int | None
    head: int
    epoch: int
    horizon: int
    replica: int | None
    counter: int
    position: int
    cursor: int
    cursor_epoch: int
    cursor_at: int
    reset_below: int
    behind: int
    behind_since: int | None
    quarantined: dict[str, int]
    conflicts: int


_SPACES: Final = text(f"""
    SELECT s.id, s.name, s.personal, m.role,
           (extract(epoch FROM m.withdrawn_at) * 1000)::bigint, s.head, s.epoch, s.horizon,
           r.number, coalesce(r.counter, 0), coalesce(r.position, 0), coalesce(r.cursor, 0),
           coalesce(r.cursor_epoch, 0),
           coalesce((extract(epoch FROM r.cursor_at) * 1000)::bigint, 0),
           coalesce(r.reset_below, 0),
           CASE WHEN missed.since IS NULL THEN 0 ELSE missed.behind END, missed.since,
           coalesce((
               SELECT jsonb_object_agg(code, n) FROM (
                   SELECT q.error->>'code' AS code, count(*) AS n FROM quarantine q
                   WHERE q.space_id = s.id AND q.replica = r.number AND q.settled IS NULL
                   GROUP BY 1) AS counted), '{{}}'),
           (SELECT count(*) FROM (
               SELECT FROM records c WHERE c.space_id = s.id AND c.conflicts > 0
               LIMIT {CONFLICTS_COUNTED_MAX}) AS few)
    FROM devices d JOIN memberships m ON m.user_id = d.user_id
    JOIN spaces s ON s.id = m.space_id
    LEFT JOIN replicas r ON r.space_id = s.id AND r.device_id = d.id
    LEFT JOIN LATERAL ({MISSED}) AS missed ON s.head > r.cursor
    WHERE d.id = :device ORDER BY s.personal DESC, s.id LIMIT {SPACES_MAX}
""")  # noqa: S608 - constants


def spaces_of(connection: Connection, device: UUID) -> list[SpaceRow]:
    """The spaces of the device's user, the personal one first, as the device stands in them."""
    return [SpaceRow(*row) for row in connection.execute(_SPACES, {"device": device})]


class EventRow(NamedTuple):
    """A row of a timeline: what happened within one minute, counted."""

    minute: int
    kind: str
    code: str
    space: UUID | None
    first_at: int
    last_at: int
    times: int
    changes: int
    rejected: int
    records: int


_EVENTS: Final = text("""
    SELECT minute, kind, code, nullif(space_id, :none), first_at, last_at, times, changes,
           rejected, records
    FROM events
    WHERE device_id = :device AND (minute, kind, code, space_id) < (:minute, :kind, :code, :space)
    ORDER BY minute DESC, kind DESC, code DESC, space_id DESC LIMIT :limit
""")
# Before all that can be.
_NEWEST: Final = (2**62, "", "", NO_SPACE)


def timeline(
    connection: Connection,
    device: UUID,
    before: tuple[int, str, str, UUID] | None,
    limit: int,
) -> list[EventRow]:
    """The device's events, the newest first; `before`: (minute, kind, code, space) of the last."""
    minute, kind, code, space = before or _NEWEST
    values: dict[str, Any] = {"minute": minute, "kind": kind, "code": code, "space": space}
    rows = connection.execute(
        _EVENTS, {**values, "device": device, "none": NO_SPACE, "limit": limit}
    )
    return [EventRow(*row) for row in rows]


def events_of(connection: Connection, device: UUID) -> tuple[Event, ...]:
    """All that is kept of the device's events, as a diagnosis takes them."""
    rows = timeline(connection, device, None, EVENTS_PER_DEVICE)
    return tuple(
        Event(e.kind, e.code, str(e.space or ""), *e[4:7], e.changes, e.rejected, e.records)
        for e in rows
    )
