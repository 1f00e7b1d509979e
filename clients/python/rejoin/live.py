"""`db.live()`: a thread that keeps the file and the server together for as long as it runs.

It prefers the websocket. Where none can be had it waits by long poll, and where that is cut too it
syncs every half a minute; every few minutes it tries the better way again. All ways end in the same
`settle`, from the file's own cursor, so a change of way loses and doubles nothing.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from threading import Condition, Thread, current_thread
from typing import TYPE_CHECKING, Literal, Self

from rejoin import spaces
from rejoin.answers import as_text
from rejoin.bell import Bell, Stopping
from rejoin.errors import RejoinError
from rejoin.line import Dial, Line, dial
from rejoin.ownwatch import Known
from rejoin.rowwatch import RowChange
from rejoin.values import Json, JsonObject
from rejoin.worker import Worker

if TYPE_CHECKING:
    from rejoin.database import Database

State = Literal["connecting", "live", "polling", "syncing", "waiting", "stopped"]
"""live: by websocket. polling: by long poll. syncing: plain sync now and then. waiting: nothing
gets through, or the server asked for a pause."""

STOP_WAIT_S = 5.0
"""How long `stop()` waits for a request in flight; its answer would be taken next time."""

log = logging.getLogger("rejoin")


class Live:
    """The handle of a running thread; see `Database.live`. Callbacks come from that thread."""

    def __init__(
        self,
        open_device: Callable[[Bell], Database],
        on_change: Callable[[list[RowChange]], None] | None,
        on_presence: Callable[[str, str, Json], None] | None,
        on_state: Callable[[State, str], None] | None,
        rand: Callable[[], float],
        personal: str,
        before: Known,
        dialled: Dial = dial,
    ) -> None:
        self._bell = Bell()
        self._open_device = open_device
        self._on_change = on_change
        self._on_presence = on_presence
        self._on_state = on_state
        self._rand = rand
        self._personal = personal
        self.before = before
        self._dial = dialled
        self._state: State = "connecting"
        self._words = ""
        self._state_changed = Condition()
        self._presences: dict[str, Json] = {}
        self._thread = Thread(target=self._run, name="rejoin-live", daemon=True)
        self._thread.start()

    # ---- the app's side

    @property
    def state(self) -> State:
        return self._state

    @property
    def words(self) -> str:
        """Why it is not live, for people; "" where it is."""
        return self._words

    def wait_until(self, *states: State, timeout_s: float) -> bool:
        """Waits for one of these states. False: the time was over first."""
        with self._state_changed:
            return self._state_changed.wait_for(lambda: self._state in states, timeout_s)

    def presence(self, space: str, state: JsonObject | None) -> None:
        """Shows this device's state to the others online in a space, at most 4 KiB of JSON.

        It is shown again after a reconnect. None: no longer.
        """
        if space == spaces.PERSONAL:
            space = self._personal
        self._presences = {**self._presences, space: state}
        self._bell.ring()

    def ring(self) -> None:
        """Something was written to the file: look at once."""
        self._bell.ring()

    def wake(self) -> None:
        """The network may be back: try at once."""
        self._bell.hurry()

    def stop(self) -> None:
        """Ends the thread, promptly. What is not sent yet is sent by the next sync."""
        self._bell.stop()
        if self._thread is not current_thread():
            self._thread.join(STOP_WAIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---- the thread

    def _run(self) -> None:
        words = ""
        try:
            device = self._open_device(self._bell)
            try:
                Worker(self, device).work()
            finally:
                device.close()
        except Stopping:
            pass
        except (RejoinError, sqlite3.Error, OSError) as error:
            words = str(error)
        except Exception as error:
            log.exception("live: the thread ends")
            words = f"{type(error).__name__}: {error}"
        finally:
            self.become("stopped", words)

    def become(self, state: State, words: str = "") -> None:
        with self._state_changed:
            same = (state, words) == (self._state, self._words)
            self._state, self._words = state, words
            self._state_changed.notify_all()
        if not same and self._on_state:
            self._called(self._on_state, state, words)

    def changed(self, rows: list[RowChange]) -> None:
        if self._on_change:
            self._called(self._on_change, rows)

    def present(self, message: JsonObject) -> None:
        """Another device's state, None once it is gone."""
        device, space = as_text(message.get("device")), as_text(message.get("space"))
        if self._on_presence:
            self._called(self._on_presence, space, device, message.get("state"))

    def _called(self, call: Callable[..., object], *told: object) -> None:
        """What the app's own function raises must not end the conversation."""
        try:
            call(*told)
        except Exception:
            log.exception("live: a callback of the app's failed")

    # ---- what the worker needs

    @property
    def bell(self) -> Bell:
        return self._bell

    def presences(self) -> dict[str, Json]:
        return self._presences

    def connect(self, server: str, token: str | None) -> Line:
        return Line(self._dial(server, token), self._bell)

    def jitter(self) -> float:
        return self._rand()
