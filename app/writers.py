"""The server's own replicas: through one of them a user writes who is here without a device's log.

What is typed into an open document has no device that counts changes. Each user has one replica
for it, with the platform `rejoin`; the space's lock orders its counters, whatever the worker.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID, uuid5

from sqlalchemy import Connection

from app.auth import Principal
from storage import accounts
from storage.accounts import Registration
from storage.tables import SERVER_PLATFORM

PLATFORM: Final = SERVER_PLATFORM
NAME: Final = "Open documents"
# What staff write goes through one of their own: app/admin/writing.py.
SUPPORT: Final = "Support"


def writer_of(user_id: UUID) -> UUID:
    """The device that stands for the user's open documents, in every log."""
    return uuid5(user_id, PLATFORM)


def is_writer(user_id: UUID, device_id: UUID) -> bool:
    """Whether it is none of the user's own: nobody carries it, or may lose it."""
    return device_id in {writer_of(user_id), uuid5(user_id, SUPPORT)}


def as_writer(who: Principal) -> Principal:
    """The same user, through that device."""
    return replace(who, device_id=writer_of(who.user_id))


def register(connection: Connection, user_id: UUID, now: datetime) -> None:
    """Make it, where there is none yet."""
    made = Registration(writer_of(user_id), user_id, NAME, PLATFORM, None, None)
    accounts.register_device(connection, made, now)
