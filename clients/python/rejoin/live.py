"""`db.live()`: a thread that keeps the file and the server together for as long as it runs.

It prefers the websocket. Where none can be had it waits by long poll, and where that is cut too it
syncs every half a minute; every few minutes it tries the better way again. All ways end in the same
`settle`, from the file's own cursor, so a change of way loses and doubles nothing.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from threading import Condition, Thread, current_thread
from typing import TYPE_CHECKING, Literal, Self

from rejoin import spaces
from rejoin.answers import as_text
from rejoin.bell import Bell, Stopping
from rejoin.conversation import LOOK_EVERY_S, Conversation
from rejoin.errors import NotLoggedIn, RejoinError
from rejoin.line import ABNORMAL, Dial, Ended, Line, NoSocket, dial
from rejoin.ownwatch import Known, OwnWatch
from rejoin.polling import Polls
from rejoin.rowwatch import RowChange
from rejoin.spaces import Space
from rejoin.values import Json, JsonObject

if TYPE_CHECKING:
    from rejoin.database import Database

State = Literal["connecting", "live", "polling", "syncing", "waiting", "stopped"]
"""live: by websocket. polling: by long poll. syncing: plain sync now and then. waiting: nothing
gets through, or the server asked for a pause."""

BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.5, 60.0
"""Full jitter: a random part of this, doubled with each failure in a row."""
GOING_AWAY_S = 2.0
"""A server that restarts says so to all its devices at once: they spread over this time."""
BUSY_ATTEMPT = 4
"""Too much or too fast (1013), or a message of ours that it can't read: not before some seconds."""
STEADY_S = 30.0
"""A connection that lasted so long has ended the row of failures."""
SOCKET_AGAIN_S = 300.0
"""How long the lesser ways are used before the websocket is tried again."""
MISSES_MAX = 2
"""Handshakes in a row that fail before the lesser ways are tried."""
STOP_WAIT_S = 5.0
"""How long `stop()` waits for a request in flight; its answer would be taken next time."""

SYNC_EVERY_S = 30.0
"""Of plain syncs, where nothing can be waited for; half of it to one and a half times."""
ATTEMPT_MAX = 16
"""Doubled so often, every pause is at its bound."""
UNAUTHORIZED = 401
TROUBLE = (RejoinError, sqlite3.OperationalError, OSError)
"""What may be better the next time. A file that is locked for too long is among them."""

TOKEN, REVOKED, FORK, BUSY, BAD_MESSAGE, TOO_BIG = 4401, 4403, 4409, 1013, 4400, 1009
GOING_AWAY = frozenset({1001, 1012, ABNORMAL})
SPOKEN = frozenset({TOKEN, FORK, BUSY, BAD_MESSAGE})
"""Codes that only our server gives: the websocket works."""

log = logging.getLogger("rejoin")


class Final(RejoinError):
    """Nothing that time mends: the thread ends."""


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


