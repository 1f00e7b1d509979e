"""Spaces as their members see them: who is in, and as what.

Promises: a shared space keeps at least one owner, however many changes come at once; a withdrawn
membership stays as a row, so that its devices are told `forbidden` while a stranger is told
nothing. Every query of one space names it first.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class Membership:
    """What a user is, or was, in a space."""

    role: str
    withdrawn: bool
    personal: bool


@dataclass(frozen=True, slots=True)
class SpaceSeen:
    """A space as one of its members sees it."""

    id: UUID
    name: str
    role: str
    personal: bool
    head: int
    epoch: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a space."""

    user_id: UUID
    email: str
    role: str


_INSERT_SPACE: Final = text("""
    INSERT INTO spaces (id, name, personal) VALUES (:id, :name, :personal)
""")
_INSERT_OWNER: Final = text("""
    INSERT INTO memberships (space_id, user_id, role) VALUES (:id, :owner, 'owner')
""")


def create_space(
    connection: Connection, space_id: UUID, name: str, owner: UUID, *, personal: bool = False
) -> None:
    """Make the space with its owner. Its first epoch, 1, began with nothing: it has no row."""
    connection.execute(_INSERT_SPACE, {"id": space_id, "name": name, "personal": personal})
    connection.execute(_INSERT_OWNER, {"id": space_id, "owner": owner})


_SPACES: Final = text("""
    SELECT s.id, s.name, m.role, s.personal, s.head, s.epoch, s.created_at
    FROM memberships m JOIN spaces s ON s.id = m.space_id
    WHERE m.user_id = :user_id AND m.withdrawn_at IS NULL
    ORDER BY s.personal DESC, s.created_at, s.id
""")


def spaces_of(connection: Connection, user_id: UUID) -> list[SpaceSeen]:
    """The spaces that the user may read: the personal one first, then the oldest."""
    return [SpaceSeen(*row) for row in connection.execute(_SPACES, {"user_id": user_id})]


_PERSONAL: Final = text("SELECT personal_space_id FROM users WHERE id = :user_id")


def personal_space(connection: Connection, user_id: UUID) -> UUID:
    """What `me` stands for."""
    found: UUID = connection.execute(_PERSONAL, {"user_id": user_id}).scalar_one()
    return found


_ROLE: Final = text("""
    SELECT m.role, m.withdrawn_at IS NOT NULL, s.personal
    FROM memberships m JOIN spaces s ON s.id = m.space_id
    WHERE m.space_id = :space_id AND m.user_id = :user_id
""")


def role_of(connection: Connection, space_id: UUID, user_id: UUID) -> Membership | None:
    """What the user is in the space; None: never was a member, or there is no such space."""
    row = connection.execute(_ROLE, {"space_id": space_id, "user_id": user_id}).one_or_none()
    return None if row is None else Membership(*row)


_MEMBERS: Final = text("""
    SELECT u.id, u.email, m.role FROM memberships m JOIN users u ON u.id = m.user_id
    WHERE m.space_id = :space_id AND m.withdrawn_at IS NULL
    ORDER BY m.created_at, u.id
""")


def members_of(connection: Connection, space_id: UUID) -> list[Member]:
    """The space's members, the oldest first."""
    return [Member(*row) for row in connection.execute(_MEMBERS, {"space_id": space_id})]


# In one order, so that two who lock them wait for each other instead of crosswise. A row that
# changed while this waited is looked at again: what comes back are the owners at that moment.
_LOCK_OWNERS: Final = text("""
    SELECT user_id FROM memberships
    WHERE space_id = :space_id AND role = 'owner' AND withdrawn_at IS NULL
    ORDER BY user_id FOR UPDATE
""")


def lock_owners(connection: Connection, space_id: UUID) -> frozenset[UUID]:
    """The space's owners; none can be taken away by others until this transaction ends."""
    return frozenset(connection.scalars(_LOCK_OWNERS, {"space_id": space_id}))


_SET_MEMBER: Final = text("""
    INSERT INTO memberships (space_id, user_id, role) VALUES (:space_id, :user_id, :role)
    ON CONFLICT (space_id, user_id) DO UPDATE SET role = excluded.role, withdrawn_at = NULL
""")
_WITHDRAW: Final = text("""
    UPDATE memberships SET withdrawn_at = :now
    WHERE space_id = :space_id AND user_id = :user_id AND withdrawn_at IS NULL
""")


def set_member(connection: Connection, space_id: UUID, user_id: UUID, role: str) -> None:
    """Make the user a member of that role, also one who was withdrawn."""
    values = {"space_id": space_id, "user_id": user_id, "role": role}
    connection.execute(_SET_MEMBER, values)


def withdraw(connection: Connection, space_id: UUID, user_id: UUID, now: datetime) -> None:
    """Withdraw the membership; one that is withdrawn already stays as it was."""
    connection.execute(_WITHDRAW, {"space_id": space_id, "user_id": user_id, "now": now})
