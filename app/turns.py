"""Pushes that come in together go to the database together.

A worker has many requests in hand, and each waits for its commit. One of them leads: it takes
along those that came while the last ones were being written, and one transaction reads, decides
and writes them all, in the statements that one alone would take. Nobody waits for company: who
comes alone goes at once.

Promises: nobody waits long for another's transaction; a turn that can't go along (its space is
locked by another, it is the device's first here, it is large) goes alone, and so do all whose
transaction failed, in which nothing was done; one's refusal is its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from app.access import Visit, require_right, space_id
from app.faults import said
from app.touched import Meeting, Records, keys_of, unpacked
from storage import opening
from storage.spaces import Asked, Space
from storage.sql import Cursor
from sync.answers import SpaceAnswer
from sync.errors import NotFound, SyncError
from sync.plan import Plan
from sync.requests import SpaceRequest

# Together they hold their spaces' locks for some milliseconds: a push of more goes alone.
TURNS_MAX: Final = 16
CHANGES_MAX: Final = 100
# A transaction takes milliseconds. One whose connection hangs must not hold up all that come.
PATIENCE_SECONDS: Final = 2.0

log = logging.getLogger(__name__)


Done = tuple[Space, Plan, SpaceAnswer]


@dataclass(slots=True, eq=False)
class Turn:
    """One device's push to one space, and the pull after it where it `pulls`. `done`: what came of
    it, committed; None: it goes alone.
    """

    visit: Visit
    name: str
    part: SpaceRequest
    pulls: bool = True
    done: Done | SyncError | None = None
    leads: bool = False
    called: threading.Event = field(default_factory=threading.Event)

    @property
    def may_join(self) -> bool:
        """Whether it is small, and asks for nothing unusual."""
        part = self.part
        return len(part.changes) <= CHANGES_MAX and part.discarded is None and part.page is None


def open_free(cur: Cursor, turns: list[Turn]) -> tuple[list[tuple[Turn, Meeting]], Records]:
    """Begins the transaction of those of the turns that can go together: their spaces locked, and
    the records that they name.
    """
    # Of those to one space the first; the others would be read for nothing.
    first: dict[UUID, tuple[Turn, Asked]] = {}
    for turn in turns:
        who, space = turn.visit.who, _space_id(turn.name)
        first.setdefault(space or who.user_id, (turn, (who.user_id, space, who.device_id)))
    asked = [*first.values()]
    wanted = [(at, key) for at, (turn, _) in enumerate(asked) for key in keys_of(turn.part)]
    opened, found = opening.begin(cur, [one for _, one in asked], wanted)
    joined = [
        (turn, Meeting(space, space.replica, turn.visit, turn.part))
        for turn, space in ((asked[at][0], space) for at, space in opened.items())
        if space.replica is not None and _may_write(space)
    ]
    return joined, unpacked(found)


def _space_id(name: str) -> UUID | None:
    # A name that names nothing is refused when its turn goes alone.
    try:
        return space_id(name)
    except NotFound:
        return UUID(int=0)


def _may_write(space: Space) -> bool:
    try:
        require_right(space, "write")
    except SyncError:
        return False
    return True


def give_way() -> None:
    """Lets what is ready in this worker go first: one turn of its loop, and no wait."""
    time.sleep(0)


class Turns:
    """The pushes of one worker that wait for the database."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.waiting: list[Turn] = []
        self._led = False

    @property
    def idle(self) -> bool:
        """Whether nobody goes or waits."""
        return not self._led and not self.waiting

    def take(self, turn: Turn, run: Callable[[list[Turn]], None]) -> None:
        """Has the turn run with others; its `done` says whether it was."""
        with self._lock:
            self.waiting.append(turn)
            turn.leads, self._led = not self._led, True
        try:
            if not (turn.leads or turn.called.wait(PATIENCE_SECONDS)):
                self._leave(turn)
            if turn.leads:
                # Requests that have arrived but were not read yet come along.
                give_way()
        except BaseException:
            self._leave(turn)
            raise
        if turn.leads:
            self._lead(run)

    def _lead(self, run: Callable[[list[Turn]], None]) -> None:
        with self._lock:
            turns, self.waiting = self.waiting[:TURNS_MAX], self.waiting[TURNS_MAX:]
        try:
            # None: who led at the same time has taken all along.
            if turns:
                run(turns)
        # Whoever it was about meets it again, alone.
        except Exception as error:  # noqa: BLE001
            log.warning("%d pushes go alone: %s", len(turns), said(error))
        finally:
            self._hand_over(turns)

    def _leave(self, turn: Turn) -> None:
        """Its request was ended while it waited, or its patience: nobody may wait for it to lead,
        nor it for who leads. Two may lead at once: neither waits for the other's locks.
        """
        with self._lock:
            if turn in self.waiting:
                self.waiting.remove(turn)
            called, turn.leads = turn.leads, False
            if not called:
                self._led = False
        if called:
            self._hand_over([])

    def _hand_over(self, turns: list[Turn]) -> None:
        with self._lock:
            heir = self.waiting[0] if self.waiting else None
            self._led = heir is not None
            if heir is not None:
                heir.leads = True
        for turn in (*turns, heir):
            if turn is not None:
                turn.called.set()
