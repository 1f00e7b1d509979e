"""Users: found."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection

from app.admin.answers import UserFound, UsersFound
from app.admin.paging import page_of, read_page
from storage import search
from sync.errors import NotFound


def users(
    connection: Connection, email: str | None, id_: UUID | None, page: str | None, limit: int
) -> UsersFound:
    """The users whose email begins so, or of that id, page by page."""
    after = read_page("users", page, tuple[UUID])
    rows = search.users_found(connection, email, id_, after[0] if after else None, limit + 1)
    shown, token = page_of("users", rows, limit, lambda row: [row.id])
    return UsersFound([UserFound(*row) for row in shown], token)


def user(connection: Connection, id_: UUID) -> UserFound:
    """One user; raises NotFound."""
    rows = search.users_found(connection, None, id_, None, 1)
    if not rows:
        raise NotFound("not_found", "There is no such user.")
    return UserFound(*rows[0])
