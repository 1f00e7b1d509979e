"""That a space advanced. A hint is never data: it may come late, twice, or not at all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

# A hint from another process does not arrive here: a waiter looks again after so many seconds.
LOOK_AGAIN_SECONDS = 1.0

Wait = Callable[[float], float]


class Hints:
    """In this process: `watch` a space, then read it, then wait for what came since."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watches: dict[UUID, set[threading.Event]] = {}

    def tell(self, space: UUID) -> None:
        """The space advanced: whoever watches it may look; nobody else is woken."""
        with self._lock:
            for watch in self._watches.get(space, ()):
                watch.set()

    @contextmanager
    def watch(self, space: UUID) -> Iterator[Wait]:
        """A function that waits for a hint, so many seconds and a second at most, and returns how
        long it took. A hint between two calls is not lost.
        """
        told = threading.Event()

        def wait(seconds: float) -> float:
            began = time.monotonic()
            told.wait(min(seconds, LOOK_AGAIN_SECONDS))
            told.clear()
            # At least a little, so that a waiter's patience ends whatever happens.
            return max(time.monotonic() - began, 0.001)

        with self._lock:
            self._watches.setdefault(space, set()).add(told)
        try:
            yield wait
        finally:
            with self._lock:
                self._watches[space].discard(told)
                if not self._watches[space]:
                    del self._watches[space]
