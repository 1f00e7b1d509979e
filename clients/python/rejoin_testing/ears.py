"""Callbacks that remember what they were told, and can be waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import rejoin

PATIENCE_S = 30.0
LOOK_S = 0.05


class Ears:
    """Callbacks that remember, and can be waited for."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.rows: list[rejoin.RowChange] = []
        self.presences: list[tuple[str, str, Any]] = []
        self.states: list[str] = []

    def on_change(self, rows: list[rejoin.RowChange]) -> None:
        with self.changed:
            self.rows += rows
            self.changed.notify_all()

    def on_presence(self, space: str, device: str, state: Any) -> None:
        with self.changed:
            self.presences.append((space, device, state))
            self.changed.notify_all()

    def on_state(self, state: str, _words: str) -> None:
        with self.changed:
            self.states.append(state)
            self.changed.notify_all()

    def forget(self) -> None:
        """What was heard so far."""
        with self.changed:
            self.rows.clear()

    def wait(self, wanted: Callable[[], Any]) -> bool:
        """Until it is true. Looked at after each call, and now and then: files are silent."""
        end = time.monotonic() + PATIENCE_S
        with self.changed:
            while not (done := wanted()) and time.monotonic() < end:
                self.changed.wait(LOOK_S)
            return bool(done)

    def heard_more(self, rows: int) -> bool:
        """Whether so many rows more were told within a moment: lets others catch up a little."""
        with self.changed:
            wanted = len(self.rows) + rows
            return self.changed.wait_for(lambda: len(self.rows) >= wanted, LOOK_S * 4)

    def heard(self, key: str, *, by_others: bool) -> bool:
        return self.wait(
            lambda: any(r.key == (key,) and r.by_others is by_others for r in self.rows)
        )


def go_live(db: rejoin.Database, ears: Ears | None = None) -> rejoin.Live:
    ears = ears or Ears()
    live = db.live(ears.on_change, on_presence=ears.on_presence, on_state=ears.on_state)
    assert live.wait_until("live", timeout_s=PATIENCE_S), live.words
    ears.forget()
    return live
