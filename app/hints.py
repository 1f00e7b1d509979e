"""That a space advanced. A hint is never data: it may come late, twice, or not at all.

Promises: who watches a space, then reads it, then waits, misses nothing that this process was
told; between processes hints go by a relay (app/relay.py), and what it loses is found within
LOOK_AGAIN_SECONDS by one look at all the spaces watched; who has seen what a hint tells is not
woken by it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol
from uuid import UUID

# Without a relay a hint from another process does not arrive: a long poll looks so often.
LOOK_AGAIN_SECONDS = 1.0

# (epoch, head): later ones are greater.
Stand = tuple[int, int]
NOWHERE: Stand = (0, 0)


class Wait(Protocol):
    """What `Hints.watch` gives."""

    def __call__(self, seconds: float, seen: Stand = NOWHERE) -> float: ...


class Watch:
    """Someone who is woken by what is news to them. `seen`: up to where they have looked."""

    def __init__(self, space: UUID, wake: Callable[[], None], seen: Stand = NOWHERE) -> None:
        self.space, self.wake, self.seen = space, wake, seen


class Hints:
    """In this process; `relay` is called with what was told here, for the other processes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watches: dict[UUID, set[Watch]] = {}
        self.relay: Callable[[UUID, Stand], None] | None = None

    def tell(self, space: UUID, epoch: int = 0, head: int = 0) -> None:
        """The space advanced, to `head` where that is known: who watches it may look."""
        if self.relay is not None:
            self.relay(space, (epoch, head))
        self.arrived(space, (epoch, head))

    def arrived(self, space: UUID, stand: Stand) -> None:
        """As `tell`, of a hint that the other processes have too. Of (0, 0) nobody knows."""
        with self._lock:
            woken = [
                watch
                for watch in self._watches.get(space, ())
                if stand == NOWHERE or watch.seen < stand
            ]
            for watch in woken:
                watch.seen = max(watch.seen, stand)
        for watch in woken:
            watch.wake()

    def add(self, watch: Watch) -> None:
        """From now on it is woken."""
        with self._lock:
            self._watches.setdefault(watch.space, set()).add(watch)

    def remove(self, watch: Watch) -> None:
        """It is not woken any more."""
        with self._lock:
            left = self._watches.get(watch.space, set())
            left.discard(watch)
            if not left:
                self._watches.pop(watch.space, None)

    def watched(self) -> list[UUID]:
        """The spaces that anyone watches."""
        with self._lock:
            return list(self._watches)

    @contextmanager
    def watch(self, space: UUID) -> Iterator[Wait]:
        """A function that waits for a hint, so many seconds at most, by who has looked up to a
        stand, and returns how long it took. A hint between two calls is not lost.
        """
        told = threading.Event()
        watch = Watch(space, told.set)

        def wait(seconds: float, seen: Stand = NOWHERE) -> float:
            began = time.monotonic()
            watch.seen = max(watch.seen, seen)
            told.wait(seconds if self.relay else min(seconds, LOOK_AGAIN_SECONDS))
            told.clear()
            # At least a little, so that a waiter's patience ends whatever happens.
            return max(time.monotonic() - began, 0.001)

        self.add(watch)
        try:
            yield wait
        finally:
            self.remove(watch)
