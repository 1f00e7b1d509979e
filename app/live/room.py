"""A room: the editors that have one document open in this worker.

It keeps no document. It is its members, and the position of the log up to which they were told.

Promises: what is typed is committed before anybody is told, its author too; one commit takes all
that came while the one before it ran; what can't be taken harms its author only; what others
write, through any door of any worker, is told to all members, and nothing is left out, for a
newcomer is a member before its first answer is read.
All of a worker runs in one thread: what doesn't block isn't interrupted, so there are no locks.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Final

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from app.auth import Principal
from app.errors import sync_error
from app.hints import NOWHERE
from app.hints import Stand as HintStand
from app.live.sockets import frame
from app.live.typed import RESTORED, Committed, DocumentKey, Stand, Typed, commit, written_after
from storage.engine import one_statement
from storage.sql import cursor
from sync import documents
from sync.awareness import AwarenessTable, Holder
from sync.errors import SyncError, Unavailable
from sync.yprotocol import Presence, write_awareness, write_update

if TYPE_CHECKING:
    from app.live.rooms import Rooms

# What waits for its commit, of one room: who types more waits, and is not read meanwhile.
TYPED_BYTES_MAX: Final = 16 * 2**20
TYPED_MAX: Final = 10_000
# Of all rooms; each has at least one update on its way.
ALL_TYPED_BYTES_MAX: Final = 128 * 2**20
# A commit is done within that, or the database is gone.
SETTLE_SECONDS: Final = 10


NOTHING_TOLD: Final = Stand(0, 0)


class Told:
    """A message to many sockets; as a websocket's frame it is made once."""

    def __init__(self, message: bytes) -> None:
        self.message = message

    @cached_property
    def framed(self) -> bytes:
        return frame(self.message)


class Member:
    """An editor in a room. Nothing here may block."""

    def __init__(self, who: Principal, holder: Holder, *, may_write: bool) -> None:
        self.who, self.holder, self.may_write = who, holder, may_write

    def tell(self, told: Told) -> None:
        """Something for all."""
        raise NotImplementedError

    def saved(self, count: int) -> None:
        """So many of the updates that it sent are committed."""

    def refuse(self, error: SyncError) -> None:
        """What it sent was not taken, and will not be."""
        raise NotImplementedError


