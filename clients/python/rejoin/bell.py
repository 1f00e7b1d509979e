"""What a background thread waits on: rung for work, hurried, or told to stop."""

from __future__ import annotations

import time
from threading import Condition
from typing import Literal

Heard = Literal["rung", "hurried", "nothing"]


class Stopping(Exception):
    """The thread was told to stop, wherever it was waiting. Never reaches the app."""


class Bell:
    """One condition for all that may end a wait: a ring, a stop, and what others put under it."""

    def __init__(self) -> None:
        self.changed = Condition()
        self.stopped = False
        self._rung = False
        self._hurried = False

    def ring(self) -> None:
        """There may be something to do."""
        with self.changed:
            self._rung = True
            self.changed.notify_all()

    def hurry(self) -> None:
        """What waits only for time to pass had better try now."""
        with self.changed:
            self._hurried = True
            self.changed.notify_all()

    def stop(self) -> None:
        """For good."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()

    def answered(self) -> bool:
        """Whether it was rung since this was last asked. Call it with `changed` held."""
        rung, self._rung = self._rung, False
        return rung

    def sleep(self, seconds: float) -> None:
        """A pause that only a stop cuts short. Raises Stopping."""
        with self.changed:
            self.changed.wait_for(lambda: self.stopped, seconds)
            self.check()

    def wait(self, seconds: float) -> Heard:
        """What came first; "nothing" once the time is over. Raises Stopping."""
        end = time.monotonic() + seconds
        with self.changed:
            self.changed.wait_for(
                lambda: self.stopped or self._rung or self._hurried, end - time.monotonic()
            )
            self.check()
            if self._hurried:
                self._hurried = False
                return "hurried"
            return "rung" if self.answered() else "nothing"

    def check(self) -> None:
        """Raises Stopping if so told."""
        if self.stopped:
            raise Stopping
