"""Devices on files of their own, and the fake server they talk to."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import rejoin
from rejoin_testing.device import TASK_KINDS, TASKS, Maker
from rejoin_testing.fake_server import FakeServer


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def device(tmp_path: Path, server: FakeServer) -> Iterator[Maker]:
    """A function that opens a device: logged in, with `tasks` tracked, unless told otherwise."""
    made: list[rejoin.Database] = []

    def make(
        name: str = "a",
        sql: str = TASKS,
        table: str = "tasks",
        login: bool = True,
        kinds: dict[str, str] | None = None,
    ) -> rejoin.Database:
        pauses: list[float] = []
        db = rejoin.open(
            tmp_path / f"{name}.sqlite",
            "http://fake",
            http=server,
            sleep=pauses.append,
            rand=lambda: 0.5,
        )
        made.append(db)
        if login:
            db.login("ada@example.org", "secret")
        if sql:
            db.connection.executescript(sql)
            db.track(table, kinds=kinds or (TASK_KINDS if sql is TASKS else {}))
        return db

    yield make
    for db in made:
        db.close()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Callable[..., sqlite3.Connection]]:
    """A plain connection that knows nothing of Rejoin, like the sqlite3 shell's."""
    made: list[sqlite3.Connection] = []

    def make(name: str = "a") -> sqlite3.Connection:
        made.append(sqlite3.connect(tmp_path / f"{name}.sqlite", isolation_level=None))
        return made[-1]

    yield make
    for one in made:
        one.close()
