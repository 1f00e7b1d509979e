"""Users and their devices.

Promises: an email has one account, whoever signs up at the same moment; a device belongs to one
user for ever, and a revoked or frozen one never comes back; whoever changes what a device may do
holds its row's lock, so a token issued at that moment is never overlooked.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, text

from storage import memberships


@dataclass(frozen=True, slots=True)
class User:
    """An account."""

    id: UUID
    email: str
    password_hash: str
    role: str
    personal_space_id: UUID


@dataclass(frozen=True, slots=True)
class Standing:
    """What a device may do: nothing where it is revoked or frozen. `role` is its user's."""

    user_id: UUID
    role: str
    revoked: bool
    frozen: bool


@dataclass(frozen=True, slots=True)
class Device:
    """A device as its user sees it."""

    id: UUID
    name: str
    platform: str
    app_version: str
    replaces: UUID | None
    created_at: datetime
    seen_at: datetime
    frozen_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Registration:
    """A device that logs in. What is None stays as it was."""

    id: UUID
    user_id: UUID
    name: str | None
    platform: str | None
    app_version: str | None
    replaces: UUID | None


# Users --------------------------------------------------------------------------------------

# Where two sign up at once, the second waits for the first and then inserts nothing.
_INSERT_USER: Final = text("""
    INSERT INTO users (id, email, password_hash, role, personal_space_id)
    VALUES (:id, :email, :password_hash, :role, :space_id)
    ON CONFLICT (email) DO NOTHING
    RETURNING id, email, password_hash, role, personal_space_id
""")


def create_user(
    connection: Connection, email: str, password_hash: str, role: str = "user"
) -> User | None:
    """The new account with its personal space; None: the email has one already."""
    space_id = uuid.uuid4()
    row = connection.execute(
        _INSERT_USER,
        {
            "id": uuid.uuid4(),
            "email": email,
            "password_hash": password_hash,
            "role": role,
            "space_id": space_id,
        },
    ).one_or_none()
    if row is None:
        return None
    user = User(*row)
    memberships.create_space(connection, space_id, "Personal", user.id, personal=True)
    return user


_USER_BY_EMAIL: Final = text("""
    SELECT id, email, password_hash, role, personal_space_id FROM users WHERE email = :email
""")


def user_by_email(connection: Connection, email: str) -> User | None:
    """The account of the email, which is in the form that `app.schemas.email_of` makes."""
    row = connection.execute(_USER_BY_EMAIL, {"email": email}).one_or_none()
    return None if row is None else User(*row)


_USER_OF_DEVICE: Final = text("""
    SELECT u.id, u.email, u.password_hash, u.role, u.personal_space_id
    FROM devices d JOIN users u ON u.id = d.user_id WHERE d.id = :id
""")


def user_of_device(connection: Connection, device_id: UUID) -> User:
    """The account that the device, which is there, belongs to."""
    return User(*connection.execute(_USER_OF_DEVICE, {"id": device_id}).one())


_SET_ROLE: Final = text("UPDATE users SET role = :role WHERE email = :email RETURNING id")
_SET_PASSWORD: Final = text("""
    UPDATE users SET password_hash = :password_hash WHERE email = :email RETURNING id
""")


def set_role(connection: Connection, email: str, role: str) -> bool:
    """Give the account the role; False: there is none."""
    found = connection.execute(_SET_ROLE, {"email": email, "role": role})
    return found.one_or_none() is not None


def set_password(connection: Connection, email: str, password_hash: str) -> UUID | None:
    """Give the account the password; its user's id, None: there is none."""
    values = {"email": email, "password_hash": password_hash}
    found: UUID | None = connection.scalar(_SET_PASSWORD, values)
    return found


# Devices ------------------------------------------------------------------------------------

_STANDING: Final = text("""
    SELECT u.id, u.role, d.revoked_at IS NOT NULL, d.frozen_at IS NOT NULL
    FROM devices d JOIN users u ON u.id = d.user_id
    WHERE d.id = :device_id AND d.user_id = :user_id
""")


