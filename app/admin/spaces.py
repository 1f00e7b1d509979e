"""A space and its log."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy import Connection

from app.admin.log_answers import Author, MemberShown, ReplicaShown, SpaceLog, SpaceShown
from app.admin.paging import page_of, read_page
from app.admin.records import authors, change_shown, named
from app.admin.sight import Sight
from storage import trail
from sync.changes import Natural
from sync.errors import NotFound

# Of a space with more of them, so many members and replicas are shown.
SHOWN_MAX: Final = 200


def space(connection: Connection, id_: UUID) -> SpaceShown:
    """A space with its members and its vector clock. Raises NotFound."""
    found = row_of(connection, id_)
    people = trail.members(connection, id_, SHOWN_MAX)
    clock = trail.replicas(connection, id_, SHOWN_MAX)
    return SpaceShown(
        *found,
        [MemberShown(*row) for row in people],
        [_replica(row, found.head) for row in clock],
    )


def log(
    connection: Connection,
    id_: UUID,
    page: str | None,
    limit: int,
    sight: Sight,
    *,
    before: int | None = None,
    device: UUID | None = None,
) -> SpaceLog:
    """A page of the log, the newest first: before a position, by one device. Raises NotFound."""
    found = row_of(connection, id_)
    token = read_page("log", page, tuple[Natural])
    high = token[0] if token else before or found.head + 1
    number = _number(connection, id_, device)
    rows = trail.log(connection, id_, high, limit + 1, number)
    shown, following = page_of("log", rows, limit, lambda row: [row.position])
    if following is None and rows and rows[-1].position > 1:
        # The bytes ended the page, not the log.
        _, following = page_of("log", [*rows, rows[-1]], len(rows), lambda row: [row.position])
    who = authors(connection, id_, named(rows))
    return SpaceLog(
        found.epoch, found.head, [change_shown(row, who, sight) for row in shown], following
    )


def row_of(connection: Connection, id_: UUID) -> trail.SpaceRow:
    """The space; raises NotFound."""
    found = trail.space(connection, id_)
    if found is None:
        raise NotFound("not_found", "There is no such space.")
    return found


def _number(connection: Connection, space_id: UUID, device: UUID | None) -> int | None:
    if device is None:
        return None
    number = trail.number_of(connection, space_id, device)
    if number is None:
        raise NotFound("not_found", "The device never took part in this space.")
    return number


def _replica(row: trail.ReplicaRow, head: int) -> ReplicaShown:
    author = Author(str(row.device), row.name, row.email)
    behind = max(head - row.cursor, 0)
    return ReplicaShown(
        author, row.counter, row.position, row.cursor, row.cursor_at, behind, row.active
    )