class Room:
    """See the module. Made and forgotten by `Rooms`."""

    def __init__(self, rooms: Rooms, key: DocumentKey) -> None:
        self.key = key
        self.members: set[Member] = set()
        self.awareness = AwarenessTable()
        self.stand: Stand | None = None
        """Up to where the members were told; None before the first reading."""
        self.reading = BoundedSemaphore()
        self._rooms = rooms
        self._typed: list[Typed] = []
        self._typed_bytes = 0
        self._batch: list[Typed] = []
        self._taken, self._done = Event(), Event()
        # What is said to be new, and is not read yet.
        self._behind: HintStand | None = None
        self._worker: gevent.Greenlet | None = None

    # Members

    def enter(self, member: Member) -> None:
        """From now on it is told what comes after the state that `Rooms.state` reads next."""
        self.members.add(member)

    def leave(self, member: Member) -> None:
        """What it has typed is committed first. Blocks."""
        self.members.discard(member)
        gone = self.awareness.leave(member.holder.socket, time.monotonic())
        self._tell_presences(gone)
        self._rooms.relay_presences(self, member.holder, gone)
        self.settle(member)
        self._rooms.forget_empty(self)

    def settle(self, member: Member) -> None:
        """Wait until nothing that the member has typed is still to be committed."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while self._holds(member) and time.monotonic() < deadline:
            self._done.clear()
            self._done.wait(SETTLE_SECONDS)

    def _holds(self, member: Member) -> bool:
        return any(typed.member is member for typed in (*self._batch, *self._typed))

    def tell(self, message: bytes, *, but: Member | None = None) -> None:
        """To all members, or all but one."""
        told = Told(message)
        for member in tuple(self.members):
            if member is not but:
                member.tell(told)

    # Who is here

    def aware(self, member: Member, presences: Iterable[Presence]) -> int:
        """What an editor says of itself and others; how many of it were news.

        Raises `BadRequest` (`malformed_frame`).
        """
        told = self.awareness.apply(presences, member.holder, time.monotonic())
        self._tell_presences(told)
        self._rooms.relay_presences(self, member.holder, told)
        return len(told)

    def heard(self, presences: Iterable[Presence], holder: Holder) -> None:
        """As `aware`, from an editor at another worker."""
        self._tell_presences(self.awareness.apply(presences, holder, time.monotonic()))

    def _tell_presences(self, presences: list[Presence]) -> None:
        """The sender hears it too: an editor that hears nothing for 30 s believes it is cut off."""
        if presences:
            self.tell(write_awareness(presences))

    # What is typed

    def type(self, member: Member, update: bytes) -> None:
        """Takes an update, which its member hears of when it is committed. Blocks while too much
        waits. The update has been checked.
        """
        while self._typed and self._is_full(len(update)):
            self._taken.clear()
            self._taken.wait()
        self._typed.append(Typed(member, update))
        self._typed_bytes += len(update)
        self._rooms.typed_bytes += len(update)
        self._work()

    def _is_full(self, more: int) -> bool:
        return (
            self._typed_bytes + more > TYPED_BYTES_MAX
            or len(self._typed) >= TYPED_MAX
            or self._rooms.typed_bytes + more > ALL_TYPED_BYTES_MAX
        )

    # The log

    @property
    def empty(self) -> bool:
        """Nobody is here, and nothing is to be done."""
        return not (self.members or self._typed or self._worker)

    def begin(self, stand: Stand) -> None:
        """The first reading: what comes after it is told to the members."""
        if self.stand is None:
            self.stand = stand
            if self._behind is not None:
                self._work()

    def hinted(self, stand: HintStand) -> None:
        """The record has changed, perhaps by this room."""
        if self.stand is None or stand == NOWHERE or stand > self.stand:
            self._behind = max(self._behind or NOWHERE, stand)
            if self.stand is not None:
                self._work()

    def _work(self) -> None:
        if self._worker is None:
            self._worker = gevent.spawn(self._work_on)

    def _work_on(self) -> None:
        try:
            while self._typed or self._behind is not None:
                self._batch, self._typed, self._typed_bytes = self._typed, [], 0
                self._taken.set()
                self._attempt(self._batch)
                self._rooms.typed_bytes -= sum(len(typed.update) for typed in self._batch)
                self._batch = []
                self._done.set()
        finally:
            self._worker = None
            self._rooms.forget_empty(self)

    def _attempt(self, batch: list[Typed]) -> None:
        behind, self._behind = self._behind, None
        try:
            if behind is not None:
                self._catch_up(behind)
            if batch:
                self._finish(batch, self._commit(batch))
        except Exception as error:  # noqa: BLE001 - whatever it is, the next batch has its turn
            self._refuse({typed.member for typed in batch}, sync_error(error))
            self._rooms.doubt(self.key.space)

    def _refuse(self, members: Iterable[Member], error: SyncError) -> None:
        for member in tuple(members):
            member.refuse(error)

    def _commit(self, batch: list[Typed]) -> Committed:
        stand = self.stand or NOTHING_TOLD
        self._rooms.require_writers({typed.member.who.user_id for typed in batch})
        with self._rooms.engine.begin() as connection:
            now_ms = self._rooms.now_ms()
            return commit(connection, self.key, stand, batch, self._rooms.limits, now_ms)

    def _finish(self, batch: list[Typed], done: Committed) -> None:
        """Committed: now everybody may know."""
        if done.head:
            self.stand = Stand(done.epoch, done.head)
        if done.others is not None:
            self.tell(write_update(done.others))
        told = {m: update for m, update in done.saved.items() if m not in done.waiting}
        if told:
            self._tell_typed(told)
        for member, count in Counter(typed.member for typed in batch).items():
            if member in done.saved:
                member.saved(count)
        for member, error in done.refused.items():
            member.refuse(error)
        if done.saved:
            self._rooms.news.committed(self.key.space, done.epoch, done.before, done.head)
        self._rooms.unshown.show_later(self.key.space, done.unshown)

    def _tell_typed(self, saved: Mapping[Member, bytes]) -> None:
        if len(saved) == 1:
            ((author, update),) = saved.items()
            self.tell(write_update(update), but=author)
        else:
            self.tell(write_update(documents.merge(list(saved.values()))))

    def _catch_up(self, hinted: HintStand) -> None:
        """Reads what others wrote. It stands in the log as far as the hint said, at least."""
        stand = self.stand or NOTHING_TOLD
        if hinted[0] > stand.epoch:
            self._refuse(self.members, Unavailable("unavailable", RESTORED))
            return
        with one_statement(self._rooms.engine) as connection:
            others = written_after(cursor(connection), self.key, stand.position)
        self.stand = max(stand, Stand(*hinted))
        if others is not None:
            self.tell(write_update(others))
