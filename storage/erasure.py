"""Erasing a user: every row that is theirs, in one transaction, counted.

Decisions (docs/adr/0007-support.md):
* a space in which nobody else is a member goes whole: log, records, documents,
  quarantine, epochs, replicas;
* of a shared space the others keep what was merged, as the devices that hold it do: what the user
  wrote there stays in the log under the ids of devices that name nobody any more; what was put
  aside unmerged goes;
* a space that would be left without an owner gets its oldest member as its owner;
* the audit trail names by ids, and stays.
"""

from __future__ import annotations

from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Select, Table, delete, exists, or_, select, text

from storage import tables


class Subject(NamedTuple):
    """Who is erased: the spaces that are theirs alone, and those that they share."""

    user: UUID
    email: str
    role: str
    own: list[UUID]
    shared: list[UUID]


# Whoever pushes as one of these devices meanwhile waits, and then finds nothing.
_LOCK_USER: Final = text("SELECT id, email, role FROM users WHERE id = :user FOR UPDATE")
_LOCK_DEVICES: Final = text("""
    SELECT id FROM devices WHERE user_id = :user ORDER BY id FOR UPDATE
""")
_LOCK_SPACES: Final = text("""
    SELECT s.id FROM spaces s JOIN memberships m ON m.space_id = s.id AND m.user_id = :user
    ORDER BY s.id FOR UPDATE OF s
""")
# All members of their spaces: one who was withdrawn may be let in again.
_LOCK_MEMBERS: Final = text("""
    SELECT FROM memberships
    WHERE space_id IN (SELECT space_id FROM memberships WHERE user_id = :user)
    ORDER BY space_id, user_id FOR UPDATE
""")
_SPACES: Final = text("""
    SELECT m.space_id, NOT EXISTS (
        SELECT FROM memberships o
        WHERE o.space_id = m.space_id AND o.user_id <> :user AND o.withdrawn_at IS NULL
    ) AS own
    FROM memberships m WHERE m.user_id = :user ORDER BY m.space_id
""")
# A large space takes longer than a request's statement may.
_UNHURRIED: Final = text("SET LOCAL statement_timeout = 0")


def subject(connection: Connection, user: UUID) -> Subject | None:
    """The user with all their rows locked until the transaction ends; None: there is none."""
    connection.execute(_UNHURRIED)
    values = {"user": user}
    # In the order in which requests take them: members are invited, spaces pushed to by devices.
    connection.execute(_LOCK_MEMBERS, values)
    connection.execute(_LOCK_SPACES, values)
    row = connection.execute(_LOCK_USER, values).one_or_none()
    if row is None:
        return None
    connection.execute(_LOCK_DEVICES, values)
    # A locked user comes into no more spaces, a locked space gets no more members: what came
    # while this waited is locked too, and only then, by a statement of its own, is it read.
    connection.execute(_LOCK_SPACES, values)
    connection.execute(_LOCK_MEMBERS, values)
    spaces = connection.execute(_SPACES, values).all()
    own = [space for space, alone in spaces if alone]
    id_, email, role = row
    return Subject(id_, email, role, own, [space for space, alone in spaces if not alone])


def _steps(who: Subject) -> list[tuple[Table, ColumnElement[bool]]]:
    """What goes, in the order of what refers to what."""
    mine = select(tables.devices.c.id).where(tables.devices.c.user_id == who.user)
    by_space = [
        (table, table.c.space_id.in_(who.own))
        for table in (
            tables.changes,
            tables.documents,
            tables.records,
            tables.discarded,
            tables.replicas,
            tables.epochs,
        )
    ]
    by_device = [
        (table, table.c.device_id.in_(mine))
        for table in (
            tables.events,
            tables.device_flags,
            tables.device_states,
            tables.refresh_tokens,
        )
    ]
    counted = tables.login_failures.c.subject.in_([f"account:{who.email}", f"member:{who.user}"])
    of_space = tables.memberships.c.space_id.in_(who.own)
    return [
        (tables.quarantine, _put_aside(who, mine)),
        *by_space,
        *by_device,
        (tables.memberships, or_(tables.memberships.c.user_id == who.user, of_space)),
        (tables.spaces, tables.spaces.c.id.in_(who.own)),
        (tables.devices, tables.devices.c.user_id == who.user),
        (tables.login_failures, counted),
        (tables.users, tables.users.c.id == who.user),
    ]


def _put_aside(who: Subject, mine: Select[tuple[UUID]]) -> ColumnElement[bool]:
    """In their own spaces all of it, in shared ones what their devices sent."""
    put_aside, replicas = tables.quarantine.c, tables.replicas.c
    theirs = exists().where(
        replicas.space_id == put_aside.space_id,
        replicas.number == put_aside.replica,
        replicas.space_id.in_(who.shared),
        replicas.device_id.in_(mine),
    )
    return or_(put_aside.space_id.in_(who.own), theirs)


# Oldest first, whatever their role: somebody has to be able to invite and to leave.
_INHERIT: Final = text("""
    UPDATE memberships m SET role = 'owner'
    FROM (
        SELECT DISTINCT ON (space_id) space_id, user_id FROM memberships
        WHERE space_id = ANY(:shared) AND withdrawn_at IS NULL
          AND space_id NOT IN (SELECT space_id FROM memberships
                               WHERE space_id = ANY(:shared) AND role = 'owner'
                                 AND withdrawn_at IS NULL)
        ORDER BY space_id, created_at, user_id
    ) AS heir
    WHERE m.space_id = heir.space_id AND m.user_id = heir.user_id
""")


def erase(connection: Connection, who: Subject) -> dict[str, int]:
    """Erases the user, and returns how many rows went from each table."""
    counts = {
        table.name: connection.execute(delete(table).where(condition)).rowcount
        for table, condition in _steps(who)
    }
    connection.execute(_INHERIT, {"shared": who.shared})
    return counts


_KEPT: Final = text("""
    SELECT count(*) FROM changes c JOIN replicas r ON r.space_id = c.space_id
        AND r.number = c.replica
    WHERE c.space_id = ANY(:shared) AND r.device_id IN (
        SELECT id FROM devices WHERE user_id = :user)
""")


def kept(connection: Connection, who: Subject) -> int:
    """How many of the user's changes stay with the others in shared spaces. Ask before erasing."""
    values = {"shared": who.shared, "user": who.user}
    return int(connection.execute(_KEPT, values).scalar_one())
