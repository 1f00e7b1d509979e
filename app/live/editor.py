"""An editor: one client in one room, in whichever envelope its frames come."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Final
from uuid import UUID

from app.access import open_space
from app.auth import Principal
from app.live.room import Member, Room
from app.live.rooms import Rooms
from app.live.typed import DocumentKey
from app.rights import RIGHTS
from storage.engine import one_statement
from storage.sql import cursor
from sync import documents
from sync.errors import Refused, SyncError, TooMany, Unauthenticated
from sync.session import WARN_MS
from sync.values import check_text
from sync.yprotocol import (
    Awareness,
    Message,
    QueryAwareness,
    Step1,
    Step2,
    Update,
    write_awareness,
    write_step_1,
    write_step_2,
)

# An answer takes the whole document, and the states of all. A provider asks when it connects, and
# every few seconds where its app wants that.
ANSWERS_AT_ONCE, ANSWERS_PER_SECOND = 20, 2.0
# Of news about oneself: a pointer that is followed tells some sixty a second.
PRESENCES_AT_ONCE, PRESENCES_PER_SECOND = 1_000, 200.0
# The app may not have a fresh token at once.
WARN_AGAIN_MS: Final = 15_000
NOTHING_KNOWN: Final = b"\0"


class Allowance:
    """So many at once, and so many a second on average."""

    def __init__(self, most: float, per_second: float) -> None:
        self._left, self._most, self._per_second = most, most, per_second
        self._at = time.monotonic()

    def take(self, count: int = 1) -> None:
        """Raises `TooMany` (`too_fast`)."""
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._at) * self._per_second) - count
        self._at = now
        if self._left < 0:
            raise TooMany("too_fast")


def door(rooms: Rooms, who: Principal, space: str, *names: str) -> tuple[DocumentKey, bool]:
    """The document, and whether this user may write in it. Blocks.

    Raises `SyncError` for who may not read, and `Refused` (`invalid_id`) for what names none.
    """
    for name in names:
        if not 1 <= len(name) <= rooms.limits.id_chars:
            raise Refused("invalid_id")
        check_text(name)
    with one_statement(rooms.engine) as connection:
        found = open_space(cursor(connection), who, space, "read")
    return DocumentKey(found.id, *names), "write" in RIGHTS[found.role]


class Editor(Member):
    """`send` is the subclass's way to its client; so are `saved` and `refuse`."""

    def __init__(
        self, rooms: Rooms, key: DocumentKey, who: Principal, until: int, *, may_write: bool
    ) -> None:
        """`until`: when the token ends, ms since 1970."""
        super().__init__(who, rooms.holder(who), may_write=may_write)
        self.key = key
        self._room: Room | None = None
        self._until, self._warned_at = until, 0
        self._rooms = rooms
        self._answers = Allowance(ANSWERS_AT_ONCE, ANSWERS_PER_SECOND)
        self._presences = Allowance(PRESENCES_AT_ONCE, PRESENCES_PER_SECOND)

    @property
    def room(self) -> Room:
        """It is in, once it has entered."""
        if self._room is None:
            raise RuntimeError("an editor that has not entered its room")
        return self._room

    def send(self, message: bytes) -> None:
        """To this client alone."""
        raise NotImplementedError

    def may_not(self) -> None:
        """A viewer has typed: nobody else will see it."""

    def enter(self) -> None:
        """Come in, and be told who is here. Blocks."""
        self._rooms.hub.rights.add(self._rooms.engine, self)
        self._room = self._rooms.enter(self.key, self)
        self._rooms.state(self._room, self.who)
        self._tell_who_is_here()

    def ask(self) -> None:
        """What does the client have that the server lacks? Blocks."""
        self.send(write_step_1(self._rooms.state(self.room, self.who).vector))

    def leave(self) -> None:
        """Blocks until what was typed is committed."""
        self._rooms.hub.rights.remove(self)
        if self._room is not None:
            self._room.leave(self)

    def renew(self, who: Principal, until: int) -> None:
        """A fresh token. Raises `Unauthenticated` where it is another's."""
        if (who.user_id, who.device_id) != (self.who.user_id, self.who.device_id):
            raise Unauthenticated("token_invalid", "The token is another device's.")
        self._until = until

    def look_at_the_time(self) -> None:
        """Every second: an expired token ends this."""
        now = self._rooms.now_ms()
        if self._until <= now:
            self.refuse(Unauthenticated("token_expired"))
        elif self._until - now <= WARN_MS and now - self._warned_at >= WARN_AGAIN_MS:
            self._warned_at = now
            self.expires_soon()

    def expires_soon(self) -> None:
        """The token ends within a minute."""

    # What rights.py looks after

    def held_spaces(self) -> Collection[UUID]:
        return (self.key.space,)

    def fallen(self, error: SyncError) -> None:
        self.refuse(error)

    def withdrawn_from(self, space: UUID, error: SyncError) -> None:  # noqa: ARG002 - the only one
        self.refuse(error)

    # The conversation

    def hear(self, message: Message) -> None:
        """Blocks. Raises `SyncError` at what can't be taken, which has changed nothing."""
        if isinstance(message, Update):
            self._type(message.update)
        elif isinstance(message, Step2):
            self._give_back(message.update)
        elif isinstance(message, Awareness):
            self._presences.take(self.room.aware(self, message.presences))
        elif isinstance(message, Step1):
            self._answer(message)
        elif isinstance(message, QueryAwareness):
            self._answers.take()
            self._tell_who_is_here()

    def _answer(self, step: Step1) -> None:
        self._answers.take()
        state = self._rooms.state(self.room, self.who)
        fresh = step.vector == NOTHING_KNOWN
        self.send(
            write_step_2(state.update if fresh else documents.diff(state.update, step.vector))
        )

    def _tell_who_is_here(self) -> None:
        presences = self.room.awareness.standing(time.monotonic())
        if presences:
            self.send(write_awareness(presences))

    def _type(self, update: bytes) -> None:
        if update == documents.NOTHING:
            self.saved(1)
        elif not self.may_write:
            self.may_not()
        else:
            documents.check_update(update, self._rooms.limits.document_update_bytes)
            self.room.type(self, update)

    def _give_back(self, update: bytes) -> None:
        """What the server lacked. With it comes all that was ever deleted, mostly nothing new."""
        self._answers.take()
        documents.check_update(update, self._rooms.limits.document_update_bytes)
        # Often it brings again what was typed a moment ago.
        self.room.settle(self)
        state = self._rooms.state(self.room, self.who)
        if documents.holds(state.update, update):
            self.saved(1)
        else:
            self._type(update)