class Worker:
    """The thread's own half: one device, one way after the other."""

    def __init__(self, live: Live, device: Database) -> None:
        self._live = live
        self._device = device
        self.db = device.file
        self.now_ms = device.now_ms
        self.changed = live.changed
        self.presences = live.presences
        self.present = live.present
        self._own = OwnWatch(device.file, live.changed, live.before)
        self._attempt = 0
        self._misses = 0
        self._ready_at: float | None = None
        self._plain_first = True

    def work(self) -> None:
        """Never returns. Raises Stopping, NotLoggedIn, Final."""
        while True:
            self._live.become("connecting", self._live.words)
            try:
                pause = self._try_once()
            except (NotLoggedIn, Final):
                raise
            except TROUBLE as error:
                pause = self._failed(str(error) or type(error).__name__)
            self._pause(pause)

    # ---- for the conversation

    def sync(self) -> None:
        """A plain sync, changes watched."""
        self._own.look()
        self._device.sync_watched(self.changed)
        self._own.applied()

    def applied(self) -> None:
        self._own.applied()

    def look(self) -> None:
        self._own.look()

    def renew(self) -> None:
        self._device.session().renew_stored()

    def online(self) -> None:
        """The server has said that it is ready."""
        self._ready_at = self._ready_at or time.monotonic()
        self._misses = 0
        self._live.become("live")

    # ---- the websocket, from handshake to end

    def _try_once(self) -> float:
        """Returns the pause before the next try, in seconds."""
        if self._plain_first or self._behind():
            self.sync()
            self._plain_first = False
        try:
            self._converse()
        except Ended as end:
            return self._ended(end)
        except NoSocket as refused:
            if refused.status == UNAUTHORIZED:
                self.renew()
            return self._missed(str(refused), refused.retry_after_s)
        except (NotLoggedIn, Stopping):
            raise
        except TROUBLE as error:
            words = str(error) or type(error).__name__
            return self._missed(words) if self._ready_at is None else self._failed(words)
        return 0.0

    def _converse(self) -> None:
        self._ready_at = None
        line = self._live.connect(self._device.server(), self._device.session().token())
        try:
            Conversation(self, line).run()
        finally:
            line.close()

    def _behind(self) -> bool:
        """Whether a plain sync is in the middle of something that it had better end."""
        return any(
            not s.pulled or s.page is not None or s.discarded is not None
            for s in spaces.read_all(self.db)
            if not s.withdrawn and s.error is None
        )

    def _ended(self, end: Ended) -> float:
        if end.code == REVOKED:
            raise Final("This device was revoked; log in again, and it gets a new id.")
        if end.code == TOKEN:
            self.renew()
        if end.code in (FORK, BAD_MESSAGE, TOO_BIG):
            self._plain_first = True  # it can tell what is wrong, and may mend it
        if end.code in (BUSY, BAD_MESSAGE):
            self._attempt = max(self._attempt, BUSY_ATTEMPT)
        if self._ready_at is None and end.code not in SPOKEN:
            return self._missed(str(end))
        pause = self._failed(str(end))
        return max(pause, GOING_AWAY_S * self._live.jitter()) if end.code in GOING_AWAY else pause

    def _failed(self, words: str) -> float:
        self._live.become("waiting", words)
        since = self._ready_at
        if since is not None and time.monotonic() - since > STEADY_S:
            self._attempt = 0
        bound = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * float(1 << self._attempt))
        self._attempt = min(self._attempt + 1, ATTEMPT_MAX)
        return bound * self._live.jitter()

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            heard = self._live.bell.wait(left)
            if heard == "hurried":
                return
            if heard == "rung":
                self._own.look()
        self._live.bell.check()

    # ---- the lesser ways

    def _missed(self, words: str, again_s: float = 0.0) -> float:
        """No websocket. Is it the network or the websocket? The second time a plain sync tells,
        the third, with plain sync working, is the lesser ways' turn."""
        self._misses += 1
        if self._misses < MISSES_MAX:
            return max(again_s, self._failed(words))
        if self._misses == MISSES_MAX:
            self._misses -= 1
            self.sync()
            self._misses += 1
            return 0.0
        self._misses = MISSES_MAX
        self._wait_otherwise(words, again_s or SOCKET_AGAIN_S)
        return 0.0

    def _wait_otherwise(self, words: str, seconds: float) -> None:
        """Long poll, and where that fails plain sync now and then, for so long."""
        polls = Polls(self._device, self._live.bell)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.sync()
            self._attempt = 0
            if polls.start(self._polled()):
                self._live.become("polling", words)
                pause = left
            else:
                self._live.become("syncing", words)
                pause = SYNC_EVERY_S * (0.5 + self._live.jitter())
            if self._listen(polls, min(left, pause)):
                return

    def _listen(self, polls: Polls, seconds: float) -> bool:
        """Until there is something to sync. True: the app says that the network has changed."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            heard = self._live.bell.wait(min(left, LOOK_EVERY_S))
            if heard == "hurried":
                return True
            self._own.look()
            if polls.over or self._pending():
                return False
        return False

    def _pending(self) -> bool:
        return any(
            not s.read_only and spaces.pending(self.db, s.no) for s in spaces.read_all(self.db)
        )

    def _polled(self) -> list[Space]:
        return [s for s in spaces.read_all(self.db) if s.pulled and s.error is None]
