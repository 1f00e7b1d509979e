"""What is new in a space, for all its rooms in this worker: one look at the log, not one for each.

A space may have hundreds of documents open, and each letter typed in one of them is a hint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol
from uuid import UUID

import gevent
from sqlalchemy import Engine

from app.errors import sync_error
from app.hints import NOWHERE, Hints, Stand, Watch
from storage import records
from storage.engine import one_statement
from storage.sql import cursor
from sync.changes import Key

# Where a device brought weeks at once, all rooms look for themselves.
CHANGED_MAX = 1_000


class Listener(Protocol):
    """A room."""

    def hinted(self, stand: Stand) -> None:
        """Its record has changed, not after that, or nobody knows where. Must not block."""


class News:
    """Those of one space. Made with its first room, gone with its last."""

    def __init__(self, space: UUID, engine: Engine) -> None:
        self.space = space
        self.watch = Watch(space, self._wake)
        self._engine = engine
        self._listeners: dict[Key, set[Listener]] = {}
        self._looked: Stand | None = None
        self._looking = self._woken = False

    def __bool__(self) -> bool:
        return bool(self._listeners)

    def add(self, key: Key, listener: Listener) -> None:
        """Tell it of what comes from now on."""
        self._listeners.setdefault(key, set()).add(listener)

    def remove(self, key: Key, listener: Listener) -> None:
        """No more."""
        left = self._listeners.get(key, set())
        left.discard(listener)
        if not left:
            self._listeners.pop(key, None)

    def committed(self, epoch: int, before: int, head: int) -> None:
        """A room has written all that stands after `before`, up to the head: that is no news."""
        if self._looked and self._looked[0] == epoch and self._looked[1] >= before:
            self._looked = max(self._looked, (epoch, head))
            self.watch.seen = max(self.watch.seen, self._looked)

    def doubt(self) -> None:
        """A room could not read what was new to it: the next look is for all of them."""
        self._looked, self.watch.seen = None, NOWHERE

    def _wake(self) -> None:
        self._woken = True
        if not self._looking:
            self._looking = True
            gevent.spawn(self._look)

    def _look(self) -> None:
        try:
            while self._woken:
                self._woken, stand = False, self.watch.seen
                self._tell(self._changed(), stand)
                self._looked = max(self._looked or NOWHERE, stand)
        except Exception as error:  # noqa: BLE001 - logged; who looks for lost hints comes by
            sync_error(error)
            self.doubt()
        finally:
            self._looking = False

    def _changed(self) -> Iterable[Key]:
        """The records that changed after the last look; all, where that was in another history."""
        if self._looked is None or self._looked[0] != self.watch.seen[0]:
            return list(self._listeners)
        with one_statement(self._engine) as connection:
            after = self._looked[1]
            found = records.changed_after(cursor(connection), self.space, after, CHANGED_MAX + 1)
        return found if len(found) <= CHANGED_MAX else list(self._listeners)

    def _tell(self, keys: Iterable[Key], stand: Stand) -> None:
        for key in keys:
            for listener in tuple(self._listeners.get(key, ())):
                listener.hinted(stand)


class Newsroom:
    """All spaces with rooms in this worker."""

    def __init__(self, hints: Hints, engine: Callable[[], Engine]) -> None:
        self._hints, self._engine = hints, engine
        self._spaces: dict[UUID, News] = {}

    def follow(self, space: UUID, key: Key, listener: Listener) -> None:
        """Tell it of what happens to the record from now on."""
        news = self._spaces.get(space)
        if news is None:
            news = self._spaces[space] = News(space, self._engine())
            self._hints.add(news.watch)
        news.add(key, listener)

    def leave(self, space: UUID, key: Key, listener: Listener) -> None:
        """No more."""
        news = self._spaces.get(space)
        if news is not None:
            news.remove(key, listener)
            if not news:
                self._hints.remove(news.watch)
                del self._spaces[space]

    def doubt(self, space: UUID) -> None:
        """See `News.doubt`."""
        if space in self._spaces:
            self._spaces[space].doubt()

    def committed(self, space: UUID, epoch: int, before: int, head: int) -> None:
        """A room has written this; everybody else is told."""
        news = self._spaces.get(space)
        if news is not None:
            news.committed(epoch, before, head)
        self._hints.tell(space, epoch, head)
