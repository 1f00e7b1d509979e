"""What one worker has: its settings, its clock and its engine.

Promise: nothing is global but the Flask extension dict. The engine is made at the first use in a
process, so a worker forked from a loaded master never shares its master's connections.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from flask import Flask, current_app
from sqlalchemy import Connection, Engine

from app.exchange import Exchange
from app.hints import Hints
from app.recording import Recorder
from app.relay import Relay, connect
from app.settings import Settings
from app.streams import Streams
from app.turns import Turns
from app.unshown import Unshown
from storage.engine import make_engine
from storage.notify import PostgresChannel, RedisChannel
from sync.limits import Limits

EXTENSION: Final = "rejoin"


class Runtime:
    """One for each app. `clock` gives seconds since 1970; a test moves it by setting another."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock: Callable[[], float] = time.time
        self.attempts_forgotten_at: datetime | None = None
        self.hints = Hints()
        self.turns = Turns()
        self.relay: Relay | None = None
        self.streams = Streams()
        self.unshown = Unshown(lambda: self.engine, settings.limits, self.now_ms)
        self._recorder: Recorder | None = None
        self._engine: Engine | None = None
        self._owner = 0
        self._recorder_owner = 0

    @property
    def limits(self) -> Limits:
        """The bounds in force."""
        return self.settings.limits

    @property
    def engine(self) -> Engine:
        """This process' own engine."""
        if self._engine is None or self._owner != os.getpid():
            self._engine = make_engine(self._database_url(), self.settings.pool_size)
            self._owner = os.getpid()
        return self._engine

    @property
    def recorder(self) -> Recorder:
        """What notes how the devices stand, in this process."""
        if self._recorder is None or self._recorder_owner != os.getpid():
            # A connection of its own: no request waits for one that a note needs.
            self._recorder = Recorder(
                lambda: make_engine(self._database_url(), 1),
                self.now_ms,
                self.settings.web_concurrency,
            )
            self._recorder_owner = os.getpid()
        return self._recorder

    def close(self) -> None:
        """Write what is left to write, and close all connections."""
        if self._recorder is not None and self._recorder_owner == os.getpid():
            self._recorder.stop()
        if self._engine is not None and self._owner == os.getpid():
            self._engine.dispose()

    def moved(self, device: UUID, online: bool) -> None:
        """A device's first socket in this worker was opened, or its last one closed."""
        self.recorder.moved(device, online)

    def _database_url(self) -> str:
        if self.settings.database_url is None:
            raise RuntimeError("no database: DATABASE_URL is not set, nor a server embedded")
        return self.settings.database_url

    @property
    def exchange(self) -> Exchange:
        """The way to the log."""
        return Exchange(
            self.engine, self.limits, self.hints, self.turns, self.recorder, self.unshown
        )

    def join_the_others(self) -> Relay:
        """Exchange hints with the other workers from now on. For a worker that serves."""
        if self.relay is None:
            redis, database = self.settings.redis_url, self.settings.database_url
            self.relay = Relay(RedisChannel(redis) if redis else PostgresChannel(database or ""))
            connect(self.hints, self.relay, self.engine)
        return self.relay

    def begin(self) -> AbstractContextManager[Connection]:
        """A connection in a transaction: committed at the end, rolled back by an exception."""
        return self.engine.begin()

    def now(self) -> datetime:
        """The time, UTC."""
        return datetime.fromtimestamp(self.clock(), UTC)

    def now_ms(self) -> int:
        """The time in milliseconds since 1970."""
        return int(self.clock() * 1000)


def install(app: Flask, settings: Settings) -> Runtime:
    """Give the app its runtime."""
    runtime = Runtime(settings)
    app.extensions[EXTENSION] = runtime
    return runtime


def runtime() -> Runtime:
    """The runtime of the app that answers now."""
    found: Runtime = current_app.extensions[EXTENSION]
    return found
