"""The live thread's own half: one device, and one way to the server after the other."""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING

from rejoin import spaces
from rejoin.bell import Stopping
from rejoin.conversation import LOOK_EVERY_S, Conversation
from rejoin.errors import NotLoggedIn, RejoinError
from rejoin.line import ABNORMAL, Ended, NoSocket
from rejoin.ownwatch import OwnWatch
from rejoin.polling import Polls
from rejoin.spaces import Space

if TYPE_CHECKING:
    from rejoin.database import Database
    from rejoin.live import Live

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


class Final(RejoinError):
    """Nothing that time mends: the thread ends."""


class Worker:
    """See the module."""

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
