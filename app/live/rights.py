"""Whoever is connected must still have the right to be: looked at every second.

Promise: a device that was revoked or replaced, and a membership that was withdrawn, end what they
allowed within 2 seconds, through whichever worker it was done, and though no hint tells: one
look asks for CHECKED_AT_ONCE of them, which is all of most workers.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from itertools import islice
from typing import Final, Protocol
from uuid import UUID

import gevent
from sqlalchemy import Engine

from app.auth import Principal
from app.errors import UNREACHABLE, sync_error
from storage.engine import one_statement
from storage.sql import cursor
from storage.standing import fallen_devices, withdrawn
from sync.errors import Conflict, Forbidden, SyncError, Unauthenticated

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
# A look takes PostgreSQL some 20 ms for so many.
CHECKED_AT_ONCE: Final = 10_000


class Holder(Protocol):
    """A socket's peer, by what it was let in."""

    @property
    def who(self) -> Principal | None:
        """None: not yet known, nothing is allowed."""

    def held_spaces(self) -> Collection[UUID]:
        """The spaces that it sees."""

    def fallen(self, error: SyncError) -> None:
        """The device may nothing any more. Must not block."""

    def withdrawn_from(self, space: UUID, error: SyncError) -> None:
        """The user may not see the space any more. Must not block."""


class Rights:
    """Looks after all holders of a worker."""

    def __init__(self) -> None:
        self._holders: dict[Holder, None] = {}
        self._looking: gevent.Greenlet | None = None

    def add(self, engine: Engine, holder: Holder) -> None:
        """Look after it, until `remove`."""
        self._holders[holder] = None
        if self._looking is None:
            self._looking = gevent.spawn(self._look_for_ever, engine)

    def remove(self, holder: Holder) -> None:
        """It has gone."""
        self._holders.pop(holder, None)

    def _look_for_ever(self, engine: Engine) -> None:
        while True:
            gevent.sleep(LOOK_SECONDS)
            try:
                self.look(engine)
            except UNREACHABLE as error:
                log.warning("no look at who may stay: %s", type(error).__name__)
            except Exception as error:  # noqa: BLE001 - logged; the next look must come
                sync_error(error)

    def look(self, engine: Engine) -> None:
        """One look at all, in as many statements as it takes."""
        holders = iter([holder for holder in self._holders if holder.who is not None])
        while some := list(islice(holders, CHECKED_AT_ONCE // 4)):
            self._look_at(engine, some)

    def _look_at(self, engine: Engine, holders: list[Holder]) -> None:
        devices = {holder.who.device_id for holder in holders if holder.who}
        members = {
            (space, holder.who.user_id)
            for holder in holders
            if holder.who
            for space in holder.held_spaces()
        }
        with one_statement(engine) as connection:
            fallen = fallen_devices(cursor(connection), devices)
            gone: set[tuple[UUID, UUID]] = set()
            asked = iter(members)
            while some := list(islice(asked, CHECKED_AT_ONCE)):
                gone |= withdrawn(cursor(connection), some)
        for holder in holders if fallen or gone else ():
            _tell(holder, fallen, gone)


def _tell(holder: Holder, fallen: dict[UUID, str], gone: set[tuple[UUID, UUID]]) -> None:
    who = holder.who
    if who is None:
        return
    if who.device_id in fallen:
        holder.fallen(_error(fallen[who.device_id]))
    for space in holder.held_spaces() if gone else ():
        if (space, who.user_id) in gone:
            holder.withdrawn_from(space, Forbidden("forbidden"))


def _error(how: str) -> SyncError:
    if how == "frozen":
        return Conflict("device_fork", "This device was replaced: log in as a new one.", known=[])
    if how == "revoked":
        return Unauthenticated("device_revoked")
    return Unauthenticated("token_invalid", "The server does not know this device: log in.")
