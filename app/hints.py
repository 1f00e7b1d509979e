"""That a space advanced. A hint is never data: it may come late, twice, or not at all."""

from __future__ import annotations

import threading
import time
from uuid import UUID

# A hint from another process does not arrive here: a waiter looks again after so many seconds.
LOOK_AGAIN_SECONDS = 1.0
# Of the spaces that advanced, so many are remembered; past that all waiters look again.
REMEMBERED_MAX = 10_000


class Hints:
    """In this process: `mark`, then read, then `wait` for what came after the mark."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._told: dict[UUID, int] = {}
        self._count = 0

    def mark(self) -> int:
        return self._count

    def tell(self, space: UUID) -> None:
        """The space advanced: whoever waits for it may look."""
        with self._changed:
            self._count += 1
            if len(self._told) >= REMEMBERED_MAX:
                self._told.clear()
            self._told[space] = self._count
            self._changed.notify_all()

    def wait(self, space: UUID, mark: int, seconds: float) -> float:
        """Waits for a hint after the mark, a second at most; returns how long it took."""
        began = time.monotonic()
        with self._changed:
            self._changed.wait_for(
                lambda: self._told.get(space, 0) > mark, min(seconds, LOOK_AGAIN_SECONDS)
            )
        # At least a little, so that a waiter's patience ends whatever happens.
        return max(time.monotonic() - began, 0.001)