def standing(connection: Connection, user_id: UUID, device_id: UUID) -> Standing | None:
    """What this user's device may do; None: it is not known, or another's."""
    values = {"device_id": device_id, "user_id": user_id}
    row = connection.execute(_STANDING, values).one_or_none()
    return None if row is None else Standing(*row)


# Weaker than FOR UPDATE: rows that refer to the device may be added meanwhile.
_LOCK: Final = text("""
    SELECT d.user_id, u.role, d.revoked_at IS NOT NULL, d.frozen_at IS NOT NULL
    FROM devices d JOIN users u ON u.id = d.user_id
    WHERE d.id = :id FOR NO KEY UPDATE OF d
""")


def lock_device(connection: Connection, device_id: UUID) -> Standing | None:
    """The device's standing, which stays so until this transaction ends."""
    row = connection.execute(_LOCK, {"id": device_id}).one_or_none()
    return None if row is None else Standing(*row)


_INSERT_DEVICE: Final = text("""
    INSERT INTO devices (id, user_id, created_at, seen_at) VALUES (:id, :user_id, :now, :now)
    ON CONFLICT (id) DO NOTHING
""")

# Only one in good standing: what is frozen or revoked stays as it was.
_UPDATE_DEVICE: Final = text("""
    UPDATE devices SET
        name = coalesce(:name, name), platform = coalesce(:platform, platform),
        app_version = coalesce(:app_version, app_version),
        replaces = coalesce(replaces, :replaces), seen_at = :now
    WHERE id = :id AND revoked_at IS NULL AND frozen_at IS NULL
""")


def register_device(connection: Connection, device: Registration, now: datetime) -> Standing | None:
    """Register the device, or bring it up to date, and lock it; None: it is another user's.

    An id that the server doesn't know is taken as it is: a database restored from a backup has
    lost the devices that came after, and their ids stand in the contexts of what they hold.
    """
    key = {"id": device.id, "user_id": device.user_id, "now": now}
    connection.execute(_INSERT_DEVICE, key)
    found = lock_device(connection, device.id)
    if found is None or found.user_id != device.user_id:
        return None
    values = {
        "name": device.name,
        "platform": device.platform,
        "app_version": device.app_version,
        "replaces": device.replaces,
    }
    connection.execute(_UPDATE_DEVICE, {**key, **values})
    return found


_FREEZE: Final = text("""
    UPDATE devices SET frozen_at = coalesce(frozen_at, :now)
    WHERE id = :id AND user_id = :user_id RETURNING id
""")


def freeze_device(connection: Connection, user_id: UUID, device_id: UUID, now: datetime) -> bool:
    """Freeze the user's device for good; False: it is another's.

    One that the server doesn't know any more is registered frozen: its twin must be stopped too.
    """
    key = {"id": device_id, "user_id": user_id, "now": now}
    connection.execute(_INSERT_DEVICE, key)
    return connection.execute(_FREEZE, key).one_or_none() is not None


_REVOKE: Final = text("""
    UPDATE devices SET revoked_at = coalesce(revoked_at, :now)
    WHERE id = :id AND user_id = :user_id RETURNING id
""")


def revoke_device(connection: Connection, user_id: UUID, device_id: UUID, now: datetime) -> bool:
    """Revoke the user's device for good; False: there is none of that id."""
    key = {"id": device_id, "user_id": user_id, "now": now}
    return connection.execute(_REVOKE, key).one_or_none() is not None


_DEVICES: Final = text("""
    SELECT d.id, d.name, d.platform, d.app_version, d.replaces, d.created_at,
           greatest(d.seen_at, to_timestamp(s.seen_at / 1000.0)), d.frozen_at, d.revoked_at
    FROM devices d LEFT JOIN device_states s ON s.device_id = d.id
    WHERE d.user_id = :user_id ORDER BY d.created_at, d.id
""")


def devices_of(connection: Connection, user_id: UUID) -> list[Device]:
    """All devices that the user ever had, the oldest first."""
    return [Device(*row) for row in connection.execute(_DEVICES, {"user_id": user_id})]
